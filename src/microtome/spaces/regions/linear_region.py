"""The exact affine map of a piecewise linear network around an image, and the part of the image in its null space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, stated
from microtome.spaces.operators.linear_layer import in_double
from microtome.spaces.regions.exit_distance import exit_distance
from microtome.spaces.regions.facet_distance import facet_distance
from microtome.spaces.regions.tangent_facets import verify

_LARGEST = 60_000_000  # numbers in the weights: 480 MB


@dataclass(frozen=True, eq=False, kw_only=True)
class LinearRegion(Result, drawing="spaces.linear_regions_figures:linear_region"):
    """The exact affine map of the network around each image.

    Attributes
    ----------
    images : Tensor
        (N, C, H, W) in pixel space, float64.
    classes : list of int
        The class scores that the map gives.
    weight : Tensor
        (N, K, C * H * W): score k is weight[k] . pixels + bias[k] all over the region.
    bias : Tensor
        (N, K).
    distance, facet, normal, ties, silent_ties, changing, doubt
        The nearest facet, as in ``FacetDistance``.
    singular_values : Tensor
        (N, min(K, C * H * W)) of each weight.
    signal, ignored : Tensor
        (N, C, H, W): the part of each image in the row space of its own map, and the part in the null space,
        which does not change these scores. They add up to the image.
    ignored_extent : Tensor
        (N, 2): how many multiples of ``ignored`` may be taken away and added inside the region.
    ignored_change : Tensor
        (N,): largest change of a score when 0.99 of those multiples (at most one) is taken away or added:
        the proof, zero to rounding.
    """

    images: Tensor
    classes: list[int]
    weight: Tensor
    bias: Tensor
    distance: Tensor
    facet: list[dict[str, Any]]
    normal: Tensor
    ties: Tensor
    silent_ties: Tensor
    changing: Tensor
    doubt: float
    singular_values: Tensor
    signal: Tensor
    ignored: Tensor
    ignored_extent: Tensor
    ignored_change: Tensor

    def apply(self, images: Tensor) -> Tensor:
        """Scores (N, K) that the maps give for one image each; the network's own inside their regions."""
        if images.shape != self.images.shape:
            raise InputError(f"one image for each map, {tuple(self.images.shape)}, was expected.")
        return torch.einsum("nkp,np->nk", self.weight, images.to(self.weight).flatten(1)) + self.bias


@register("linear-region", rows=("A8",), paper="raghu2017expressive", needs="a piecewise linear network", kind="spaces")
def linear_region(
    net: Network, images: Tensor, *, classes: Sequence[int | str] | None = None, probes: int | None = 20, seed: int = 0
) -> LinearRegion:
    r"""The network as the affine map that it is around each image, with its edge and its null space.

    .. math:: f(x') = W x' + b \quad\text{for all } x' \text{ in the region},\qquad
              x = W^+ W x + x_{\mathrm{ignored}},\qquad W x_{\mathrm{ignored}} = 0

    Parameters
    ----------
    net : Network
        A piecewise linear network.
    images : Tensor
        (N, C, H, W).
    classes : sequence, optional
        Which class scores; default all. For large networks choose a few, or use ``spaces.jacobian``, whose
        products need no matrix.
    probes, seed
        As in ``facet_distance``.

    Returns
    -------
    LinearRegion

    Raises
    ------
    OpaqueError
        When the network is not piecewise linear.
    InputError
        When no class is given, or the weights would hold more than 60 million numbers.

    Notes
    -----
    Cost: one backward pass for each class, and that of ``facet_distance``; in float64.
    An image with ``ties`` (equal values of a plain background in one pooling window) is a corner of its region: the
    network bends at the image itself, the map holds towards the side that torch's pooling takes, and
    ``ignored_extent`` is 0 in directions that leave it. Silent ties do no harm.

    References
    ----------
    .. [1] M. Raghu, B. Poole, J. Kleinberg, S. Ganguli, J. Sohl-Dickstein. On the expressive power of deep
       neural networks. ICML 2017.

    Examples
    --------
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 8), torch.nn.ReLU(), torch.nn.Linear(8, 2))
    >>> net = Network(model.double(), (1, 2, 2))
    >>> x = torch.rand(1, 1, 2, 2, dtype=torch.float64)
    >>> region = linear_region(net, x)
    >>> beside = x + 0.9 * region.normal
    >>> bool((region.apply(beside) - net.logits(beside, check=False)).abs().max() < 1e-12)
    True
    """
    exact = in_double(net)
    x = exact.images(net.images(images).double())
    verify(exact, x)
    source = x.clone().requires_grad_()
    logits = exact.forward(source, ["logits"])["logits"]
    wanted = range(logits.shape[1]) if classes is None else [net.class_index(name) for name in classes]
    chosen = [int(net.targets(index, logits[:1])[0]) for index in wanted]
    if not chosen:
        raise InputError("at least one class was expected, got none.")
    pixels = math.prod(net.input_shape)
    if len(x) * len(chosen) * pixels > _LARGEST:
        raise InputError(
            f"the maps of {len(x)} images, {len(chosen)} classes and {pixels} pixels would hold more than "
            f"{_LARGEST:,} numbers; choose classes or fewer images, or use spaces.jacobian."
        )
    rows = [torch.autograd.grad(logits[:, k].sum(), source, retain_graph=True)[0].flatten(1) for k in chosen]
    weight = torch.stack(rows, 1)
    flat = x.flatten(1)
    bias = logits.detach()[:, chosen] - torch.einsum("nkp,np->nk", weight, flat)
    s, v = _right(weight)
    kept = s > max(weight.shape[1:]) * torch.finfo(torch.float64).eps * s[:, :1]
    signal = torch.einsum("nrp,nr->np", v, torch.einsum("nrp,np->nr", v, flat) * kept).reshape(x.shape)
    ignored = x - signal
    extent, change = _proof(exact, x, ignored, chosen)
    near = facet_distance(exact, x, probes=probes, seed=seed)
    return LinearRegion(
        provenance=stated(classes=chosen),
        images=x,
        classes=chosen,
        weight=weight,
        bias=bias,
        distance=near.distance,
        facet=near.facet,
        normal=near.normal,
        ties=near.ties,
        silent_ties=near.silent_ties,
        changing=near.changing,
        doubt=near.doubt,
        singular_values=s,
        signal=signal,
        ignored=ignored,
        ignored_extent=extent,
        ignored_change=change,
    )


def _right(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Singular values and right vectors of each map, (N, r), (N, r, pixels)."""
    _, s, v = torch.linalg.svd(weight, full_matrices=False)
    return s, v


def _proof(net: Network, x: Tensor, ignored: Tensor, classes: list[int]) -> tuple[Tensor, Tensor]:
    """Take away and add as much of the ignored part as the region allows, and see what the scores do."""
    steps = [exit_distance(net, x, sign * ignored).step for sign in (-1.0, 1.0)]
    before = net.logits(x)[:, classes]
    changes = []
    for sign, step in zip((-1.0, 1.0), steps, strict=True):
        part = (0.99 * step).clamp(max=1.0).reshape(-1, 1, 1, 1)
        moved = net.logits(x + sign * part * ignored, check=False)[:, classes]
        changes.append((moved - before).abs().amax(1))
    return torch.stack(steps, 1), torch.stack(changes, 1).amax(1)
