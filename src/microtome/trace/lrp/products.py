"""When two values of a network are multiplied, which of them takes the relevance? The signal, not what weighs it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from microtome.trace.backward_rules import BackwardRule, Operation
from microtome.trace.lrp.attention import Account
from microtome.trace.lrp.rules import Shared, stabilised
from microtome.trace.operators import Call, substitute, tensors

GATE_MAKERS = frozenset("sigmoid hardsigmoid softmax tanh".split())
# Steps between a gate and the product: sizes, constants, one minus the gate.
_STEPS = frozenset("add sub rsub mul div neg clamp masked_fill sum".split())


class Gates:
    """Which values only weigh others: gates, attention weights, and what is made of these alone.

    Attention weights stay what they are through any operation, as heads may be mixed by a linear layer;
    a gate made by a sigmoid through arithmetic only, since a sigmoid may also be a network's nonlinearity.
    """

    def __init__(self, routing: frozenset[str]) -> None:
        self._steps = _STEPS | routing
        self._known: dict[int, tuple[Tensor, bool]] = {}  # and whether they are attention weights

    def __contains__(self, value: Any) -> bool:
        found = self._known.get(id(value))
        return found is not None and found[0] is value

    def makes(self, call: Call) -> bool | None:
        """Whether an operation is about to make attention weights (True), another gate (False), or neither (None)."""
        if call.kind in GATE_MAKERS:
            return call.kind == "softmax"
        live = [value for value in call.tensors if value.requires_grad]
        if not live or any(value not in self for value in live):
            return None
        weights = all(self._known[id(value)][1] for value in live)
        return weights if weights or call.kind in self._steps else None

    def note(self, output: Any, weights: bool) -> None:
        """Remember what an operation made."""
        for value in tensors(output):
            self._known[id(value)] = (value, weights)

    def pop(self, key: int, default: None) -> None:
        """Forget a value that is written on."""
        self._known.pop(key, default)

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()


def pointwise(call: Call, gates: Gates, unknown: BackwardRule) -> BackwardRule:
    """A product or quotient of two values, place by place: all to the signal."""
    a, b = call.arguments["input"], call.arguments["other"]
    live = [isinstance(value, Tensor) and value.requires_grad for value in (a, b)]
    if not all(live):
        return unknown if call.kind == "div" and live[1] else _to_the_only_one
    if call.kind == "div" or b in gates:
        return _to_first
    if a in gates:
        return _to_second
    if a.numel() != b.numel():
        return _to_first if a.numel() > b.numel() else _to_second
    return _halves


def summed(account: Account, call: Call, gates: Gates, unknown: BackwardRule) -> BackwardRule:
    r"""A product summed over shared axes (matmul, einsum): :math:`R_a = a \odot \nabla_a \langle ab, R/z\rangle`.

    Where one factor weighs the other (attention) the other takes all; where none does, both take one half.
    """
    live = [value for value in call.tensors if value.requires_grad]
    takes = [value not in gates for value in live]
    takes = takes if any(takes) else [True] * len(live)
    if len(live) > 2:
        return unknown

    def share(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
        quotient = arriving / stabilised(operation.output, account.epsilon)
        sent = [torch.zeros_like(value) for value in operation.inputs]
        leaves = [value.detach().requires_grad_(part) for value, part in zip(operation.inputs, takes, strict=True)]
        swap = {id(value): leaf for value, leaf in zip(operation.inputs, leaves, strict=True)}
        with torch.enable_grad():
            made = operation.call
            again = made.func(*substitute(made.args, swap), **substitute(made.kwargs, swap))
            asked = [index for index, part in enumerate(takes) if part]
            slopes = torch.autograd.grad(again, [leaves[index] for index in asked], quotient, allow_unused=True)
        for index, slope in zip(asked, slopes, strict=True):
            if slope is not None:  # None where one value stands in both places: the other leaf has served
                sent[index] = operation.inputs[index] * slope / len(asked)
        account.book(Shared(sent[0], torch.zeros_like(arriving), arriving - operation.output * quotient))
        return tuple(sent)

    return share


def reduced(value: Tensor, shape: torch.Size) -> Tensor:
    """Sum over what broadcasting repeated."""
    return value.sum_to_size(shape) if value.shape != shape else value


def _to_the_only_one(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
    return (reduced(arriving, operation.inputs[0].shape),)


def _to_first(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
    first, second = operation.inputs
    return reduced(arriving, first.shape), torch.zeros_like(second)


def _to_second(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
    first, second = operation.inputs
    return torch.zeros_like(first), reduced(arriving, second.shape)


def _halves(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
    first, second = operation.inputs
    return reduced(arriving, first.shape) / 2, reduced(arriving, second.shape) / 2
