"""Arithmetic of convolutions and pooling: kernel, stride, padding and dilation for each axis, in any spelling."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any


def each(value: Any, axes: int) -> tuple[int, ...]:
    """One number for each axis, from one for all or a list of them.

    Examples
    --------
    >>> each(2, 3), each([1, 2], 2), each((5,), 2)
    ((2, 2, 2), (1, 2), (5, 5))
    """
    values = tuple(int(item) for item in value) if isinstance(value, list | tuple) else (int(value),)
    return values * axes if len(values) == 1 else values


def pair(value: Any) -> tuple[int, int]:
    """Height and width, from one number for both or two."""
    height, width = each(value, 2)
    return height, width


def sides(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Padding before and behind each axis; ``"same"`` puts the larger half behind.

    Parameters
    ----------
    padding : str, int or sequence of int
        As a convolution takes it: ``"valid"``, ``"same"``, or numbers.
    kernel, dilation : sequence of int
        One number for each axis.

    Examples
    --------
    >>> sides("same", (2, 3), (1, 2)), sides(1, (3, 3), (1, 1)), sides("valid", (3,), (1,))
    ([(0, 1), (2, 2)], [(1, 1), (1, 1)], [(0, 0)])
    """
    if padding == "valid":
        return [(0, 0)] * len(kernel)
    if padding == "same":
        total = [step * (size - 1) for size, step in zip(kernel, dilation, strict=True)]
        return [(size // 2, size - size // 2) for size in total]
    return [(size, size) for size in each(padding, len(kernel))]
