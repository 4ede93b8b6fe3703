"""Values of a pass that are computed element by element from one tensor, by whatever operations.

A model may write a nonlinearity in many ways: ``F.relu(x)``, ``x * (x > 0)``, ``(x + x.abs()) / 2``. All of them
compute each number of the result from the number of ``x`` at the same place. ``Elementwise`` watches the operations of
a pass and keeps, for each such value, the tensor that it is computed from and the steps between; a step can be run
again on other numbers, so that the nonlinearity is known as a function of one number.
"""

from __future__ import annotations

import weakref
from typing import Any

import torch
from torch import Tensor
from torch.autograd.graph import get_gradient_edge

from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import ELEMENTWISE, TRAITS, those
from microtome.trace.rectifiers.laid_beside import JOINING, LAYING_OUT, LaidBeside
from microtome.trace.rectifiers.value_function import CASTS, Value, alike, computed, repeatable, version

_AFFINE = those(alone=True, function=("identity", "affine"))
_SCALES = frozenset(("mul", "div"))  # affine when the other factor, or the divisor, is a constant
_WEIGHING = _SCALES | those(role="mask")  # one value weighs or chooses the other
# Autograd's nodes of operations that only change the layout.
_LAID_OUT = frozenset(
    f"{name}Backward0"
    for name in "View UnsafeView ReshapeAlias Permute Transpose T Squeeze Unsqueeze Clone Alias Movedim".split()
) | {"SqueezeBackward1", "SqueezeBackward2"}
_FLOORS = frozenset(("clamp", "clamp_min", "maximum", "max"))


class Elementwise:
    """The values of one pass that are functions of one tensor.

    Attributes
    ----------
    values : list of Value
        All that are no sources, in the order of the pass.
    mixed : list of str
        Names of operations that combine a mask made from the image with values that it was not made from, or that take
        the larger of two values that are made from the image in different ways.
    """

    def __init__(self) -> None:
        self.values: list[Value] = []
        self.mixed: list[str] = []
        self._sources: list[Value] = []
        # By the tensor's id. A weak reference tells whether it is still that tensor, its version whether its value.
        self._known: dict[int, tuple[weakref.ref[Tensor], int, Value]] = {}
        # Sources by where their numbers lie, with the tensor whose memory that is.
        self._lying: dict[tuple[Any, ...], tuple[weakref.ref[Tensor], Value]] = {}
        self._laid = LaidBeside()

    def before(self, call: Call) -> Value | None:
        """The value that an operation is about to compute; None if it is no function of one tensor alone."""
        kind = call.kind
        pair = kind in ("max", "min") and len(call.tensors) == 2  # torch.max(x, y), as torch.maximum
        if (parts := self._laid.read(call)) is not None and not pair:
            if (taken := self._laid.taken(call, parts)) is not None:
                return taken
            if self._laid.may_rectify(call, parts):
                self.mixed.append(call.name)
        if kind not in ELEMENTWISE and kind != "setitem" and not pair:
            return self._made_of_masks(call)
        if any(tensor.is_complex() for tensor in call.tensors):
            return None  # no function of one number
        if _is_floor(call):
            return None  # a guard, as before a logarithm or a power: the following operations start a new function
        parents: list[Value] = []
        places: list[Tensor] = []
        for tensor in call.tensors[:1] if kind in CASTS else call.tensors:  # y.to(x) reads only the type of x
            value = self._value(tensor)
            if value is not None and not any(tensor is other for other in places):
                parents.append(value)
                places.append(tensor)
        if not parents:
            return None
        if kind in _WEIGHING or pair or TRAITS[kind].kink == "pair":
            self._match(parents, places)
        source = parents[0].source
        by_place = kind == "setitem" and not _writes_by_mask(call)
        if any(parent.source is not source for parent in parents) or source is None or by_place:
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
        """Record the result of an operation."""
        if call.kind in JOINING:
            self._laid.lay(call, output, self._value)
        elif call.kind in LAYING_OUT:
            self._laid.carry(call, output)
        if value is None:
            return
        outputs = tensors(call.args[0] if output is None and call.kind == "setitem" else output)
        if not outputs:
            return
        if value.source is None:  # a mask; a split mask is several values
            for part in outputs:
                self._keep(part, value)
            return
        value.node = outputs[0].grad_fn if outputs[0].requires_grad else None
        self.values.append(value)
        for parent in value.parents:
            parent.children.append(value)
        self._keep(outputs[0], value)

    @property
    def lies_beside(self) -> bool:
        """Whether there are stacked values, from which a selection may be a rectifier."""
        return bool(self._laid)

    def knows(self, tensor: Tensor) -> bool:
        """Whether a tensor is computed from the image, as far as it is known."""
        return tensor.requires_grad or self.found(tensor) is not None

    def forget(self) -> None:
        """Drop all values. They refer to each other in cycles, which would stay until the garbage collector runs."""
        for value in (*self.values, *self._sources):
            value.source, value.again = None, None
            value.parents, value.children = [], []

    def _of_several(self, call: Call, parents: list[Value]) -> Value | None:
        """A value of several tensors; noted if a mask takes part, since that may have been meant as a rectifier."""
        if TRAITS[call.kind].role == "comparison" or all(parent.mask for parent in parents):
            return Value(None, parents, call.name, call.kind, mask=True)
        if any(parent.mask for parent in parents) or TRAITS[call.kind].kink == "pair":
            self.mixed.append(call.name)
        return None

    def _made_of_masks(self, call: Call) -> Value | None:
        """The value that an operation that is not elementwise computes from masks; noted if it reads more."""
        read = [call.input] if call.kind.endswith("_as") else call.tensors  # x.view_as(y) takes the shape of y alone
        masks = [tensor for tensor in read if self._is_mask(tensor)]
        if not masks:
            return None
        if any(tensor.requires_grad and not any(tensor is mask for mask in masks) for tensor in read):
            self.mixed.append(call.name)
            return None
        made = Value(None, [], call.name, call.kind, mask=True)  # no longer at the places that it was made from
        if len(masks) == 1 and call.kind in LAYING_OUT and (mask := self.found(masks[0])) is not None:
            made.laid_out = mask if mask.laid_out is None else mask.laid_out
        return made

    def _match(self, parents: list[Value], places: list[Tensor]) -> None:
        """Find out whether one tensor holds the numbers that another is computed from: then it is the same source.

        Copies of one tensor, such as two permuted ones that are flattened, are recognised only by their numbers.
        """
        for k, (one, other) in enumerate(zip(parents, parents[::-1], strict=True)):
            begun = other.source
            if len(parents) == 2 and (laid_out := self._laid_out(one, places[k], other, places[1 - k])) is not None:
                parents[1 - k] = laid_out
                return
            if len(parents) != 2 or one.source is not one or begun is None or begun is one or other is begun:
                continue
            x, y = places[k].detach(), places[1 - k].detach()
            if x.shape == y.shape and alike(other, x, y):
                begun.twins |= one.nodes
                parents[k] = begun
                self._keep(places[k], begun)
                return

    def _laid_out(self, one: Value, x: Tensor, other: Value, y: Tensor) -> Value | None:
        """The value of a tensor that was computed from the numbers of another tensor in another layout.

        Example: the gate in ``x * x.flatten(1).sigmoid().view(x.shape)``. Whether its positions are those of ``x`` is
        checked by its numbers.
        """
        begins = other.source is other or other.source is None
        if one.source is None or not one.linear or not begins or other is one or x.shape != y.shape:
            return None
        under = other.laid_out if other.source is None else self._under(y)
        if under is None or under.source is None or under.linear or not alike(under, x.detach(), y.detach()):
            return None
        value = Value(
            one.source, [one], under.name, under.kind, mask=other.mask, again=lambda values: computed(under, values[0])
        )
        value.node = other.node
        under.children.append(value)
        self.values.append(value)
        one.twins |= under.source.nodes
        self._keep(y, value)
        return value

    def _under(self, tensor: Tensor) -> Value | None:
        """The value that a tensor holds in another layout."""
        node: Any = get_gradient_edge(tensor).node
        known: dict[Any, Value] = {}
        while node is not None and type(node).__name__ in _LAID_OUT:
            known = known or {value.node: value for value in self.values if value.node is not None}
            node = node.next_functions[0][0]
            if node in known:
                return known[node]
        return None

    # -- what is known of a tensor ---------------------------------------------------------------------------------

    def _is_mask(self, tensor: Tensor) -> bool:
        found = self.found(tensor)
        return found is not None and found.mask

    def found(self, tensor: Tensor) -> Value | None:
        """The known value of a tensor in its present state."""
        found = self._known.get(id(tensor))
        return found[2] if found is not None and found[0]() is tensor and found[1] == version(tensor) else None

    def _value(self, tensor: Tensor) -> Value | None:
        """The known value of a tensor; a new source if none is known and a gradient reaches it; None for a constant."""
        found = self.found(tensor)
        if found is not None:
            return found
        if not tensor.requires_grad:
            return None
        node = tensor.grad_fn or get_gradient_edge(tensor).node
        lying = base, place = _lying(tensor)
        twin = self._lying.get(place)
        if twin is not None and twin[0]() is base:
            value = twin[1]
            value.twins.add(node)
        else:
            value = Value(None, [], "", "", linear=True)
            value.source, value.node = value, node
            self._sources.append(value)
        self._keep(tensor, value, lying)
        return value

    def _keep(self, tensor: Tensor, value: Value, lying: tuple[Tensor, tuple[Any, ...]] | None = None) -> None:
        self._known[id(tensor)] = (weakref.ref(tensor), version(tensor), value)
        if value.source is not None:
            base, place = lying or _lying(tensor)
            there = self._lying.get(place)
            if there is None or there[0]() is not base:  # reused memory
                self._lying[place] = weakref.ref(base), value


def _lying(tensor: Tensor) -> tuple[Tensor, tuple[Any, ...]]:
    """The tensor whose memory another shares, and the place of its numbers there."""
    base = tensor if tensor._base is None else tensor._base
    return base, (id(base), version(tensor), tensor.storage_offset(), tensor.shape, tensor.stride(), tensor.dtype)


def _is_floor(call: Call) -> bool:
    """Whether a call is ``max(x, c)`` with c > 0, a guard against division by zero."""
    if call.kind not in _FLOORS or len([tensor for tensor in call.tensors if tensor.requires_grad]) != 1:
        return False
    bound = call.arguments
    if bound.get("max") is not None:
        return False
    edge = bound.get("min", bound.get("other"))
    if isinstance(edge, Tensor):
        return edge.numel() == 1 and not edge.requires_grad and bool(edge > 0)
    return isinstance(edge, int | float) and edge > 0


def _is_mask(call: Call, parents: list[Value]) -> bool:
    return TRAITS[call.kind].function == "step" or all(parent.mask for parent in parents)


def _one_factor(call: Call) -> bool:
    return isinstance(call.args[0], Tensor) and (len(call.args) < 2 or call.args[1] is not call.args[0])


def _writes_by_mask(call: Call) -> bool:
    """Whether numbers are written where a mask is true, or everywhere; not at fixed places, such as one channel."""
    index = call.args[1]
    parts = index if isinstance(index, tuple) else (index,)
    everywhere = (slice(None), Ellipsis)
    return all(
        part.dtype is torch.bool if isinstance(part, Tensor) else any(part == one for one in everywhere)
        for part in parts
    )
