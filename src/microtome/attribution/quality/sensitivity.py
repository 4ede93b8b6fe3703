"""Max-sensitivity: the largest change of a map under small changes of the image."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.attribution.own_method import MethodLike, resolve
from microtome.attribution.result import Attribution, wide
from microtome.batch_sizes import check_count
from microtome.errors import InputError
from microtome.inputs import Target
from microtome.network import Network
from microtome.progress import reported
from microtome.registry import register
from microtome.results import Result, stated


@dataclass(frozen=True, eq=False, kw_only=True)
class Sensitivity(Result, drawing="attribution.quality_figures:sensitivity"):
    """How much a map changes with the image.

    Attributes
    ----------
    values : Tensor
        (N,), the largest relative change found; NaN if the map is zero everywhere.
    target : Tensor
        (N,), the class.
    """

    values: Tensor
    target: Tensor


@register("max-sensitivity", rows=("C12",), paper="yeh2019fidelity", needs="a method", kind="quality")
def max_sensitivity(
    net: Network,
    images: Any,
    method: MethodLike,
    target: Target = None,
    *,
    options: Mapping[str, Any] | None = None,
    radius: float = 0.02,
    samples: int = 8,
    seed: int = 0,
) -> Sensitivity:
    r"""The largest change of a map in a small box around the image, relative to the map.

    .. math:: \max_{\|\delta\|_\infty \le r} \frac{\|\Phi(x + \delta) - \Phi(x)\|_2}{\|\Phi(x)\|_2}

    searched by drawing :math:`\delta` uniformly, cut off where pixels would leave their range; so it
    is a lower bound [1]_.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) in the network's pixel range.
    method : str or function
        A registered attribution method, or a function (network, images, target) -> map: see ``own_method``.
    target : int, str, sequence, Tensor or None
        The class; None for the class predicted for the original image, used for all draws.
    options : mapping, optional
        The method's options.
    radius : float
        r, in units of the pixels.
    samples : int
        Number of draws for each image.
    seed : int
        Seed of the draws.

    Returns
    -------
    Sensitivity
        The largest relative change of each image.

    Raises
    ------
    InputError
        When method, images, targets or options do not fit.

    Notes
    -----
    Cost: ``samples + 1`` times that of the method. A map that ignores the network is perfectly
    stable: read it beside ``randomisation``.

    References
    ----------
    .. [1] Yeh et al., On the (in)fidelity and sensitivity of explanations, NeurIPS 2019.

    Examples
    --------
    The gradient of a linear network is the same everywhere.

    >>> from torch import nn
    >>> net = Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), input_shape=(1, 2, 2))
    >>> max_sensitivity(net, torch.full((1, 1, 2, 2), 0.5), "gradient", 0).values
    tensor([0.])
    """
    if not radius > 0:
        raise InputError(f"the radius must be positive, got {radius}.")
    judged, chosen_options = resolve(method), dict(options or {})
    explain = judged.function
    checked = net.images(images).detach()
    first: Attribution = explain(net, checked, target, **chosen_options)
    before = wide(first.values)
    length = before.flatten(1).norm(dim=1)
    generator = torch.Generator().manual_seed(seed)
    largest = torch.zeros_like(length)
    for _ in reported(range(check_count(samples, "samples")), "moved images"):
        after = wide(explain(net, nearby(net, checked, radius, generator), first.target, **chosen_options).values)
        largest = torch.maximum(largest, (after - before).flatten(1).norm(dim=1))
    return Sensitivity(
        provenance=stated(judged=judged.name, options=chosen_options),
        values=torch.where(length > 0, largest / length, torch.nan),
        target=first.target,
    )  # fmt: skip


def nearby(net: Network, images: Tensor, radius: float, generator: torch.Generator) -> Tensor:
    """Images with every pixel moved by at most the radius, inside the pixel range."""
    shift = (torch.rand(images.shape, generator=generator, dtype=torch.float64, device="cpu") * 2 - 1) * radius
    moved = images + shift.to(images)
    return moved if net.pixels is None else moved.clamp(*net.pixels)
