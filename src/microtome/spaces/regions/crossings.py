"""The positions on a line segment at which the units of one operation switch."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.spaces.regions.facets import PAIRS, POOLS, edges, windows
from microtome.trace import Call

_NOISE = 1e-13  # changes below this share of the layer's largest value are rounding


@dataclass(frozen=True)
class Crossings:
    """Switches of one operation's units.

    Attributes
    ----------
    name, kind : str
        The operation.
    at : Tensor
        (crossings,): where on the path.
    unit : Tensor
        (crossings,): which unit, counted over ``shape``.
    which : Tensor
        (crossings,): the edge of a clamp, or the position in a pooling window that takes over.
    shape : tuple of int
        Shape of the units of one image.
    """

    name: str
    kind: str
    at: Tensor
    unit: Tensor
    which: Tensor
    shape: tuple[int, ...]

    def owner(self, place: int) -> dict[str, Any]:
        """Which unit switches at a crossing."""
        unit = [int(i) for i in torch.unravel_index(self.unit[place], self.shape)]
        return {"layer": self.name, "kind": self.kind, "unit": unit, "which": int(self.which[place])}


def crossings_of(call: Call, z: Tensor, other: Tensor | None, at: Tensor) -> Crossings | None:
    """All switches of an operation between neighbouring rows, values being straight lines between them.

    Parameters
    ----------
    call : Call
        The operation.
    z, other : Tensor
        What it reads, (rows, ...); the second value of a maximum.
    at : Tensor
        (rows,): where the rows lie.
    """
    if call.kind in POOLS:
        return _pooled(call, z, at)
    if call.kind in PAIRS:
        if other is None:
            return None
        return _edged(call, z - other, [0.0], at)
    return _edged(call, z, edges(call), at)


def _edged(call: Call, z: Tensor, levels: list[float], at: Tensor) -> Crossings:
    """Where a line between two rows passes a level."""
    flat = z.flatten(1)
    noise = _NOISE * flat.abs().max()
    rows, units, which, shares = [], [], [], []
    for number, level in enumerate(levels):
        value = flat - level
        before, after = value[:-1], value[1:]
        row, unit = ((before * after < 0) & ((before - after).abs() > noise)).nonzero(as_tuple=True)
        rows.append(row)
        units.append(unit)
        which.append(torch.full_like(unit, number))
        shares.append(before[row, unit] / (before[row, unit] - after[row, unit]))
    row = torch.cat(rows)
    place = at[row] + torch.cat(shares) * (at[row + 1] - at[row])
    return Crossings(call.name, call.kind, place, torch.cat(units), torch.cat(which), tuple(z.shape[1:]))


def _pooled(call: Call, z: Tensor, at: Tensor) -> Crossings:
    """Where another position of a window becomes the largest: the corners of the highest of several lines."""
    reads, sizes = windows(call, z)
    spread = z.flatten(-len(sizes[0]))
    taps = spread[..., reads.clamp(min=0)].masked_fill(reads < 0, -math.inf)
    shape = (*z.shape[1 : -len(sizes[0])], *sizes[1])
    taps = taps.reshape(len(z), -1, reads.shape[1])  # (rows, units, taps)
    noise = float(_NOISE * z.abs().max())
    top = taps.argmax(-1)
    row, unit = _changing(taps, top, noise)
    before, after = taps[row, unit], taps[row + 1, unit]
    slope = torch.where(before.isfinite(), after - before, 0.0)
    share = z.new_zeros(len(row))
    winner = _first(before, slope, noise)
    found: list[tuple[Tensor, Tensor, Tensor, Tensor]] = []
    index = torch.arange(len(row), device=z.device)
    for _ in range(reads.shape[1] - 1):
        mine, steep = before.gather(1, winner[:, None]), slope.gather(1, winner[:, None])
        gain = slope - steep
        meet = torch.where(gain > noise, (mine - before) / torch.where(gain > noise, gain, 1.0), math.inf)
        meet = torch.where(meet >= share[:, None], meet, math.inf)
        first = meet.min(1)
        goes = first.values < 1.0
        if not bool(goes.any()):
            break
        index, share, winner = index[goes], first.values[goes], first.indices[goes]
        before, slope = before[goes], slope[goes]
        found.append((row[index], unit[index], winner, share))
    if not found:
        none = row[:0]
        return Crossings(call.name, call.kind, at[:0], none, none, shape)
    row, unit, winner, share = (torch.cat(parts) for parts in zip(*found, strict=True))
    return Crossings(call.name, call.kind, at[row] + share * (at[row + 1] - at[row]), unit, winner, shape)


def _changing(taps: Tensor, top: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Rows and units whose largest position before is not the largest after, beyond rounding."""
    held = taps[1:].gather(2, top[:-1, :, None])[..., 0]
    reached = taps[1:].gather(2, top[1:, :, None])[..., 0]
    row, unit = (reached - held > noise).nonzero(as_tuple=True)
    return row, unit


def _first(before: Tensor, slope: Tensor, noise: float) -> Tensor:
    """Who is largest just after the row: of those that tie, the one that rises most."""
    largest = before.amax(1, keepdim=True)
    level = torch.where(before >= largest - noise, slope, -math.inf)
    return level.argmax(1)
