"""Joins a linear layer with the batch norm, bias and scales that follow it, into one layer for relevance rules."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from microtome.trace.backward_rules import BackwardRule, Operation
from microtome.trace.lrp import additions
from microtome.trace.lrp.account import Account
from microtome.trace.lrp.by_hand.channel_scaling import ChannelScaling, Scaled
from microtome.trace.lrp.linear import Constants, Weighted
from microtome.trace.lrp.norms import norm
from microtome.trace.operators.operator_calls import Call

# One call for many tensors, few kernels on a GPU. They are not public: without them, there is one call for each tensor.
_add: Callable[..., Any] = getattr(
    torch, "_foreach_add", lambda values, numbers: [a + b for a, b in zip(values, numbers, strict=True)]
)
_root: Callable[..., Any] = getattr(torch, "_foreach_sqrt_", lambda values: [value.sqrt_() for value in values])
_inverse: Callable[..., Any] = getattr(
    torch, "_foreach_reciprocal_", lambda values: [value.reciprocal_() for value in values]
)
_multiply: Callable[..., Any] = getattr(
    torch, "_foreach_mul", lambda values, others: [a * b for a, b in zip(values, others, strict=True)]
)
_subtract_product: Callable[..., Any] = getattr(
    torch, "_foreach_addcmul",
    lambda values, a, b, value: [torch.addcmul(*row, value=value) for row in zip(values, a, b, strict=True)],
)  # fmt: skip


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
        self._norms = BatchNorms()

    def read(self, call: Call) -> Scaled | None:
        """Count the operations that read each output; a batch norm counts only if it is not joined.

        Returns what the operation makes of a layer's output if it scales, shifts or lays out its channels.
        """
        values = [call.input] if call.kind.endswith("_as") else call.tensors  # x.view_as(y) takes the shape of y alone
        for value in values:
            operator = self.computed(value)
            if operator is not None and call.kind != "batch_norm":
                operator.readers += 1
        self._scaled.read(values)
        return self._scaled.step(call, self.computed)

    def keep(self, step: Scaled | None, output: object) -> None:
        """Record the value of a step behind a layer."""
        self._scaled.keep(step, output)

    def remember(self, call: Call, output: object, operator: Weighted | None) -> None:
        """Record the output of an operation, and its weighted operator if it has one."""
        if isinstance(output, Tensor) and operator is not None:
            self._operators[id(output)] = (output, operator)

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
        self._norms = BatchNorms()

    def before_overwriting(self) -> None:
        """A constant is about to be overwritten: read those of the batch norms so far."""
        self._norms.compute()

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
        operator.normed = True
        return _joined(operator, self._norms.add(bound), alone)

    def sum(self, call: Call) -> BackwardRule:
        """The rule of a sum or difference: of its terms, or of the product whose bias it adds."""
        terms: BackwardRule = partial(additions.terms, self._account)
        biased = self._added_bias(call)
        if biased is None:
            return terms
        operator, shift = biased
        operator.readers -= 1  # this sum, which is part of the layer
        return _joined(operator, lambda: (torch.ones_like(shift), shift), terms)

    def _added_bias(self, call: Call) -> tuple[Weighted, Tensor] | None:
        """The product with unknown channels before a sum, and the constant that the sum adds to it."""
        if call.kind != "add" or call.arguments["alpha"] != 1:
            return None
        for value, added in _both_orders(call):
            operator = self.computed(value)
            if operator is None or not isinstance(added, Tensor) or added.requires_grad:
                continue
            if operator.free and operator.readers <= 1 and operator.norm is None:
                bias = operator.added_bias(value, added)
                if bias is not None:
                    return operator, bias
        return None


def _both_orders(call: Call) -> tuple[tuple[Tensor, object], tuple[Tensor, object]]:
    first, second = call.arguments["input"], call.arguments["other"]
    return (first, second), (second, first)


def _joined(operator: Weighted, constants: Constants, alone: BackwardRule) -> BackwardRule:
    """One linear layer of a weighted operator and the scale and shift of its channels that follow it."""

    def share(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
        if operator.readers:  # another operation has read the operator's output: two separate layers
            operator.norm = None
            return alone(operation, arriving)
        operator.norm = (constants, operation.output)
        return operation.back((operation.inputs[0], arriving))

    operator.norm = (constants, None)
    return share


class BatchNorms:
    r"""The batch norms of one pass in evaluation, each a scale and a shift of the channels.

    .. math:: a = \frac{w}{\sqrt{v + \epsilon}}, \qquad c = b - a\,m

    Their constants are computed when the first is asked for, before the model overwrites one of them at the latest.
    """

    def __init__(self) -> None:
        self._waiting: list[dict[str, Any]] = []
        self._done: list[tuple[Tensor, Tensor]] = []

    def add(self, bound: dict[str, Any]) -> Constants:
        """Note a batch norm by its arguments; returns the function that tells its scale and shift."""
        # By their memory: the model may give a weight other memory (``weight.data = y``) after its use.
        self._waiting.append({key: x.detach() if isinstance(x, Tensor) else x for key, x in bound.items()})
        return partial(self._of, len(self._waiting) - 1)

    def _of(self, place: int) -> tuple[Tensor, Tensor]:
        self.compute()
        return self._done[place]

    @torch.no_grad()
    def compute(self) -> None:
        """Compute the constants of all batch norms noted so far."""
        new = self._waiting[len(self._done) :]
        if not new:
            return
        means = [bound["running_mean"] for bound in new]
        scales = list(_add([bound["running_var"] for bound in new], [float(bound["eps"]) for bound in new]))
        _root(scales)
        _inverse(scales)
        weighted = [place for place, bound in enumerate(new) if bound["weight"] is not None]
        if weighted:
            products = _multiply([scales[place] for place in weighted], [new[place]["weight"] for place in weighted])
            for place, scale in zip(weighted, products, strict=True):
                scales[place] = scale
        biases = [
            torch.zeros_like(scale) if bound["bias"] is None else bound["bias"]
            for scale, bound in zip(scales, new, strict=True)
        ]
        shifts = _subtract_product(biases, means, scales, value=-1)
        self._done += zip(scales, shifts, strict=True)
