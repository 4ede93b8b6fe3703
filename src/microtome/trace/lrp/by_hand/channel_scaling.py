"""Batch norm by hand: scales and shifts of the channels behind a layer, which form one layer with it.

``(conv(x) - mean) / deviation * weight + bias`` is a batch norm, and so is ``conv(x) * scale + shift``, also in place,
on a view of the output, or without weight and bias.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.trace.backward_rules import BackwardRule, Operation, Through
from microtome.trace.lrp.linear import Weighted, without_repeats
from microtome.trace.operators.nested_tensors import substitute
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those

_SHIFTING = frozenset(("add", "sub", "rsub"))
_AFFINE = _SHIFTING | {"mul", "div", "neg"}
_VIEWS = those(role="view") - {"as_strided"}  # which reads the memory, not the numbers


@dataclass(eq=False)
class Scaled:
    """The output of a layer with its channels scaled and shifted, or laid out in another way.

    Attributes
    ----------
    value : Tensor
        The tensor that the model continues with.
    weighted : Weighted
        The layer.
    channels : Tensor
        The channel of each number of the value, int64; mostly a view of C numbers.
    scale, shift : Tensor
        By channel, (C,).
    shifted : bool
        Whether anything was added: a scale alone is no norm.
    before : Scaled or None
        The scaled value; None if it is the layer's own output.
    view : bool
        Whether the step only lays the numbers out.
    base : (Tensor, Tensor) or None
        The tensor of which the value is a view that is written on, and the channels of its numbers.
    readers : int
        How many operations have read the value.
    root : bool
        Whether the value is the layer's own output, whose readers the layer counts.
    """

    value: Tensor
    weighted: Weighted
    channels: Tensor
    scale: Tensor
    shift: Tensor
    shifted: bool = False
    before: Scaled | None = None
    view: bool = False
    base: tuple[Tensor, Tensor] | None = None
    readers: int = 0
    root: bool = False

    def whole(self) -> bool:
        """Whether nothing else has read the layer's output or what was made of it on the way to this value."""
        if self.weighted.readers != 1 or self.weighted.norm is not None or self.weighted.normed:
            return False
        step = self.before
        while step is not None:
            if step.readers != 1:
                return False
            step = step.before
        return True

    def rule(self, alone: BackwardRule | Through | None) -> BackwardRule | Through | None:
        """The rule of the step: the whole layer takes the relevance, or else the step has the rule it has alone."""
        if self.view or alone is None:
            return alone
        weighted = self.weighted

        def share(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
            if (self.shifted or weighted.affine is not None) and self.whole():
                if weighted.affine is None:  # the last step comes first
                    weighted.affine = self.scale, self.shift
                return operation.back((operation.inputs[0], arriving))
            if isinstance(alone, Through):
                return operation.back((operation.inputs[0], alone.change(arriving)))
            return alone(operation, arriving)

        return share


Maker = Callable[[Tensor], Weighted | None]


class ChannelScaling:
    """The scaled outputs of layers in one pass."""

    def __init__(self) -> None:
        self._known: dict[int, Scaled] = {}

    def of(self, value: object) -> Scaled | None:
        """The record of a value; None if there is none."""
        found = self._known.get(id(value))
        return found if found is not None and found.value is value else None

    def read(self, values: list[Tensor]) -> None:
        """Count a reader of each value."""
        if self._known:
            for value in values:
                if (found := self.of(value)) is not None:
                    found.readers += 1

    def step(self, call: Call, made_by: Maker) -> Scaled | None:
        """What an operation that is about to run makes of a layer's output; None if it is no such step."""
        if call.kind in _VIEWS and not call.inplace:
            return self._laid_out(call, made_by)
        return self._changed(call, made_by) if call.kind in _AFFINE else None

    def keep(self, step: Scaled | None, output: object) -> None:
        """Remember the value of a step, and the tensor of which it is a view that was written on."""
        if step is None or not isinstance(output, Tensor):
            return
        step.value = output
        self._known[id(output)] = step
        if step.base is not None:
            base, channels = step.base
            step.readers += 1
            self._known[id(base)] = Scaled(
                base, step.weighted, channels, step.scale, step.shift, step.shifted, step, view=True
            )

    def _state(self, value: object, made_by: Maker) -> Scaled | None:
        """The value as the output of a layer, scaled or not."""
        if not isinstance(value, Tensor) or (found := self.of(value)) is not None:
            return found if isinstance(value, Tensor) else None
        weighted = made_by(value)
        if weighted is None or weighted.free or value.is_complex():
            return None
        shape = weighted.per_channel(value)
        channels = torch.arange(shape[0], device=value.device).view(shape).expand(value.shape)
        one = torch.ones(shape[0], dtype=value.dtype, device=value.device)
        return Scaled(value, weighted, channels, one, torch.zeros_like(one), root=True)

    def _laid_out(self, call: Call, made_by: Maker) -> Scaled | None:
        source = call.input
        state = self._state(source, made_by)
        if state is None:
            return None
        swap = {id(source): state.channels}
        try:
            channels = call.func(*substitute(call.args, swap), **substitute(call.kwargs, swap))
        except (RuntimeError, TypeError):  # the numbers of the channels have no such view
            return None
        if not isinstance(channels, Tensor) or channels.numel() != state.channels.numel() or channels.is_complex():
            return None
        return _next(state, channels, state.scale, state.shift, view=True)

    def _changed(self, call: Call, made_by: Maker) -> Scaled | None:
        """A product, quotient, sum or difference with one constant for each channel."""
        bound: dict[str, Any] = call.arguments
        if bound.get("rounding_mode") is not None or bound.get("alpha", 1) != 1:
            return None
        x, other = bound["input"], bound.get("other")
        turned = call.kind == "rsub"
        if isinstance(other, Tensor) and other.requires_grad and call.kind != "div":
            x, other, turned = other, x, not turned
        state = self._state(x, made_by)
        if state is None or (call.inplace and call.input is not x):
            return None
        constant = state.scale.new_zeros(()) if call.kind == "neg" else _by_channel(state, other)
        if constant is None:
            return None
        scale, shift = state.scale, state.shift
        if call.kind == "add":
            shift = shift + constant
        elif call.kind in ("sub", "rsub"):
            scale, shift = (-scale, constant - shift) if turned else (scale, shift - constant)
        elif call.kind == "neg":
            scale, shift = -scale, -shift
        else:
            scale, shift = (part * constant if call.kind == "mul" else part / constant for part in (scale, shift))
        made = _next(state, state.channels, scale, shift, shifted=call.kind in _SHIFTING)
        base = x._base if call.inplace and x._is_view() else None
        if base is not None:
            under = self._state(base, made_by)
            if under is None or under.weighted is not state.weighted or base.numel() != x.numel():
                return None
            made.base = base, under.channels
        return made

    def pop(self, key: int, default: None) -> None:
        """Forget a value that is overwritten in place."""
        self._known.pop(key, default)

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()


def _next(
    state: Scaled, channels: Tensor, scale: Tensor, shift: Tensor, *, shifted: bool = False, view: bool = False
) -> Scaled:
    """The step after a value; what comes right after the layer's own output has none before it."""
    before = None if state.root else state
    return Scaled(state.value, state.weighted, channels, scale, shift, state.shifted or shifted, before, view)


def _by_channel(state: Scaled, constant: object) -> Tensor | None:
    """The constant as one number for each channel; None if it differs within a channel."""
    if isinstance(constant, int | float):
        return torch.full_like(state.scale, float(constant))
    if not isinstance(constant, Tensor) or constant.requires_grad or not constant.is_floating_point():
        return None
    channels = state.channels
    if constant.dim() > channels.dim():
        return None
    constant = constant.detach().reshape((1,) * (channels.dim() - constant.dim()) + tuple(constant.shape))
    if any(own not in (1, size) for own, size in zip(constant.shape, channels.shape, strict=True)):
        return None
    same = [axis for axis in range(channels.dim()) if channels.stride(axis) == 0 or channels.shape[axis] == 1]
    constant = without_repeats(constant, same)
    if any(constant.shape[axis] != 1 for axis in same):
        return None
    for axis in same:
        channels = channels.narrow(axis, 0, 1)
    numbers = constant.expand(channels.shape)
    found = torch.empty(len(state.scale), dtype=numbers.dtype, device=numbers.device)
    found[channels.flatten()] = numbers.flatten()
    return found.to(state.scale) if torch.equal(found[channels], numbers) else None
