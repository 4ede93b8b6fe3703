"""A value of a pass as a function of one number: its steps, run again on other numbers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import torch
from torch import Tensor

from microtome.trace.operators.nested_tensors import PLAIN
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those
from microtome.trace.operators.spellings import Function

CASTS = those(role=("cast", "copy"), function="identity")
_LARGEST = (
    4096  # largest size of a constant that may differ between channels; larger tensors are not constants of a function
)


@dataclass(eq=False)
class Value:
    """A tensor of the pass, as a function of one number.

    Attributes
    ----------
    source : Value or None
        The tensor that it is computed from, element by element; a source is its own source. None for several tensors.
    parents : list of Value
        The inputs of its operation.
    name, kind : str
        Its operation.
    node : Any
        The node of autograd's graph that a gradient of this value arrives at; None if it has no gradient.
    linear : bool
        Whether it is an affine function of its source.
    affine : bool
        Whether its operation is an affine function of its single input.
    again : Callable or None
        Runs the operation on other values of its parents.
    mask : bool
        Whether it is piecewise constant, such as ``x > 0``.
    twins : set
        For a source: the nodes of other tensors that hold the same numbers, such as a second view of the same tensor.
    children : list of Value
        The values that are computed from it, element by element.
    laid_out : Value or None
        For a mask in another layout: the original mask.
    """

    source: Value | None
    parents: list[Value]
    name: str
    kind: str
    node: Any = None
    linear: bool = False
    affine: bool = False
    again: Callable[[list[Tensor]], Tensor] | None = None
    mask: bool = False
    twins: set[Any] = field(default_factory=set)
    children: list[Value] = field(default_factory=list)
    laid_out: Value | None = None

    @property
    def nodes(self) -> set[Any]:
        """The nodes of autograd's graph that a gradient of this value arrives at."""
        return {self.node, *self.twins}


def computed(value: Value, source: Tensor, begin: Value | None = None) -> Tensor:
    """A value as a function of its source, for other numbers at the source or at another beginning."""
    found: dict[int, Tensor] = {}
    order, stack = [], [(value, False)]
    while stack:  # parents before children, without recursion
        item, ready = stack.pop()
        if ready:
            order.append(item)
        elif id(item) not in found:
            found[id(item)] = source
            stack.append((item, True))
            if item.again is not None and item is not begin:
                stack += [(parent, False) for parent in item.parents]
    for item in order:
        starts = item.again is None or item is begin
        found[id(item)] = (
            source if starts or item.again is None else item.again([found[id(parent)] for parent in item.parents])
        )
    return found[id(value)]


def alike(value: Value, source: Tensor, result: Tensor) -> bool:
    """Whether a value equals its function of the numbers of another tensor."""
    try:
        with torch.no_grad():
            again = computed(value, source)
    except (RuntimeError, TypeError, ValueError):
        return False
    if again.shape != result.shape:
        return False
    # For a constant function every tensor would be a source.
    varies = bool(again.flatten()[:1].ne(again).any())
    return varies and torch.allclose(again.double(), result.double(), rtol=1e-5, atol=1e-9)


def repeatable(call: Call, places: list[Tensor]) -> Callable[[list[Tensor]], Tensor] | None:
    """The operation as a function of the tensors at ``places``; None if its constants belong to single elements."""
    if call.kind in CASTS:
        return _cast
    func, written = call.func, call.kind == "setitem"
    first, *options = call.args or (None,)
    others = (*options, *call.kwargs.values())
    alone = len(places) == 1 and first is places[0] and PLAIN.issuperset(map(type, others))
    if alone and not written:  # F.relu6(x, inplace=True): no other tensor to look for
        return partial(_again_on_one, func, options, call.kwargs)
    own = {id(tensor): index for index, tensor in enumerate(places)}
    constants: dict[int, Tensor] = {}
    for tensor in call.tensors:
        if id(tensor) not in own:
            found = constant(tensor)
            if found is None:
                return None
            constants[id(tensor)] = found

    def template(tree: Any) -> Any:
        if isinstance(tree, Tensor):
            return _Place(own[id(tree)]) if id(tree) in own else constants[id(tree)]
        if isinstance(tree, list | tuple) and not hasattr(tree, "_fields"):
            return type(tree)([template(item) for item in tree])
        return tree

    args, kwargs = template(call.args), {key: template(value) for key, value in call.kwargs.items() if key != "out"}

    def again(values: list[Tensor]) -> Tensor:
        def filled(tree: Any) -> Any:
            if isinstance(tree, _Place):
                return values[tree.index].clone()  # the call may write on it
            if isinstance(tree, Tensor) and tree.is_floating_point():
                return tree.to(values[0].dtype)  # some operations do not convert, such as lerp
            if isinstance(tree, list | tuple):
                return type(tree)([filled(item) for item in tree])
            return tree

        arguments = filled(args)
        made = func(*arguments, **{key: filled(value) for key, value in kwargs.items()})
        result: Tensor = arguments[0] if written else made
        return result

    return again


def _again_on_one(func: Function, options: list[Any], keywords: dict[str, Any], values: list[Tensor]) -> Tensor:
    """Run a call of one tensor on another one."""
    result: Tensor = func(values[0].clone(), *options, **keywords)  # the call may write on it
    return result


def _cast(values: list[Tensor]) -> Tensor:
    """A change of type, in double precision."""
    return values[0].double()


@dataclass(frozen=True)
class _Place:
    """The place of a parent's value in the arguments of a call."""

    index: int


def constant(tensor: Tensor) -> Tensor | None:
    """A constant of a function of one number: the same for all elements, or for all of a channel."""
    tensor = tensor.detach()
    if tensor.numel() <= 1:
        return tensor.cpu()
    if tensor.numel() <= _LARGEST:
        return tensor.cpu().clone()
    low, high = torch.aminmax(tensor if tensor.dtype != torch.bool else tensor.byte())
    return tensor.flatten()[0].cpu() if bool(low == high) else None


def entry(value: Value) -> Value:
    """The input of a nonlinearity: the last affine function of the source that lies on every path to the value.

    In ``y = 4 * x; y * (y > 0)`` that is ``y``.
    """
    best = value.source or value
    for candidate in _ancestors(value):
        passed = candidate.linear and candidate.node is not None and not _avoids(value, candidate)
        if passed and len(_ancestors(candidate)) > len(_ancestors(best)):
            best = candidate
    return best


def _ancestors(value: Value, barrier: Value | None = None) -> list[Value]:
    """All values that a value is computed from, without itself; the search ends at a barrier."""
    found: dict[int, Value] = {}
    queue = list(value.parents)
    while queue:
        item = queue.pop()
        if item is not barrier and id(item) not in found:
            found[id(item)] = item
            queue.extend(item.parents)
    return list(found.values())


def _avoids(value: Value, barrier: Value) -> bool:
    """Whether a path from the source to the value avoids the barrier."""
    return barrier is not value.source and any(item is value.source for item in _ancestors(value, barrier))


def inside(begin: Any, ends: set[Any]) -> Iterator[Any]:
    """The nodes of autograd's graph from one node to these others, without them."""
    seen: set[Any] = set()
    queue = [begin]
    while queue:
        node = queue.pop()
        if node is None or node in seen or node in ends:
            continue
        seen.add(node)
        yield node
        queue.extend(edge for edge, _ in node.next_functions)


def version(tensor: Tensor) -> int:
    """The version counter of a tensor; -1 if it has none."""
    return -1 if tensor.is_inference() else tensor._version
