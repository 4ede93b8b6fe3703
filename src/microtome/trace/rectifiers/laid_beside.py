"""Values stacked along a new axis: a reduction along it may be a function of one number again.

``torch.stack([x, zeros]).amax(0)`` is a rectifier, as ``torch.maximum(x, zeros)`` is.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those
from microtome.trace.rectifiers.value_function import Value, constant, version

JOINING = frozenset(("stack", "cat"))
# Reductions along the new axis that are functions of one number if all parts are.
TAKING = frozenset(("amax", "amin", "max", "min")) | {"logsumexp", "sum", "mean"}
# Other operators that may select among the parts.
CHOOSING = those(role=("reduction", "pooling"), function=("piecewise", "curved")) | {"logsumexp", "topk", "sort"}
CHOOSING |= those(role="softmax")
# Operations that only change the layout.
LAYING_OUT = those(role=("view", "rearrangement"), function="identity")


@dataclass(frozen=True)
class Parts:
    """Stacked values.

    Attributes
    ----------
    parents : list of Value
        The values that are computed from the image, each once.
    order : list of int or None
        For each part the index of its parent; None for a constant.
    constants : list of Tensor or None
        The constants of one number among the parts.
    axis : int or None
        The new axis; None if the layout has changed since.
    halves : bool
        Whether they are two parts one after the other, each with the old length of the axis, as in ``cat([x, x], 1)``.
    """

    parents: list[Value]
    order: list[int | None]
    constants: list[Tensor | None]
    axis: int | None
    halves: bool = False

    @property
    def one_source(self) -> bool:
        """Whether all parts are made from one tensor and constants of one number, in more than one way."""
        return self.same_source and len(set(self.order)) > 1

    @property
    def same_source(self) -> bool:
        """Whether all parts are made from one tensor and constants of one number."""
        source = self.parents[0].source
        same = source is not None and all(parent.source is source for parent in self.parents)
        return same and all(
            at is not None or one is not None for at, one in zip(self.order, self.constants, strict=True)
        )

    def filled(self, values: list[Tensor]) -> list[Tensor]:
        """All parts, with other numbers for the parents."""
        parts = ((None if at is None else values[at], one) for at, one in zip(self.order, self.constants, strict=True))
        found = (one if value is None else value for value, one in parts)
        return [part.to(values[0]) for part in found if part is not None]


class LaidBeside:
    """The tensors of one pass that hold stacked values."""

    def __init__(self) -> None:
        self._known: dict[int, tuple[weakref.ref[Tensor], int, Parts]] = {}

    def lay(self, call: Call, output: Any, known: Callable[[Tensor], Value | None]) -> None:
        """Note the output of ``stack``, or of ``cat`` with parts of length one."""
        parts, axis = call.arguments["tensors"], call.arguments["dim"]
        plain = isinstance(output, Tensor) and isinstance(axis, int) and len(parts) > 1
        if not plain or not all(isinstance(part, Tensor) for part in parts):
            return
        axis %= output.dim()
        long = call.kind == "cat" and any(part.dim() != output.dim() or part.shape[axis] != 1 for part in parts)
        if long and (len(parts) != 2 or parts[0].shape != parts[1].shape):
            return
        different = [*{id(part): part for part in parts}.values()]
        pairs = [(part, value) for part in different if (value := known(part)) is not None]
        if pairs:
            places = {id(part): at for at, (part, _) in enumerate(pairs)}
            order = [places.get(id(part)) for part in parts]
            constants = [constant(part) if id(part) not in places else None for part in parts]
            laid = Parts([value for _, value in pairs], order, constants, axis, halves=long)
            self._known[id(output)] = weakref.ref(output), version(output), laid

    def __bool__(self) -> bool:
        return bool(self._known)

    def carry(self, call: Call, output: Any) -> None:
        """Note that the layout of the parts has changed: later selections from them are unknown."""
        parts = self.read(call)
        if parts is not None and isinstance(output, Tensor):
            self._known[id(output)] = weakref.ref(output), version(output), replace(parts, axis=None)

    def read(self, call: Call) -> Parts | None:
        """The parts that an operation reads; None if it reads none."""
        if not self._known:
            return None
        tensor = call.input
        found = self._known.get(id(tensor))
        return found[2] if found is not None and found[0]() is tensor and found[1] == version(tensor) else None

    @staticmethod
    def taken(call: Call, parts: Parts) -> Value | None:
        """The reduction of an operation along the new axis, as a function of one number; None if it is none."""
        bound = call.arguments
        axis = bound.get("dim", bound.get("other", bound.get("argument1")))
        keeps = bound.get("keepdim", bound.get("argument2", False))
        axes = axis if isinstance(axis, tuple | list) else (axis,)
        along = len(axes) == 1 and isinstance(axes[0], int) and axes[0] % call.input.dim() == parts.axis
        if parts.halves or not along or keeps or call.kind not in TAKING or not parts.one_source:
            return None
        func = call.func

        def again(values: list[Tensor]) -> Tensor:
            return tensors(func(torch.stack(torch.broadcast_tensors(*parts.filled(values))), 0))[0]

        return Value(parts.parents[0].source, list(parts.parents), call.name, call.kind, again=again)

    @staticmethod
    def may_rectify(call: Call, parts: Parts) -> bool:
        """Whether an operation that is not a function of one number may choose between a value and a constant.

        Or multiply a value by a gate that is computed from it, as ``glu`` does.
        """
        if parts.halves:
            return call.kind == "glu" and parts.same_source
        return call.kind in CHOOSING and (parts.one_source or None in parts.order)
