"""The distance from an image to the edge of its linear region along a direction."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result
from microtome.spaces.operators.linear_layer import in_double
from microtome.spaces.regions.facets import PAIRS
from microtome.spaces.regions.tangent_facets import Bends, bends, verify

_ROWS = 64  # images that run at a time


@dataclass(frozen=True, eq=False, kw_only=True)
class ExitDistance(Result, drawing="spaces.linear_regions_figures:exit_distance"):
    """How far each image may go in a direction before a unit switches.

    Attributes
    ----------
    step : Tensor
        (N,): the largest t with x + t d in the region; infinite if no unit ever switches.
    facet : list of dict
        Which unit switches there; empty if none does.
    """

    step: Tensor
    facet: list[dict[str, Any]]


@register("exit-distance", rows=("A8",), paper="raghu2017expressive", needs="a piecewise linear network", kind="spaces")
def exit_distance(net: Network, images: Tensor, directions: Tensor, *, check: bool = True) -> ExitDistance:
    r"""How far each image may go in a given direction before the first unit switches.

    .. math:: t = \min \{ -z_u / (\nabla z_u \cdot d) : \text{positive} \}

    Parameters
    ----------
    net : Network
        A piecewise linear network.
    images, directions : Tensor
        (N, C, H, W) in pixel space; distances are in units of each direction's length.
    check : bool
        Whether values outside the pixel range are an error.

    Returns
    -------
    ExitDistance

    Raises
    ------
    OpaqueError
        When the network is not piecewise linear.
    InputError
        When there is not one finite direction for each image.

    Notes
    -----
    Cost: one forward pass with tangents, all units at once, in float64. Where the image lies on a facet and
    the direction leaves it towards the other side, the step is 0.

    References
    ----------
    .. [1] M. Raghu et al. On the expressive power of deep neural networks. ICML 2017.

    Examples
    --------
    Along one pixel, ReLU(x - 0.5) switches at 0.5:

    >>> from torch import nn
    >>> model = nn.Sequential(nn.Flatten(), nn.Linear(1, 1), nn.ReLU(), nn.Linear(1, 2))
    >>> with torch.no_grad():
    ...     _ = model[1].weight.fill_(1), model[1].bias.fill_(-0.5)
    >>> net = Network(model, input_shape=(1, 1, 1))
    >>> found = exit_distance(net, torch.full((1, 1, 1, 1), 0.75), -torch.ones(1, 1, 1, 1))
    >>> round(float(found.step[0]), 4)
    0.25
    """
    exact = in_double(net)
    x = exact.images(net.images(images, check=check).double(), check=False)
    d = torch.as_tensor(directions, device=x.device).detach().double()
    if d.shape != x.shape:
        raise InputError(f"one direction for each image, {tuple(x.shape)}, was expected; got {tuple(d.shape)}.")
    if not bool(d.isfinite().all()):
        raise InputError("directions of finite numbers were expected, got NaN or infinity.")
    verify(exact, x)
    steps, facets = [], []
    for part, way in zip(x.split(_ROWS), d.split(_ROWS), strict=True):
        found = bends(exact, part, way)
        step, place = ahead(found)
        steps.append(step)
        facets += [found.owner(int(p)) if math.isfinite(t) else {} for t, p in zip(step.tolist(), place, strict=True)]
    return ExitDistance(step=torch.cat(steps), facet=facets)


def ahead(found: Bends, *, backwards: bool = False) -> tuple[Tensor, Tensor]:
    """How far to the first facet on each image's direction, and which it is."""
    slope = -found.slope if backwards else found.slope
    value = torch.where(found.tied, 0.0, found.value)
    towards = (value * slope < 0) | (found.tied & (_side(found) * slope < 0))
    step = torch.where(towards, -value / torch.where(slope == 0, 1.0, slope), math.inf)
    if not step.shape[1]:  # a linear network has no facet at all
        return step.new_full((len(step),), math.inf), step.new_zeros(len(step), dtype=torch.long)
    nearest = step.min(1)
    return nearest.values.abs(), nearest.indices


def _side(found: Bends) -> Tensor:
    """On which side of a facet it lies on the image counts: torch's ReLU is off at zero, a maximum is not exceeded."""
    sides = [
        torch.full_like(part.value, 1.0 if "pool" in part.kind or part.kind in PAIRS else -1.0) for part in found.facets
    ]
    return torch.cat(sides, 1)[: len(found.value)] if sides else found.value
