"""Along which pieces does the network change between two images, and which units switch on the way?"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, provenance
from microtome.spaces.bends import Bends, bends, verify
from microtome.spaces.linear_layer import in_double

_ROWS = 64  # points of the path that run at a time


@dataclass(frozen=True, eq=False, kw_only=True)
class ExitDistance(Result):
    """How far each image may go in a direction before a unit switches.

    Attributes
    ----------
    step : Tensor
        (N,): the largest t with x + t d in the region; infinite where no unit ever switches.
    facet : list of dict
        Which unit switches there; empty where none does.
    """

    step: Tensor
    facet: list[dict[str, Any]]


@dataclass(frozen=True, eq=False, kw_only=True)
class FacetPath(Result):
    """The straight path between two images, cut where units switch.

    Attributes
    ----------
    crossed : int
        Number of places where the path passes a facet.
    position : Tensor
        (crossed,) rising, 0 at the first image and 1 at the second.
    facet : list of dict
        The unit that switches at each place.
    logits : Tensor
        (crossed + 2, K): class scores at both ends and at every place; between them they are straight lines.
    gap : float
        Largest stretch left unexplained between two pieces; places are exact to this.
    """

    crossed: int
    position: Tensor
    facet: list[dict[str, Any]]
    logits: Tensor
    gap: float


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
        When there is not one direction for each image.

    Notes
    -----
    Cost: one forward pass with tangents, all units at once, in float64. Where the image lies on a facet and
    the direction leaves it towards the other side, the step is 0.
    """
    exact = in_double(net)
    x = exact.images(net.images(images, check=check).double(), check=False)
    d = directions.detach().double()
    if d.shape != x.shape:
        raise InputError(f"one direction for each image, {tuple(x.shape)}, was expected; got {tuple(d.shape)}.")
    verify(exact, x)
    steps, facets = [], []
    for part, way in zip(x.split(_ROWS), d.split(_ROWS), strict=True):
        found = bends(exact, part, way)
        step, place = _ahead(found)
        steps.append(step)
        facets += [found.owner(int(p)) if math.isfinite(t) else {} for t, p in zip(step.tolist(), place, strict=True)]
    return ExitDistance(provenance=provenance(net, "exit-distance"), step=torch.cat(steps), facet=facets)


@register(
    "facets-between", rows=("A8",), paper="raghu2017expressive", needs="a piecewise linear network", kind="spaces"
)
def facets_between(net: Network, first: Tensor, second: Tensor, *, gap: float = 1e-9, most: int = 100_000) -> FacetPath:
    """All facets that the straight path from one image to another passes, with the unit that switches at each.

    Every point of the path lies on a stretch where the network is linear, whose two ends follow from one
    forward pass with tangents. Stretches are laid side by side until they fill the path.

    Parameters
    ----------
    net : Network
        A piecewise linear network.
    first, second : Tensor
        (C, H, W) or (1, C, H, W).
    gap : float
        Two facets closer than this share of the path count as one place.
    most : int
        Give up above so many pieces.

    Returns
    -------
    FacetPath

    Raises
    ------
    OpaqueError
        When the network is not piecewise linear.
    InputError
        When the path has more than ``most`` pieces.

    Notes
    -----
    Cost: about one forward pass with tangents for each piece, 64 at a time, in float64.
    """
    exact = in_double(net)
    a, b = (exact.images(net.images(image).double()) for image in (first, second))
    if len(a) != 1 or len(b) != 1:
        raise InputError(f"two single images were expected, got {len(a)} and {len(b)}.")
    verify(exact, a)
    pieces = _covered(exact, a, b - a, gap, most)
    ends = [piece for piece in pieces if piece[1] < 1.0]
    position = torch.tensor([end for _, end, _ in ends], dtype=torch.float64)
    at = torch.cat([torch.zeros(1).double(), position, torch.ones(1).double()])
    points = a + at.reshape(-1, 1, 1, 1) * (b - a)
    gaps = [right[0] - left[1] for left, right in itertools.pairwise(pieces)]
    return FacetPath(
        provenance=provenance(net, "facets-between", gap=gap, most=most),
        crossed=len(ends),
        position=position,
        facet=[facet for _, _, facet in ends],
        logits=exact.logits(points, check=False),
        gap=max([0.0, *gaps]),
    )


_Piece = tuple[float, float, dict[str, Any]]  # where it starts and ends, and the unit that ends it


def _covered(net: Network, start: Tensor, way: Tensor, gap: float, most: int) -> list[_Piece]:
    """Pieces in order that leave no gap wider than ``gap``."""
    pieces: list[_Piece] = []
    wanted = [(i + 0.5) / _ROWS for i in range(_ROWS)]
    while wanted:
        for some in (wanted[i : i + _ROWS] for i in range(0, len(wanted), _ROWS)):
            pieces += _pieces(net, start, way, some)
        pieces = _disjoint(pieces)
        if len(pieces) > most:
            raise InputError(f"the path has more than {most} pieces; choose nearer images or raise most.")
        edges = [(0.0, pieces[0][0])] + [(p[1], q[0]) for p, q in itertools.pairwise(pieces)]
        edges.append((pieces[-1][1], 1.0))
        wanted = [(low + high) / 2 for low, high in edges if high - low > gap]
    return pieces


def _pieces(net: Network, start: Tensor, way: Tensor, at: list[float]) -> list[_Piece]:
    t = torch.tensor(at, dtype=torch.float64)
    found = bends(net, start + t.reshape(-1, 1, 1, 1) * way, way.expand(len(at), -1, -1, -1))
    ahead, place = _ahead(found)
    behind, _ = _ahead(found, backwards=True)
    low, high = (t - behind).clamp(min=0.0), (t + ahead).clamp(max=1.0)
    return [
        (float(low[i]), float(high[i]), found.owner(int(place[i])) if float(high[i]) < 1.0 else {})
        for i in range(len(at))
    ]


def _disjoint(pieces: list[_Piece]) -> list[_Piece]:
    """Sorted, each stretch once; overlaps by rounding are cut."""
    kept: list[_Piece] = []
    for low, high, facet in sorted(pieces, key=lambda piece: (piece[0], piece[1])):
        if kept and (low + high) / 2 <= kept[-1][1]:
            continue
        kept.append((max(low, kept[-1][1]) if kept else low, high, facet))
    return kept


def _ahead(found: Bends, *, backwards: bool = False) -> tuple[Tensor, Tensor]:
    """How far to the first facet, and which it is."""
    slope = -found.slope if backwards else found.slope
    value = torch.where(found.tied, 0.0, found.value)
    towards = (value * slope < 0) | (found.tied & (_side(found) * slope < 0))
    step = torch.where(towards, -value / torch.where(slope == 0, 1.0, slope), math.inf)
    nearest = step.min(1)
    return nearest.values.abs(), nearest.indices


def _side(found: Bends) -> Tensor:
    """On which side of a facet it lies on the image counts: torch's ReLU is off at zero, a maximum is not exceeded."""
    sides = [
        torch.full_like(part.value, 1.0 if "pool" in part.kind or part.kind in ("maximum", "max") else -1.0)
        for part in found.facets
    ]
    return torch.cat(sides, 1)[: len(found.value)] if sides else found.value
