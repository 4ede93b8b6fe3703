"""Joins a linear layer with the batch norm, bias and scales that follow it, into one layer for relevance rules."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

import torch
from torch import Tensor

from microtome.trace.backward_rules import BackwardRule, Operation
from microtome.trace.lrp import additions
from microtome.trace.lrp.account import Account
from microtome.trace.lrp.by_hand.channel_scaling import ChannelScaling, Scaled
from microtome.trace.lrp.linear import Weighted
from microtome.trace.lrp.norms import norm
from microtome.trace.operators.operator_calls import Call


class JoinedLayers:
    """The weighted operators of one pass, by the tensors that they have computed.

    A layer is joined with what follows only if no other operation reads its output. This is known after the pass, so
    the rules decide when relevance arrives.

    Parameters
    ----------
    account : Account
        The account of the pass.
    """

    def __init__(self, account: Account) -> None:
        self._account = account
        self._operators: dict[int, tuple[Tensor, Weighted]] = {}
        self._scaled = ChannelScaling()

    def read(self, call: Call) -> None:
        """Count the operations that read each output; a batch norm counts only if it is not joined."""
        for value in call.tensors:
            operator = self.computed(value)
            if operator is not None and call.kind != "batch_norm":
                operator.readers += 1
        self._scaled.read(call)

    def remember(self, call: Call, output: object, operator: Weighted | None) -> None:
        """Record the output of an operation, and its weighted operator if it has one."""
        if isinstance(output, Tensor) and operator is not None:
            self._operators[id(output)] = (output, operator)
        self._scaled.note(call, output, self.computed)

    def computed(self, value: Tensor) -> Weighted | None:
        """The weighted operator that has computed a value."""
        operator = self._operators.get(id(value))
        return operator[1] if operator is not None and operator[0] is value else None

    def pop(self, key: int, default: None) -> None:
        """Forget a value that an operation overwrites."""
        self._operators.pop(key, default)
        self._scaled.pop(key, default)

    def clear(self) -> None:
        """Forget all."""
        self._operators.clear()
        self._scaled.clear()

    def batch_norm(self, call: Call) -> BackwardRule:
        """The rule of a batch norm: joined with the layer before it in evaluation, otherwise a norm by itself."""
        alone: BackwardRule = partial(norm, self._account)
        operator = self.computed(call.input)
        bound = call.arguments
        if operator is None or bound["running_mean"] is None or bound["training"]:
            return alone
        if operator.norm is not None:  # a second norm of the same values: neither forms one layer with the layer before
            operator.readers += 1
        if operator.readers or operator.norm is not None or operator.free:
            return alone
        scale = torch.rsqrt(bound["running_var"] + bound["eps"])
        if bound["weight"] is not None:
            scale = scale * bound["weight"]
        shift = -bound["running_mean"] * scale
        if bound["bias"] is not None:
            shift = shift + bound["bias"]
        return _joined(operator, scale.detach(), shift.detach(), alone)

    def sum(self, call: Call) -> BackwardRule:
        """The rule of a sum or difference: of its terms, or of the layer whose bias or norm it completes."""
        terms: BackwardRule = partial(additions.terms, self._account)
        if (completed := self._batch_norm_by_hand(call, terms)) is not None:
            return completed
        biased = self._added_bias(call)
        if biased is None:
            return terms
        operator, shift = biased
        operator.readers -= 1  # this sum, which is part of the layer
        return _joined(operator, torch.ones_like(shift), shift, terms)

    def _added_bias(self, call: Call) -> tuple[Weighted, Tensor] | None:
        """The weighted operator before a sum, and the constant per channel that the sum adds to it."""
        if call.kind != "add" or call.arguments["alpha"] != 1:
            return None
        for value, added in _both_orders(call):
            operator = self.computed(value)
            if operator is None or not isinstance(added, Tensor) or added.requires_grad:
                continue
            if operator.readers <= 1 and operator.norm is None:
                bias = operator.added_bias(value, added)
                if bias is not None:
                    return operator, bias
        return None

    def _batch_norm_by_hand(self, call: Call, terms: BackwardRule) -> BackwardRule | None:
        """The rule of the sum or difference that ends a batch norm by hand."""
        for value, added in _both_orders(call) if call.kind == "add" and call.arguments["alpha"] == 1 else ():
            scaled = self._scaled.of(value)
            if scaled is None or scaled.weighted.norm is not None:
                continue
            if not isinstance(added, Tensor) or added.requires_grad:
                continue
            operator, shift, steps = scaled.weighted, scaled.weighted.added_bias(scaled.value, added), [*scaled.steps()]
            if shift is None or operator.readers != 1 or any(step.readers != 1 for step in steps):
                continue
            operator.readers -= 1
            for step in steps:
                step.readers -= 1
            return _joined(operator, scaled.scale, scaled.shift + shift, terms, steps)
        return self._difference(call, terms)

    def _difference(self, call: Call, terms: BackwardRule) -> BackwardRule | None:
        """The rule of a difference behind a layer: the whole layer gets the relevance if its norm is complete."""
        value = call.arguments["input"]
        before = self._scaled.of(value)
        operator = before.weighted if before is not None else self.computed(value)
        if call.kind != "sub" or operator is None:
            return None
        layer = operator

        def share(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
            if layer.norm is not None and layer.norm[2] is not None:
                return operation.back((operation.inputs[0], arriving))
            return terms(operation, arriving)

        return share


def _both_orders(call: Call) -> tuple[tuple[Tensor, object], tuple[Tensor, object]]:
    first, second = call.arguments["input"], call.arguments["other"]
    return (first, second), (second, first)


def _joined(
    operator: Weighted, scale: Tensor, shift: Tensor, alone: BackwardRule, steps: Sequence[Scaled] = ()
) -> BackwardRule:
    """One linear layer of a weighted operator and the scale and shift of its channels that follow it."""

    def share(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
        # Another operation has read the operator's output: two separate layers.
        if operator.readers or any(step.readers for step in steps):
            operator.norm = None
            return alone(operation, arriving)
        operator.norm = (scale, shift, operation.output)
        return operation.back((operation.inputs[0], arriving))

    operator.norm = (scale, shift, None)
    return share
