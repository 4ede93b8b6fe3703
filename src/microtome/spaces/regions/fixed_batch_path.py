"""All facets that a straight path crosses, piece by piece, for networks with a fixed batch size."""

from __future__ import annotations

import itertools
from typing import Any

from torch import Tensor

from microtome.network import Network
from microtome.progress import reported
from microtome.spaces.regions.exit_distance import ahead
from microtome.spaces.regions.tangent_facets import bends

_ROWS = 64  # points of the path that run at a time

_Piece = tuple[float, float, dict[str, Any]]  # where it starts and ends, and the unit that ends it


def stepped(net: Network, start: Tensor, way: Tensor, gap: float, limit: int) -> tuple[list[_Piece], float]:
    """The first pieces of the path start + t way in order, ``limit + 1`` at most, and the widest gap that they leave.

    Every point of the path lies on a stretch where the network is linear, whose two ends follow from one
    forward pass with tangents. Stretches are laid side by side until they fill the path.
    """
    pieces: list[_Piece] = []
    end = 1.0  # of the part that is followed
    wanted = [(i + 0.5) / _ROWS for i in range(_ROWS)]
    while wanted:
        for first in reported(range(0, len(wanted), _ROWS), "points of the path"):
            pieces += _pieces(net, start, way, wanted[first : first + _ROWS])
        pieces = _disjoint(pieces)
        if len(pieces) > limit:  # pieces found later lie between these, never behind the last one that is wanted
            pieces = pieces[: limit + 1]
            end = min(end, pieces[-1][1])
        edges = [(0.0, pieces[0][0])] + [(p[1], q[0]) for p, q in itertools.pairwise(pieces)]
        edges.append((pieces[-1][1], end))
        wanted = [(low + high) / 2 for low, high in edges if high - low > gap]
    return pieces, max([0.0, *(right[0] - left[1] for left, right in itertools.pairwise(pieces))])


def _pieces(net: Network, start: Tensor, way: Tensor, at: list[float]) -> list[_Piece]:
    t = start.new_tensor(at)
    found = bends(net, start + t.reshape(-1, 1, 1, 1) * way, way.expand(len(at), -1, -1, -1))
    onward, place = ahead(found)
    behind, _ = ahead(found, backwards=True)
    low, high = (t - behind).clamp(min=0.0), (t + onward).clamp(max=1.0)
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
