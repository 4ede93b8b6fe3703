"""Statistics of a layer's values by unit and image: extremes, sums, counts above thresholds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

# Number of floats per piece: a piece fits into the processor's cache for all reductions over it.
_PIECE = 1 << 18

# Norms whose squares float32 holds with all digits.
_LOW, _HIGH = 1e-15, 1e18

# The range of bounded activation functions.
BOUNDS: dict[str, tuple[float, float]] = {
    "relu6": (0.0, 6.0),
    "sigmoid": (0.0, 1.0),
    "hardsigmoid": (0.0, 1.0),
    "tanh": (-1.0, 1.0),
    "softsign": (-1.0, 1.0),
}


@dataclass(frozen=True)
class Summary:
    """Statistics over the positions of a value (n images, units, positions); every tensor is (n, units).

    Attributes
    ----------
    high, low : Tensor
        Largest and smallest activation.
    high_at, low_at : Tensor
        The first position of this extreme, as an index into rows times columns.
    mean, scatter : Tensor
        Mean of the activations, and the sum of their squared differences from it; float64.
    active : Tensor
        Number of positions above zero.
    full : Tensor
        Number of positions whose distance to a bound of the activation function is below 1 % of its range
        (only the upper bound if the lower bound is zero); zero for unbounded functions.
    """

    high: Tensor
    low: Tensor
    high_at: Tensor
    low_at: Tensor
    mean: Tensor
    scatter: Tensor
    active: Tensor
    full: Tensor


def summarise(value: Tensor, bounds: tuple[float, float] | None = None) -> Summary:
    """Compute the statistics of a value (n, units, positions), piece by piece.

    Parameters
    ----------
    value : Tensor
        (n, units, positions), floating point.
    bounds : (float, float), optional
        The range of the activation function, for ``full``.

    Examples
    --------
    >>> s = summarise(torch.tensor([[[0.0, 2.0, 2.0], [-1.0, -3.0, 0.0]]]))
    >>> s.high.tolist(), s.high_at.tolist(), s.low.tolist(), s.low_at.tolist(), s.active.tolist()
    ([[2.0, 0.0]], [[1, 2]], [[0.0, -3.0]], [[0, 1]], [[2.0, 0.0]])
    >>> s.scatter.round(decimals=3).tolist()
    [[2.667, 4.667]]
    """
    n, units, positions = value.shape
    if value.dtype not in (torch.float32, torch.float64):
        value = value.float()
    rows = value.reshape(n * units, positions)
    step = max(1, _PIECE // positions)
    buffer = torch.empty_like(rows[:step])
    parts = [_piece(rows[start : start + step], bounds, buffer) for start in range(0, len(rows), step)]
    return Summary(*(torch.cat(column).view(n, units) for column in zip(*parts, strict=True)))


def _piece(rows: Tensor, bounds: tuple[float, float] | None, buffer: Tensor) -> tuple[Tensor, ...]:
    high_at, low_at = _first_largest(rows), _first_largest(rows, lowest=True)
    high, low = (rows.gather(1, at[:, None])[:, 0] for at in (high_at, low_at))
    return (
        high,
        low,
        high_at,
        low_at,
        *_mean_and_scatter(rows, high, low, buffer),
        _count_above(rows, 0.0, buffer),
        torch.zeros_like(high_at, dtype=rows.dtype) if bounds is None else _at_bounds(rows, *bounds, buffer),
    )


def _mean_and_scatter(rows: Tensor, high: Tensor, low: Tensor, buffer: Tensor) -> tuple[Tensor, Tensor]:
    """Mean of each row and the sum of squared differences from it, in float64.

    The mean of squares minus the square of the mean would lose all digits of a small deviation from a large mean. So
    the rows are shifted by their rounded mean first; equal values give exactly 0.
    """
    middle = rows.mean(1).clamp(low, high)
    shifted = torch.sub(rows, middle[:, None], out=buffer[: len(rows)])
    rest = shifted.mean(1).double()
    norm = torch.linalg.vector_norm(shifted, dim=1).double()
    extreme = ((norm < _LOW) | (norm > _HIGH)) & (high > low)  # squares leave the range of float32
    if bool(extreme.any()):
        norm[extreme] = torch.linalg.vector_norm(shifted[extreme].double(), dim=1)
    return middle.double() + rest, (norm.square() - rows.shape[1] * rest.square()).clamp(min=0)


def rounding(dtype: torch.dtype) -> float:
    """The relative deviation below which values of a precision are constant but for rounding.

    That is a few units in the last place; one in half precision, whose sums are taken in float32.
    """
    if not dtype.is_floating_point:
        return 0.0
    return torch.finfo(dtype).eps * (4 if dtype in (torch.float32, torch.float64) else 1)


def pooled(moments: Tensor) -> Tensor:
    """Count, mean and sum of squared differences from the mean of several sets together (Chan et al. 1979).

    Parameters
    ----------
    moments : Tensor
        (sets, 3, ...) count, mean and sum of squared differences of each set, in float64.

    Examples
    --------
    >>> pooled(torch.tensor([[2.0, 1.0, 0.0], [1.0, 4.0, 0.0]])).tolist()  # 1, 1 and 4
    [3.0, 2.0, 6.0]
    """
    count, mean, scatter = moments.unbind(1)
    whole = count.sum(0)
    middle = mean[0] + (count * (mean - mean[0])).sum(0) / whole
    return torch.stack([whole, middle, scatter.sum(0) + (count * (mean - middle).square()).sum(0)])


def _first_largest(rows: Tensor, *, lowest: bool = False) -> Tensor:
    """Index of each row's extreme, the first among equals. NumPy is five times faster than torch on a CPU."""
    if rows.device.type != "cpu":
        return (rows == (rows.amin(1) if lowest else rows.amax(1))[:, None]).to(torch.uint8).argmax(1)
    array = rows.numpy()
    return torch.from_numpy(np.argmin(array, axis=1) if lowest else np.argmax(array, axis=1))


def _count_above(rows: Tensor, threshold: float, buffer: Tensor) -> Tensor:
    """Number of positions above a threshold. A comparison into floats is three times faster than into booleans."""
    return torch.gt(rows, threshold, out=buffer[: len(rows)]).sum(1)


def _at_bounds(rows: Tensor, low: float, high: float, buffer: Tensor) -> Tensor:
    slack = 0.01 * (high - low)
    count = _count_above(rows, high - slack, buffer)
    if low < 0:
        count = count + torch.lt(rows, low + slack, out=buffer[: len(rows)]).sum(1)
    return count
