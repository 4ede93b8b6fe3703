"""Round numbers for the axes of charts, evenly spaced or by decades."""

from __future__ import annotations

import math

__all__ = ["decades", "ticks"]


def ticks(low: float, high: float) -> list[float]:
    """Three to six round values between two.

    Examples
    --------
    >>> ticks(0, 10), ticks(-0.3, 1.1)
    ([0.0, 2.0, 4.0, 6.0, 8.0, 10.0], [0.0, 0.5, 1.0])
    """
    if not high > low:
        return [float(low)]
    raw = (high - low) / 4
    size = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * size for factor in (1, 2, 2.5, 5, 10) if factor * size >= raw * 0.8)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(index * step, 12) + 0.0 for index in range(first, last + 1)]


def decades(low: float, high: float) -> list[float]:
    """Powers of ten between two positive numbers, with twice and five times them if there are few.

    Examples
    --------
    >>> decades(0.03, 4), decades(1e-3, 1e3)
    ([0.05, 0.1, 0.2, 0.5, 1.0, 2.0], [0.001, 0.01, 0.1, 1.0, 10.0, 100.0, 1000.0])
    """
    span = math.log10(high / low)
    steps = ("1",) if span > 3 else ("1", "2", "5") if span > 0.7 else ("1", "1.5", "2", "3", "5", "7")
    every = max(1, round(span / 7))
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1, every)
    marks = [float(f"{step}e{power}") for power in powers for step in steps]
    found = [mark for mark in marks if low * (1 - 1e-9) <= mark <= high * (1 + 1e-9)]
    return found if len(found) > 1 else ticks(low, high)
