"""Statistics of a layer's values by unit and image: extremes, sums and activity in one sweep."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Floats looked at together: all sweeps over one piece find it in the processor's cache.
_PIECE = 1 << 18

# The range of activation functions that are bounded.
BOUNDS: dict[str, tuple[float, float]] = {
    "relu6": (0.0, 6.0),
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
}


@dataclass(frozen=True)
class Summary:
    """What is kept of a value (n images, units, positions); every tensor is (n, units).

    Attributes
    ----------
    high, low : Tensor
        Largest and smallest activation over the positions.
    high_at, low_at : Tensor
        The first position that has it, as an index into rows times columns.
    total, square : Tensor
        Sum of the activations and of their squares over the positions.
    active : Tensor
        Number of positions above zero.
    full : Tensor
        Number of positions within 1 % of the range of a bound of the activation function (of the upper
        one where the lower is zero); zero where there is no bound.
    """

    high: Tensor
    low: Tensor
    high_at: Tensor
    low_at: Tensor
    total: Tensor
    square: Tensor
    active: Tensor
    full: Tensor


def summarise(value: Tensor, bounds: tuple[float, float] | None = None) -> Summary:
    """Sweep over a value (n, units, positions) piece by piece.

    Parameters
    ----------
    value : Tensor
        (n, units, positions), floating.
    bounds : (float, float), optional
        The range of the activation function, for ``full``.

    Examples
    --------
    >>> s = summarise(torch.tensor([[[0.0, 2.0, 2.0], [-1.0, -3.0, 0.0]]]))
    >>> s.high.tolist(), s.high_at.tolist(), s.low.tolist(), s.low_at.tolist(), s.active.tolist()
    ([[2.0, 0.0]], [[1, 2]], [[0.0, -3.0]], [[0, 1]], [[2.0, 0.0]])
    """
    n, units, positions = value.shape
    if value.dtype not in (torch.float32, torch.float64):
        value = value.float()
    rows = value.reshape(n * units, positions)
    step = max(1, _PIECE // positions)
    desk = torch.empty_like(rows[:step])
    parts = [_piece(rows[start : start + step], bounds, desk) for start in range(0, len(rows), step)]
    return Summary(*(torch.cat(column).view(n, units) for column in zip(*parts, strict=True)))


def _piece(rows: Tensor, bounds: tuple[float, float] | None, desk: Tensor) -> tuple[Tensor, ...]:
    high_at, low_at = _first_largest(rows), _first_largest(rows, lowest=True)
    return (
        rows.gather(1, high_at[:, None])[:, 0],
        rows.gather(1, low_at[:, None])[:, 0],
        high_at,
        low_at,
        rows.sum(1),
        torch.linalg.vector_norm(rows, dim=1).square(),
        _count_above(rows, 0.0, desk),
        torch.zeros_like(high_at, dtype=rows.dtype) if bounds is None else _at_bounds(rows, *bounds, desk),
    )


def _first_largest(rows: Tensor, *, lowest: bool = False) -> Tensor:
    """Index of each row's extreme; the first one among equals. NumPy's is five times faster than torch's on a CPU."""
    if rows.device.type != "cpu":
        return (rows == (rows.amin(1) if lowest else rows.amax(1))[:, None]).to(torch.uint8).argmax(1)
    array = rows.numpy()
    found = np.argmin(array, axis=1) if lowest else np.argmax(array, axis=1)
    return torch.from_numpy(found)


def _count_above(rows: Tensor, threshold: float, desk: Tensor) -> Tensor:
    """How many positions exceed a threshold. Comparing into floats is three times faster than into booleans."""
    return torch.gt(rows, threshold, out=desk[: len(rows)]).sum(1)


def _at_bounds(rows: Tensor, low: float, high: float, desk: Tensor) -> Tensor:
    slack = 0.01 * (high - low)
    count = _count_above(rows, high - slack, desk)
    if low < 0:
        count = count + torch.lt(rows, low + slack, out=desk[: len(rows)]).sum(1)
    return count
