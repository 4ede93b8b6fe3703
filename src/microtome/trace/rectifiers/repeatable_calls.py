"""One operation of a pass run again on other numbers, to know it as a function of one number."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those

_CASTS = those(role=("cast", "copy"), function="identity")
_LARGEST = (
    4096  # numbers in a constant that may differ from channel to channel; larger ones are no constants of a function
)
# What takes a stack of values together, place by place.
TOGETHER: dict[str, Callable[[Tensor], Tensor]] = {
    "amax": lambda stack: stack.amax(0), "max": lambda stack: stack.amax(0), "amin": lambda stack: stack.amin(0),
    "min": lambda stack: stack.amin(0), "sum": lambda stack: stack.sum(0), "mean": lambda stack: stack.mean(0),
}  # fmt: skip


def repeatable(call: Call, places: list[Tensor]) -> Callable[[list[Tensor]], Tensor] | None:
    """The operation as a function of the tensors at ``places``; None where its constants belong to single elements."""
    if call.kind in _CASTS:
        return _double
    own = {id(tensor): index for index, tensor in enumerate(places)}
    constants: dict[int, Tensor] = {}
    for tensor in call.tensors:
        if id(tensor) not in own:
            constant = _constant(tensor)
            if constant is None:
                return None
            constants[id(tensor)] = constant

    def template(tree: Any) -> Any:
        if isinstance(tree, Tensor):
            return _Place(own[id(tree)]) if id(tree) in own else constants[id(tree)]
        if isinstance(tree, list | tuple) and not hasattr(tree, "_fields"):
            return type(tree)([template(item) for item in tree])
        return tree

    args, kwargs = template(call.args), {key: template(value) for key, value in call.kwargs.items() if key != "out"}
    func, written = call.func, call.kind == "setitem"

    def again(values: list[Tensor]) -> Tensor:
        def filled(tree: Any) -> Any:
            if isinstance(tree, _Place):
                return values[tree.index].clone()  # the call may write on it
            if isinstance(tree, list | tuple):
                return type(tree)([filled(item) for item in tree])
            return tree

        given = filled(args)
        made = func(*given, **{key: filled(value) for key, value in kwargs.items()})
        result: Tensor = given[0] if written else made
        return result

    return again


def _double(values: list[Tensor]) -> Tensor:
    """A change of type, in double precision."""
    return values[0].double()


@dataclass(frozen=True)
class _Place:
    """Where in the arguments of a call the value of a parent stands."""

    index: int


def _constant(tensor: Tensor) -> Tensor | None:
    """A constant of a function of one number: the same for all elements, or for all of a channel."""
    tensor = tensor.detach()
    if tensor.numel() <= 1:
        return tensor.cpu()
    if tensor.numel() <= _LARGEST:
        return tensor.cpu().clone()
    low, high = torch.aminmax(tensor if tensor.dtype != torch.bool else tensor.byte())
    return tensor.flatten()[0].cpu() if bool(low == high) else None


def together(kind: str, stacked: Sequence[Tensor], places: list[Tensor]) -> Callable[[list[Tensor]], Tensor] | None:
    """A reduction over stacked tensors as a function of those at ``places``; None where a constant is in the way."""
    own = {id(tensor): index for index, tensor in enumerate(places)}
    read: list[int | Tensor] = []
    for tensor in stacked:
        part = own[id(tensor)] if id(tensor) in own else _constant(tensor)
        if part is None:
            return None
        read.append(part)

    def again(values: list[Tensor]) -> Tensor:
        parts = [(values[part] if isinstance(part, int) else part).double() for part in read]
        return TOGETHER[kind](torch.stack(torch.broadcast_tensors(*parts)))

    return again
