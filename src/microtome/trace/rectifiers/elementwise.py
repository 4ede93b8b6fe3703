"""Values of a pass that are computed element by element from one tensor, whatever operations spell them.

A model may write a nonlinearity in many ways: ``F.relu(x)``, ``x * (x > 0)``, ``(x + x.abs()) / 2``. All of them
compute each number of the result from the number of ``x`` at the same place. ``Elementwise`` watches the operations of
a pass and keeps, for each such value, the tensor that it is computed from and the steps between; a step can be run
again on other numbers, so that the nonlinearity is known as a function of one number.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import ELEMENTWISE, TRAITS, those
from microtome.trace.rectifiers.repeatable_calls import TOGETHER, repeatable, together

_AFFINE = those(alone=True, function=("identity", "affine"))
# What may be done to a mask on its way to the values that it is put on.
MOVES = those(function="identity", alone=False) - {"setitem"}
_SCALES = frozenset(("mul", "div"))  # affine when the other factor, or the divisor, is a constant
# Changes of shape that leave all numbers in their order: two values of one shape are at the same places.
RESHAPES = frozenset("view reshape flatten unflatten squeeze unsqueeze view_as reshape_as ravel".split())
STACKS = frozenset(("stack", "cat"))
# What sorts or chooses among stacked values in ways that are not followed.
SELECTIONS = those(role="selection", function="piecewise") | {"median", "nanmedian", "mode", "quantile", "logsumexp"}


@dataclass(eq=False)
class Value:
    """A tensor of the pass, as a function of one number.

    Attributes
    ----------
    source : Value or None
        What it is computed from, element by element; a source is its own. None where several tensors take part.
    parents : list of Value
        What its operation read.
    name, kind : str
        Its operation.
    node : Any
        The node of autograd's graph that a gradient of this value arrives at; None where it has no gradient.
    linear : bool
        Whether it is an affine function of its source.
    affine : bool
        Whether its operation is an affine function of the one value that it read.
    again : Callable or None
        Runs the operation on other values of its parents.
    mask : bool
        Whether it is piecewise constant, such as ``x > 0``.
    children : list of Value
        What was computed from it, element by element.
    shape : torch.Size
        Its shape.
    others : list
        Nodes of views that show the same numbers: ``x[:, 0]`` written twice.
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
    children: list[Value] = field(default_factory=list)
    shape: torch.Size = field(default_factory=torch.Size)
    others: list[Any] = field(default_factory=list)

    @property
    def nodes(self) -> set[Any]:
        """All nodes that a gradient of this value arrives at."""
        return {self.node, *self.others}


class Elementwise:
    """The values of one pass that are functions of one tensor.

    Attributes
    ----------
    values : list of Value
        All that are no sources, in the order of the pass.
    mixed : list of str
        Names of operations in which a mask made from the image meets values that it was not made from, or that take
        the larger of two values that are made from the image in different ways.
    """

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.mixed: list[str] = []
        # By the tensor's id. A weak reference tells whether it is still that tensor, its version whether its value.
        self._known: dict[int, tuple[weakref.ref[Tensor], int, Value]] = {}
        # Sources that are views, by what they show: the tensor that they are views of, and its version.
        self._views: dict[Any, tuple[weakref.ref[Tensor], int, Value]] = {}
        # What each stack holds: the stack, the tensors, the axis.
        self._stacks: dict[int, tuple[weakref.ref[Tensor], list[Tensor], int]] = {}

    def before(self, call: Call) -> Value | None:
        """What an operation is about to compute; None when it is no function of one tensor alone."""
        kind = call.kind
        if kind in RESHAPES:
            return self._reshaped(call)
        if (kind in TOGETHER or kind in SELECTIONS) and len(call.tensors) == 1:
            return self._of_stack(call)
        pair = kind in ("max", "min") and len(call.tensors) == 2  # torch.max(x, y), as torch.maximum
        if kind in MOVES and any(self._is_mask(tensor) for tensor in call.tensors):
            return Value(None, [], call.name, kind, mask=True)  # no longer at the places that it was made from
        if kind not in ELEMENTWISE and kind != "setitem" and not pair:
            return None
        parents: list[Value] = []
        places: list[Tensor] = []
        for tensor in call.tensors:
            value = self._value(tensor)
            if value is not None and not any(tensor is other for other in places):
                parents.append(value)
                places.append(tensor)
        if not parents:
            return None
        source = parents[0].source
        if any(parent.source is not source or parent.shape != parents[0].shape for parent in parents) or source is None:
            return self._of_several(call, parents)
        again = repeatable(call, places)
        if again is None:
            return self._of_several(call, parents)
        affine = len(parents) == 1 and (
            kind in _AFFINE or (kind in _SCALES and (kind == "mul" or call.args[0] is places[0]) and _one_factor(call))
        )
        linear = affine and parents[0].linear
        return Value(source, parents, call.name, kind, None, linear, affine, again, _is_mask(call, parents))

    def after(self, value: Value | None, call: Call, output: Any) -> None:
        """Keep what an operation has computed."""
        made = call.args[0] if output is None and call.kind == "setitem" else output
        if call.kind in STACKS and isinstance(made, Tensor):
            self._keep_stack(call, made)
        if value is not None and call.kind in ("max", "min") and not isinstance(made, Tensor):
            made = made[0]  # with the indices beside it
        if value is None or not isinstance(made, Tensor):
            return
        value.shape = made.shape
        value.node = made.grad_fn if made.requires_grad else None
        if value.source is not None:
            self.values.append(value)
            for parent in value.parents:
                parent.children.append(value)
        self._keep(made, value)

    def _reshaped(self, call: Call) -> Value | None:
        """A value whose numbers stay in their order."""
        value = self._value(call.input)
        if value is None or value.source is None:
            return None if value is None or not value.mask else Value(None, [], call.name, call.kind, mask=True)
        return Value(value.source, [value], call.name, call.kind, None, value.linear, True, _same, value.mask)

    def _keep_stack(self, call: Call, made: Tensor) -> None:
        """Remember what is stacked along a new axis, or along one of size 1, where it comes from one tensor."""
        held = call.tensors
        axis = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else 0)
        if not isinstance(axis, int) or len(held) < 2 or not made.dim() or made.shape[axis] != len(held):
            return
        sources = [value.source for value in map(self._value, held) if value is not None]
        if sources and sources[0] is not None and all(source is sources[0] for source in sources):
            self._stacks[id(made)] = (weakref.ref(made), held, axis % made.dim())

    def _of_stack(self, call: Call) -> Value | None:
        """The largest, the sum and the like of stacked values: a function of one number, as they are."""
        stack, held, axis = self._stacks.get(id(call.input), (None, [], 0))
        if stack is None or stack() is not call.input:
            return None
        over = call.kwargs.get("dim", call.args[1] if len(call.args) > 1 else None)
        over = over[0] if isinstance(over, list | tuple) and len(over) == 1 else over
        if call.kind in SELECTIONS:
            self.mixed.append(call.name)
        if call.kind in SELECTIONS or not isinstance(over, int) or over % call.input.dim() != axis:
            return None
        places = [tensor for tensor in held if self._value(tensor) is not None]
        parents = [value for value in map(self._value, places) if value is not None]
        again = together(call.kind, held, places)
        if again is None or len({parent.shape for parent in parents}) > 1:
            return None
        return Value(parents[0].source, parents, call.name, call.kind, again=again)

    def _of_several(self, call: Call, parents: list[Value]) -> Value | None:
        """A value of several tensors; noted where a mask takes part, since that may have been meant as a rectifier."""
        if TRAITS[call.kind].role == "comparison" or all(parent.mask for parent in parents):
            return Value(None, parents, call.name, call.kind, mask=True)
        if any(parent.mask for parent in parents) or TRAITS[call.kind].kink == "pair":
            self.mixed.append(call.name)
        return None

    def _is_mask(self, tensor: Tensor) -> bool:
        found = self._known.get(id(tensor))
        return found is not None and found[0]() is tensor and found[2].mask

    def _value(self, tensor: Tensor) -> Value | None:
        """What is known of a tensor; a source where nothing is and a gradient reaches it; None for a constant."""
        found = self._known.get(id(tensor))
        if found is not None and found[0]() is tensor and found[1] == tensor._version:
            return found[2]
        if not tensor.requires_grad:
            return None
        node = get_gradient_edge(tensor).node
        value = self._same_view(tensor)
        if value is None:
            value = Value(None, [], "", "", linear=True, shape=tensor.shape)
            value.source, value.node = value, node
            base = tensor._base
            if base is not None:
                self._views[_shown(tensor)] = (weakref.ref(base), tensor._version, value)
        elif node not in value.nodes:
            value.others.append(node)
        self._keep(tensor, value)
        return value

    def _same_view(self, tensor: Tensor) -> Value | None:
        """The source that shows the same numbers at the same places, where the tensor is a view taken once more."""
        base = tensor._base
        found = self._views.get(_shown(tensor)) if base is not None else None
        return found[2] if found is not None and found[0]() is base and found[1] == tensor._version else None

    def _keep(self, tensor: Tensor, value: Value) -> None:
        self._known[id(tensor)] = (weakref.ref(tensor), tensor._version, value)


def _shown(tensor: Tensor) -> tuple[Any, ...]:
    return id(tensor._base), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype


def _same(values: list[Tensor]) -> Tensor:
    return values[0]


def _is_mask(call: Call, parents: list[Value]) -> bool:
    return TRAITS[call.kind].function == "step" or all(parent.mask for parent in parents)


def _one_factor(call: Call) -> bool:
    return isinstance(call.args[0], Tensor) and (len(call.args) < 2 or call.args[1] is not call.args[0])


def entry(value: Value) -> Value:
    """What a nonlinearity reads: the last affine function of the source that every way to the value leads through.

    In ``y = 4 * x; y * (y > 0)`` that is ``y``.
    """
    best = value.source or value
    for candidate in _ancestors(value):
        passed = candidate.linear and candidate.node is not None and not _avoids(value, candidate)
        if passed and len(_ancestors(candidate)) > len(_ancestors(best)):
            best = candidate
    return best


def _ancestors(value: Value, barrier: Value | None = None) -> list[Value]:
    """All values that a value is computed from, itself left out; the search ends at a barrier."""
    found: dict[int, Value] = {}
    queue = list(value.parents)
    while queue:
        item = queue.pop()
        if item is not barrier and id(item) not in found:
            found[id(item)] = item
            queue.extend(item.parents)
    return list(found.values())


def _avoids(value: Value, barrier: Value) -> bool:
    """Whether a way from the source to the value leads past the barrier."""
    return barrier is not value.source and any(item is value.source for item in _ancestors(value, barrier))


def inside(value: Value, ends: set[Any]) -> Iterator[Any]:
    """The nodes of autograd's graph between a value and these nodes, which are left out."""
    seen: set[Any] = set()
    queue = [value.node]
    while queue:
        node = queue.pop()
        if node is None or node in seen or node in ends:
            continue
        seen.add(node)
        yield node
        queue.extend(edge for edge, _ in node.next_functions)
