"""Tensors that a pass makes from numbers: they have the same values in every pass, whatever the images and weights."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor

from microtome.trace.operators.operator_table import those

__all__ = ["PassConstants"]

# Functions that make a tensor from numbers, by the name of the function or of the operator.
_MAKES = frozenset(
    "zeros zeros_like new_zeros ones ones_like new_ones full full_like new_full tensor new_tensor as_tensor "
    "scalar_tensor".split()
)
# Operators that only move, copy or repeat a tensor; other views are known by the tensor that they look at.
_MOVES = those(role=("view", "rearrangement", "copy", "cast", "repetition"), function="identity")


class PassConstants:
    """Remembers the constants of one pass without keeping them alive."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[weakref.ref[Tensor], int]] = {}

    def note(self, kind: str, args: tuple[Any, ...], output: Any) -> None:
        """An operator has run: its output is a constant if it made it from numbers, or moved a constant."""
        made = kind in _MAKES and not _read_tensor(kind, args)
        moved = kind in _MOVES and bool(self._made) and bool(args) and args[0] in self
        if (made or moved) and isinstance(output, Tensor):
            self._made[id(output)] = weakref.ref(output), _version(output)

    def __contains__(self, value: object) -> bool:
        """Whether a tensor is a constant, or a view of one, on which nothing has been written."""
        if not isinstance(value, Tensor):
            return False
        source = value if value._base is None else value._base
        return any(
            known is not None and known[0]() is one and known[1] == _version(one)
            for one in (value, source)
            for known in (self._made.get(id(one)),)
        )


def _read_tensor(kind: str, args: tuple[Any, ...]) -> bool:
    """Whether the values are taken from a tensor, as by ``as_tensor(x)``; ``zeros_like(x)`` takes its shape only."""
    values = args[1:] if kind.startswith("new_") or kind.endswith("_like") else args
    return any(
        isinstance(one, Tensor) for value in values for one in (value if isinstance(value, list | tuple) else (value,))
    )


def _version(value: Tensor) -> int:
    """How often a tensor has been written on; torch does not count it in inference mode."""
    return 0 if value.is_inference() else value._version
