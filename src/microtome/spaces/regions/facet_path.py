"""The facets on the straight path between two images, with the class scores at each."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.errors import InputError, ModelError, OpaqueError
from microtome.network import Network
from microtome.progress import Clock
from microtome.registry import register
from microtome.results import Result
from microtome.spaces.operators.linear_layer import in_double
from microtome.spaces.regions.crossings import Crossings
from microtome.spaces.regions.exact_path import PathTooLongError, segments
from microtome.spaces.regions.fixed_batch_path import stepped
from microtome.spaces.regions.tangent_facets import verify

_CHUNKS = 16  # parts of the path that go through the network one after another
_CHECKED = 64  # pieces in whose middle the scores are compared with the straight line
_STRAIGHT = 1e-8


@dataclass(frozen=True, eq=False, kw_only=True)
class FacetPath(Result, drawing="spaces.linear_regions_figures:facets_between"):
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
    reached : float
        The part of the path that was followed: 1 unless it has more places than ``limit``; then it ends where the
        next one lies.
    gap : float
        Largest stretch left unexplained between two pieces; places are exact to this.
    error : float
        Largest difference, by the largest score, between the network and the straight line, in the middle of
        some pieces.
    """

    crossed: int
    position: Tensor
    facet: list[dict[str, Any]]
    logits: Tensor
    reached: float
    gap: float
    error: float


@register(
    "facets-between", rows=("A8",), paper="raghu2017expressive", needs="a piecewise linear network", kind="spaces"
)
def facets_between(
    net: Network, first: Tensor, second: Tensor, *, gap: float = 1e-9, limit: int = 100_000
) -> FacetPath:
    """All facets that the straight path from one image to another passes, with the unit that switches at each.

    The path goes through the network as a batch of points between which all values are straight lines. At each
    operation that bends, the points where one of its units switches follow by intersecting lines, and are added
    to the batch, so that what comes behind is straight again [1]_.

    Parameters
    ----------
    net : Network
        A piecewise linear network.
    first, second : Tensor
        (C, H, W) or (1, C, H, W).
    gap : float
        Facets closer than this share of the path count as one place.
    limit : int
        Maximum number of facets, the first ones; ``reached`` is the part of the path that was followed.

    Returns
    -------
    FacetPath

    Raises
    ------
    OpaqueError
        When the network is not piecewise linear.
    InputError
        When not two single images are given, or ``limit`` is not positive.

    Notes
    -----
    Cost: less than one forward pass in float64 for each facet, for an operation sees the points that earlier ones
    have added, not later ones. Networks that fix their batch size inside are stepped through instead,
    facet by facet, with two passes for each. Units that switch without any effect on the scores count too.

    References
    ----------
    .. [1] M. Sotoudeh, A. V. Thakur. Computing linear restrictions of neural networks. NeurIPS 2019.
    """
    exact = in_double(net)
    a, b = (exact.images(net.images(image).double()) for image in (first, second))
    if len(a) != 1 or len(b) != 1:
        raise InputError(f"two single images were expected, got {len(a)} and {len(b)}.")
    if limit < 1:
        raise InputError(f"at least one facet was expected, got limit={limit}.")
    if not 0 <= gap < 1:
        raise InputError(f"gap must be a share of the path, at least 0 and below 1, got {gap}.")
    verify(exact, a)
    way = b - a
    found = _traced(exact, a, way, gap, limit)
    error = math.inf if found is None else _deviation(exact, a, way, found)
    if found is None or not error < _STRAIGHT:
        found = _stepped(exact, a, way, gap, limit)
        error = _deviation(exact, a, way, found)
    return FacetPath(
        crossed=len(found.facet),
        position=found.at[1:-1].clone(),
        facet=found.facet,
        logits=found.logits,
        reached=float(found.at[-1]),
        gap=found.gap,
        error=error,
    )


@dataclass(frozen=True)
class _Cut:
    """A path cut: its two ends with all places between, scores there, and the unit at each place."""

    at: Tensor
    logits: Tensor
    facet: list[dict[str, Any]]
    gap: float


def _traced(net: Network, start: Tensor, way: Tensor, gap: float, limit: int) -> _Cut | None:
    """By rows added to the batch, chunk after chunk; None if the network does not let them be added."""
    ends = [i / _CHUNKS for i in range(_CHUNKS, 0, -1)]
    places: list[Tensor] = []
    scores: list[Tensor] = []
    facets: list[dict[str, Any]] = []
    low, last = 0.0, start.new_empty(0)
    clock = Clock(None, _CHUNKS)
    while ends and len(facets) <= limit:  # one more than wanted shows where the last piece ends
        try:
            at, logits, found = segments(net, start, way, low, ends[-1])
        except PathTooLongError:
            ends.append((low + ends[-1]) / 2)
            continue
        except (ModelError, OpaqueError):  # the rows that are added make a batch that the model does not take
            return None
        if len(at) != len(logits):
            return None
        place, owners = _places(found, gap, start)
        row = torch.searchsorted(at, place)
        places.append(place)
        scores.append(logits[row] if places[:-1] else torch.cat([logits[:1], logits[row]]))
        facets += owners
        low, last = ends.pop(), logits[-1:]
        clock.step("pieces of the path", int(low * _CHUNKS), facets=len(facets))
    edge = start.new_tensor([0.0, low])
    whole = _Cut(torch.cat([edge[:1], *places, edge[1:]]), torch.cat([*scores, last]), facets, 0.0)
    return (
        whole if len(facets) <= limit else _Cut(whole.at[: limit + 2], whole.logits[: limit + 2], facets[:limit], 0.0)
    )


def _places(found: list[Crossings], gap: float, like: Tensor) -> tuple[Tensor, list[dict[str, Any]]]:
    """Places of all operations in order, those closer than ``gap`` once, with the unit that switches first there."""
    at = torch.cat([like.new_empty(0), *(part.at for part in found)])
    owners = [(bends, place) for bends in found for place in range(len(bends.at))]
    order = at.argsort(stable=True)
    sorted_ = at[order]
    new = torch.ones_like(at, dtype=torch.bool)
    new[1:] = sorted_[1:] - sorted_[:-1] > gap
    kept = order[new]
    return at[kept], [owners[i][0].owner(owners[i][1]) for i in kept.tolist()]


def _stepped(net: Network, start: Tensor, way: Tensor, gap: float, limit: int) -> _Cut:
    pieces, widest = stepped(net, start, way, gap, limit)
    inner = [piece for piece in pieces if piece[1] < 1.0]
    last = inner[limit][1] if len(inner) > limit else 1.0
    inner = inner[:limit]
    at = start.new_tensor([0.0, *(end for _, end, _ in inner), last])
    logits = net.logits(start + at.reshape(-1, 1, 1, 1) * way, check=False)
    return _Cut(at, logits, [facet for _, _, facet in inner], widest)


def _deviation(net: Network, start: Tensor, way: Tensor, found: _Cut) -> float:
    """Largest difference between the network in the middle of pieces, evenly spread, and the straight line."""
    left = (
        torch.linspace(0, len(found.at) - 2, min(_CHECKED, len(found.at) - 1), dtype=torch.float32, device=start.device)
        .round()
        .long()
    )
    middle = (found.at[left] + found.at[left + 1]) / 2
    scores = net.logits(start + middle.reshape(-1, 1, 1, 1) * way, check=False)
    straight = (found.logits[left] + found.logits[left + 1]) / 2
    return float((scores - straight).abs().max() / scores.abs().max().clamp(min=1e-300))
