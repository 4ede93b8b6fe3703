"""Tensors that a pass makes from numbers: they have the same values in every pass, whatever the images and weights."""

from __future__ import annotations

import weakref
from typing import Any

from torch import Tensor

from microtome.trace.operators.operator_table import those

__all__ = ["MAKES", "MOVES", "PassConstants"]

# Functions that make a tensor from numbers, by the name of the function or of the operator.
MAKES = frozenset(
    "zeros zeros_like new_zeros ones ones_like new_ones full full_like new_full tensor new_tensor as_tensor "
    "scalar_tensor".split()
)
# Operators that only move, copy or repeat a tensor; other views are known by the tensor that they look at.
MOVES = those(role=("view", "rearrangement", "copy", "cast", "repetition"), function="identity")


class PassConstants:
    """Remembers the constants of one pass without keeping them alive."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[weakref.ref[Tensor], int]] = {}

    def note(self, made: Any) -> None:
        """A tensor has been made from numbers, or moved from one that was."""
        if isinstance(made, Tensor):
            self._made[id(made)] = weakref.ref(made), made._version

    def moved(self, args: tuple[Any, ...], output: Any) -> None:
        """An operator has moved its first argument."""
        if self._made and args and isinstance(args[0], Tensor) and args[0] in self:
            self.note(output)

    def __contains__(self, value: object) -> bool:
        """Whether a tensor is a constant, or a view of one, on which nothing has been written."""
        if not isinstance(value, Tensor):
            return False
        source = value if value._base is None else value._base
        return any(
            known is not None and known[0]() is one and known[1] == one._version
            for one in (value, source)
            for known in (self._made.get(id(one)),)
        )
