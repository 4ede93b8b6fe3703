"""Rejection: the share of its input energy that each layer rejects, and the part of an image that each layer loses."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome import data
from microtome.errors import InputError
from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.results import Result, stated
from microtome.spaces.operators.jacobian import jacobian_operator
from microtome.spaces.operators.layer_operator import layer_operator
from microtome.spaces.operators.linear_layer import (
    chosen_linear_layers,
    images_first,
    in_double,
    linear_layers,
    read_by,
)
from microtome.spaces.operators.operator import DENSE
from microtome.spaces.singular.injective import injective
from microtome.spaces.split.row_space import STEPS, THRESHOLD, SignalPart, signal_part
from microtome.tables import Table

_NOTE = (
    "share lost: mean share of the energy of the layer's input whose removal changes its output by less "
    "than the threshold; error: how far a share may be from the exact one. exact null space: the share "
    "whose removal changes nothing."
)

_BATCH = 64  # images whose feature maps are split at a time
_HELD = 150_000_000  # numbers that the bases of all images of a batch may hold: 1.2 GB
_SURE = 0.02  # a share counts as known if its error is below twice this share of itself, or ...
_SURE_PART = 0.001  # ... to this share of the whole


@dataclass(frozen=True, eq=False, kw_only=True)
class _Shares:
    """Lost shares of energy, with their proved bounds.

    Attributes
    ----------
    layers : list of str
        Layers in the order they run.
    share : Tensor
        (layers, N): energy of the lost part divided by that of the whole, for each image; NaN where the whole has no
        energy, as of a black picture. See ``signal_part``.
    error : Tensor
        (layers, N): bound on the distance of ``share`` from the exact share.
    null_share : Tensor
        (layers, N): the share of the energy in the exact null space; 0 for an injective map, NaN if unknown.
    threshold : float
        The largest share of the output from the lost part; it defines ``share``.
    reached : Tensor
        (layers, N): the threshold that ``share`` belongs to. Where it is above ``threshold`` the steps did not
        suffice, and ``share`` is an upper bound.
    """

    layers: list[str]
    share: Tensor
    error: Tensor
    null_share: Tensor
    threshold: float
    reached: Tensor

    @property
    def known(self) -> Tensor:
        """(layers, N): whether ``share`` belongs to ``threshold``, and its error is below 4 % of it or 0.1 % of all."""
        close = self.error <= torch.maximum(2 * _SURE * self.share, torch.full_like(self.share, _SURE_PART))
        return close & (self.reached <= self.threshold * (1 + 1e-9))

    @property
    def defined(self) -> Tensor:
        """(layers, N): whether there is any energy of which the lost part can be a share."""
        return ~self.share.isnan()

    @property
    def mean(self) -> Tensor:
        """(layers,): mean share over the images for which it is defined; NaN if there is none."""
        return self.share.nanmean(1)

    def proof(self, layer: int) -> str:
        """What is known of a layer's share, in words."""
        defined = self.defined[layer]
        if not bool(defined.any()):
            return "not defined: the energy is zero"
        words = "proved" if bool(self.known[layer][defined].all()) else "an upper bound"
        without = int((~defined).sum())
        return words + (f", without {without} image{'s' if without > 1 else ''} of zero energy" if without else "")

    def table(self) -> Table:
        """A row for each layer: mean lost share and its largest possible error, its kind, exact null space."""
        rows = []
        for place, name in enumerate(self.layers):
            errors = self.error[place][self.defined[place]]
            rows.append(
                {
                    "layer": name,
                    "share lost": float(self.mean[place]),
                    "error": float(errors.max()) if len(errors) else float("nan"),
                    "the share is": self.proof(place),
                    "exact null space": self.null_space(place),
                }
            )
        return Table.of(rows, _NOTE)

    def null_space(self, layer: int) -> str:
        """A layer's exact null space in words; mean over the images with energy."""
        null = self.null_share[layer][self.defined[layer]]
        if not len(null):
            return "not defined"
        if bool(null.isnan().any()):
            return "not measured"
        if not bool(null.any()):
            return "0: injective"
        return f"{100 * float(null.mean()):.3g} %"


@dataclass(frozen=True, eq=False, kw_only=True)
class Rejected(_Shares, Result, drawing="spaces.space_figures:rejected"):
    """The share of what each linear layer reads that it rejects.

    Attributes
    ----------
    layers : list of str
        Linear layers in the order they run.
    share, error, null_share, threshold, reached
        (layers, N) each: the share of the energy of what a layer reads whose removal changes the output of its
        weights by less than ``threshold``, with its proof; the share in the exact null space.
    """


@dataclass(frozen=True, eq=False, kw_only=True)
class KeptAndLost(_Shares, Result, drawing="spaces.space_figures:kept_and_lost"):
    """Images split into the part that each layer depends on, and the rest.

    Attributes
    ----------
    layers : list of str
        Layers in the order they run.
    images : Tensor
        (N, C, H, W) in pixel space.
    kept, lost : Tensor
        (layers, N, C, H, W): the smallest part of the image that the local map to the layer sends to nearly the same
        output, and the rest. They add up to the image; either may leave the pixel range.
    share, error, null_share, threshold, reached
        (layers, N) each: the share of the energy of the image in ``lost``, with its proof; the share in the exact
        null space.
    """

    images: Tensor
    kept: Tensor
    lost: Tensor


@register(
    "rejected-energy", rows=("A4",), paper="pattichis2024spaces", needs="Linear or convolution layers", kind="spaces"
)
def rejected_energy(
    net: Network,
    dataset: Any,
    layers: Iterable[str] | None = None,
    *,
    threshold: float = THRESHOLD,
    iterations: int = STEPS,
    dense: bool = True,
) -> Rejected:
    r"""The share of each activation's energy that the next linear map rejects.

    .. math:: \frac{\|x - k\|^2}{\|x\|^2},\qquad
              k = \arg\min \|k\|^2 \;\text{ with }\; \|W k - W x\| \le t\,\|W x\|

    where W is the exact linear operator of the layer, x its whole input and t the threshold. The share in the exact
    null space, :math:`\|x - W^+ W x\|^2 / \|x\|^2`, is given as well if it is known.

    Parameters
    ----------
    net : Network
        The network.
    dataset : Tensor or map-style data set
        Images.
    layers : iterable of str, optional
        Linear and convolution layers; default all.
    threshold : float
        t: the rejected part contributes this share of the layer's output.
    iterations : int
        Maximum number of steps for a convolution; see ``error`` and ``reached``.
    dense : bool
        Whether maps of up to 1,024 values are decomposed as matrices, and the rank of those of up to 4,096 is computed.

    Returns
    -------
    Rejected

    Raises
    ------
    LayerError
        When a layer is no linear map, or there is none.
    InputError
        When there is no image, or an option is out of range.

    Notes
    -----
    Cost: for Linear one SVD, for a convolution about 20 to 300 pairs of convolution and adjoint on each image, and some
    seconds for a rank. A later layer cannot use what an earlier one rejected, but what a layer keeps may still be
    rejected later: for that see ``kept_and_lost``. For the reason of the threshold see ``signal_part``.

    References
    ----------
    .. [1] R. Pattichis, M. S. Pattichis. Understanding neural network systems for image analysis using vector
       spaces and inverse maps. SSIAI 2024.
    """
    names = chosen_linear_layers(net, layers)
    maps = {name: layer_operator(net, name) for name in names}
    full = {name: injective(maps[name], measure=dense) is True for name in reported(names, "ranks of layers")}
    parts: dict[str, list[SignalPart]] = {name: [] for name in names}
    for images in _images(net, dataset):
        reads = net.activations(images, [read_by(net, name) for name in names], check=False)
        for name in reported(names, str):
            x = images_first(net, read_by(net, name), reads[read_by(net, name)], len(images))
            for some in x.split(_together(maps[name].shape, iterations)):
                part = signal_part(maps[name], some, threshold=threshold, iterations=iterations, dense=dense)
                parts[name].append(part)
    if not parts[names[0]]:
        raise InputError("there is no image: the data set is empty.")
    return Rejected(
        provenance=stated(layers=names),
        layers=names,
        threshold=threshold,
        **_stacked([parts[name] for name in names], [full[name] for name in names]),
    )


@register("kept-and-lost", rows=("A4",), paper="pattichis2024spaces", kind="spaces")
def kept_and_lost(
    net: Network,
    images: Tensor,
    layers: Iterable[str] | None = None,
    *,
    threshold: float = THRESHOLD,
    iterations: int = STEPS,
    dense: bool = True,
) -> KeptAndLost:
    r"""The part of each image on which each layer depends, and the lost part, as pictures.

    .. math:: J = \frac{\partial f_l}{\partial x},\qquad
              x_{\mathrm{kept}} = \arg\min \|k\|^2 \;\text{ with }\; \|J k - J x\| \le t\,\|J x\|,\qquad
              x_{\mathrm{lost}} = x - x_{\mathrm{kept}}

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    layers : iterable of str, optional
        Default: every linear layer.
    threshold : float
        t: the lost part contributes this share of the local map's output.
    iterations : int
        Maximum number of steps per layer; see ``error`` and ``reached``.
    dense : bool
        Whether the local map of images of up to 1,024 values is computed as a matrix: exact, and its rank is
        measured; some seconds for each layer and image.

    Returns
    -------
    KeptAndLost

    Raises
    ------
    LayerError
        When a layer does not exist, or there is none.
    InputError
        When an option is out of range.

    Notes
    -----
    Cost: one forward pass per layer and three backward passes per step, in float64; a layer of at most 64
    values, such as ``"logits"`` of ten classes, takes one backward pass for each of them and is split exactly. The
    local map is the network's own inside the linear region of the image where it is piecewise linear, else its
    derivative. The loss is of first order: far from the image other units become active. Deep layers of photos may need
    more steps than ``iterations``: then ``share`` is an upper bound, for the larger threshold ``reached``.

    References
    ----------
    .. [1] R. Pattichis, M. S. Pattichis. Understanding neural network systems for image analysis using vector
       spaces and inverse maps. SSIAI 2024.
    """
    names = chosen_linear_layers(net, layers)
    exact = in_double(net)
    x = exact.images(net.images(images).double())
    parts: list[list[SignalPart]] = []
    for name in reported(names, str):
        shape = (exact.activations(x[:1], [name], check=False)[name].numel(), x[0].numel())
        parts.append([
            signal_part(
                jacobian_operator(exact, some, layer=name), some,
                threshold=threshold, iterations=iterations, dense=dense,
            )
            for some in x.split(net.admitted(_together(shape, iterations, apart=True)))
        ])  # fmt: skip
    return KeptAndLost(
        provenance=stated(layers=names),
        layers=names,
        threshold=threshold,
        images=x,
        kept=torch.stack([torch.cat([part.kept for part in some]) for some in parts]),
        lost=torch.stack([torch.cat([part.lost for part in some]) for some in parts]),
        **_stacked(parts, [_first_and_injective(exact, name) for name in names]),
    )


def _stacked(parts: list[list[SignalPart]], full: list[bool]) -> dict[str, Tensor]:
    """The shares of all parts, (layers, N) each; the null space of an injective map is empty."""
    share, error, null, reached = (
        torch.stack([torch.cat([getattr(part, name) for part in some]) for some in parts])
        for name in ("lost_share", "error", "null_share", "threshold")
    )
    null[torch.tensor(full, device=null.device)] = 0.0
    null[share.isnan()] = torch.nan
    return {"share": share, "error": error, "null_share": null, "reached": reached}


def _together(shape: tuple[int, int], iterations: int, *, apart: bool = False) -> int:
    """Number of images per batch: by the memory of their bases, and of their matrices if each has its own."""
    m, n = shape
    count = _HELD // (n * max(1, min(iterations, m, n)))
    return max(1, min(count, DENSE // (m * n)) if apart else count)


def _first_and_injective(net: Network, name: str) -> bool:
    """Whether a layer is linear, reads the image itself and is injective: then so is its local map."""
    layer = net.layers.get(name)
    if layer is None or name not in linear_layers(net) or layer.inputs != ("input",):
        return False
    if injective(layer_operator(net, name), measure=False) is not True:
        return False
    # What lies between, such as padding, copies the normalised pixels: R^T R = 1 / std^2, seen on a random vector.
    between = jacobian_operator(net, net.probe, layer=read_by(net, name))
    x = torch.randn(between.input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu")
    x = x.to(between.device)[None]
    scale = torch.tensor(net.std, dtype=torch.float64, device=x.device)[:, None, None]
    return bool(torch.allclose(between.adjoint(between.apply(x)) * scale.square(), x, rtol=1e-9, atol=1e-9))


def _images(net: Network, dataset: Any) -> Iterable[Tensor]:
    if isinstance(dataset, Tensor):
        checked = net.images(dataset)
        return [checked[start : start + _BATCH] for start in range(0, len(checked), _BATCH)]
    return (net.images(images) for _, images, _ in data.batches(dataset, _BATCH, net=net))
