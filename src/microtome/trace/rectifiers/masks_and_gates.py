"""Rectifiers and gated units written by several calls: x * (x > 0) is a ReLU, x * sigmoid(x) is a SiLU."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from microtome.trace.operators.nested_tensors import substitute
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those

_COPIES = those(role=("cast", "copy"), function="identity")
_GATES = {"sigmoid": "silu", "hardsigmoid": "hardswish"}
# x > 0 and its negation, ~(x > 0).
_NOT = frozenset(("invert", "logical_not", "bitwise_not"))
_TURNED = {"gt": "le", "ge": "lt", "lt": "ge", "le": "gt"}


class MasksAndGates:
    """The masks and gates of one pass, with the tensors from which they were computed."""

    def __init__(self) -> None:
        self._made_from: dict[int, tuple[Tensor, Tensor, str]] = {}

    def clear(self) -> None:
        """Release the values of a finished pass."""
        self._made_from.clear()

    def remember(self, call: Call, output: Any) -> None:
        """Note the tensor from which an operation computed a mask or a gate."""
        if not isinstance(output, Tensor):
            return
        if (call.kind in _GATES and not call.inplace) or (call.kind in _TURNED and _zero(call.arguments.get("other"))):
            self._made_from[id(output)] = (output, call.input, call.kind)
        elif id(call.input) in self._made_from:
            _, source, kind = self._made_from[id(call.input)]
            if call.kind in _COPIES:
                self._made_from[id(output)] = (output, source, kind)
            elif call.kind in _NOT and kind in _TURNED:
                self._made_from[id(output)] = (output, source, _TURNED[kind])

    def recognised(self, call: Call) -> Call:
        """A product of a tensor with its own mask or gate, as a rectifier."""
        if call.kind == "mul":
            a, b = call.arguments["input"], call.arguments["other"]
            for x, mask in ((a, b), (b, a)):
                if self._is_from(mask, x, "gt", "ge"):
                    return _pointwise_call(call, "relu", x)
                for gate, kind in _GATES.items():
                    if self._is_from(mask, x, gate):
                        return _pointwise_call(call, kind, x)
        elif call.kind == "where":
            bound = call.arguments
            if self._is_from(bound["condition"], bound["input"], "gt", "ge") and _zero(bound["other"]):
                return _pointwise_call(call, "relu", bound["input"])
            if self._is_from(bound["condition"], bound["other"], "lt", "le") and _zero(bound["input"]):
                return _pointwise_call(call, "relu", bound["other"])
        elif call.kind in ("masked_fill", "setitem"):
            bound = call.arguments
            mask = bound["mask" if call.kind == "masked_fill" else "index"]
            if self._is_from(mask, bound["input"], "lt", "le") and _zero(bound["value"]):
                return _pointwise_call(call, "relu", bound["input"])
        return call

    def _is_from(self, mask: Any, x: Any, *kinds: str) -> bool:
        found = self._made_from.get(id(mask))
        return found is not None and found[0] is mask and found[1] is x and found[2] in kinds


def _pointwise_call(call: Call, kind: str, x: Tensor) -> Call:
    """The same call as a function of ``x`` alone; a gate stays attached, because its path is part of the derivative."""

    def run(value: Tensor) -> Tensor:
        swap = {id(x): value}
        output = call.func(*substitute(call.args, swap), **substitute(call.kwargs, swap))
        return value if output is None else output  # x[x < 0] = 0 returns nothing

    return Call(kind, run, (x,), {}, call.inplace, call.name)


def _zero(value: Any) -> bool:
    if isinstance(value, Tensor):
        return value.numel() > 0 and not value.requires_grad and not bool(value.count_nonzero())
    return isinstance(value, int | float) and value == 0
