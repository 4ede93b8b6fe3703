"""Classification of a nonlinearity of one number by probing it on a grid.

A rectifier suppresses one side: on that side its slope is smaller than on the other, or zero. A saturating function
is flat on both sides. The spelling does not matter, only the values.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from microtome.trace.rectifiers.value_function import Value, computed, entry

_REACH, _STEPS = 12.0, 240  # the grid: from -12 to 12 in steps of 0.1
_STEP = 2 * _REACH / _STEPS
_TAIL = 10  # steps at each end whose mean slope is that of the tail
_FLAT = 0.02  # a tail is flat when its slope is below this share of the largest slope
_GROWTH = 16.0  # a tail that grows by more between 6 and 12 belongs to no rectifier: exp, not x or x squared


@dataclass(frozen=True)
class Kind:
    """The kind of a nonlinearity.

    Attributes
    ----------
    name : str
        ``"rectifier"``, ``"linear"``, ``"saturating"``, ``"odd"`` (the same on both sides up to the sign, and
        unbounded: ``asinh``) or ``"other"``.
    sign : int
        For a rectifier, 1 if it passes positive numbers (``max(x, 0)``), -1 if it passes negative ones (``min(x, 0)``).
    scale : float
        For a rectifier, the slope of the side that passes, as a function of its input: 2 for
        ``x + x.abs()``; 1 if the slope is not constant.
    failed : bool
        Whether it could not be probed.
    """

    name: str
    sign: int = 1
    scale: float = field(default=1.0, compare=False)
    failed: bool = False


def kind_of(value: Value) -> Kind:
    """Probe a value as a function of its source.

    Raises
    ------
    RuntimeError, TypeError or ValueError
        Where one of its operations cannot be run on other numbers.
    """
    grid = torch.linspace(-_REACH, _REACH, _STEPS + 1, dtype=torch.float64, device="cpu")
    with torch.no_grad():
        read = _evaluate(entry(value), grid).diff(dim=0).abs() / _STEP
        known = float(read.min()) > 0
        # In steps of the nonlinearity's own input: exp(x / 8) is exp, and not a softer function.
        kind = _classify(_evaluate(value, grid / read.mean() if known else grid))
    return replace(kind, scale=round(kind.scale, 9) if known and not math.isnan(kind.scale) else 1.0)


def _evaluate(value: Value, grid: Tensor) -> Tensor:
    """The value at each number of a grid, (grid, functions); constants per channel give several functions."""
    axes = grid.reshape(-1, *(1,) * 5)  # more axes than an image has, so that constants align with its last ones
    return torch.as_tensor(computed(value, axes), device=grid.device).double().reshape(len(grid), -1)


def _classify(y: Tensor) -> Kind:
    """The kind of functions given by their values (grid, functions); ``"other"`` if they differ in kind."""
    found = [_kind(column) for column in y.T.unique(dim=0)]
    kinds = set(found)
    curved = {kind for kind in kinds if kind.name != "linear"}
    if not curved:
        return Kind("linear")
    if len(curved) > 1 or (len(kinds) > 1 and not _steepens(kinds)):
        return Kind("other")
    scales = {round(kind.scale, 6) for kind in found if kind.name != "linear"}
    return replace(curved.pop(), scale=scales.pop() if len(scales) == 1 else math.nan)


def _steepens(kinds: set[Kind]) -> bool:
    """Whether all functions are rectifiers or linear: learned slopes, one of which is 1."""
    return {kind.name for kind in kinds} == {"rectifier", "linear"}


def _kind(y: Tensor) -> Kind:
    if not bool(torch.isfinite(y).all()):
        return Kind("other")
    slope = y.diff() / _STEP
    steepest = float(slope.abs().max())
    if float(slope.max() - slope.min()) <= 1e-6 * steepest or steepest == 0:
        return Kind("linear")
    left, right = float(slope[:_TAIL].mean()), float(slope[-_TAIL:].mean())
    near = slope[[_STEPS // 4, 3 * _STEPS // 4]].abs()  # at -6 and at 6
    tail = max(abs(left), abs(right))
    if tail <= _FLAT * steepest:
        return _bounded(slope, steepest)
    larger, passes_right = (right, True) if abs(right) >= abs(left) else (left, False)
    if tail > _GROWTH * float(near[1 if passes_right else 0]):
        return Kind("other")
    if _is_floor(y, slope, right, passes_right):
        return Kind("other")
    straight = abs(tail - float(near[1 if passes_right else 0])) <= 0.01 * tail
    scale = tail if straight else math.nan  # a square has no slope
    bent_at_zero = float((slope[: _STEPS // 2] - left).abs().max() + (slope[_STEPS // 2 :] - right).abs().max())
    if bent_at_zero <= 1e-6 * steepest and left * right >= 0:  # two straight halves: any learned slope
        return Kind("rectifier", _up(right - left) if left * right == 0 else _up(right), scale)
    if min(abs(left), abs(right)) > 0.9 * tail:
        return Kind("odd" if float((y + y.flip(0)).abs().max()) <= 1e-6 * float(y.abs().max()) else "other")
    return Kind("rectifier", 1 if (larger > 0) == passes_right else -1, scale)


def _is_floor(y: Tensor, slope: Tensor, right: float, passes_right: bool) -> bool:
    """Whether the function is ``max(x, c)`` with c > 0: a guard against division by zero, not a rectifier."""
    flat = passes_right and bool((slope[: _STEPS // 2] == 0).all())
    return flat and float(y[0]) * right > 0 and abs(float(y[-1]) - _REACH * right) <= 1e-9 * _REACH * abs(right)


def _up(slope: float) -> int:
    return 1 if slope > 0 else -1


def _bounded(slope: Tensor, steepest: float) -> Kind:
    """A function that is flat on both sides: a rectifier if it rises from zero on, like ReLU6."""
    middle = _STEPS // 2
    dead = slope.abs() <= 1e-6 * steepest
    if bool(dead[:middle].all()) and not bool(dead[middle]):
        return Kind("rectifier", _up(float(slope[middle])), abs(float(slope[middle])))
    if bool(dead[middle:].all()) and not bool(dead[middle - 1]):
        return Kind("rectifier", -_up(float(slope[middle - 1])), abs(float(slope[middle - 1])))
    return Kind("saturating")
