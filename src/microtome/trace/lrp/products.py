"""Relevance of products: it goes to the signal; gates and attention weights are treated as constants."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from microtome.trace.backward_rules import BackwardRule, Operation
from microtome.trace.lrp.account import Account, proportional
from microtome.trace.lrp.linear import WEIGHTED
from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those

# Rank of functions as gates: of two multiplied values, the one of higher rank is the gate. No gradient
# passes through a step function, so it is always a gate.
_RANKS = dict.fromkeys(those(function="step"), 3) | {
    "softmax": 3, "softmin": 3, "exp": 3, "exp2": 3, "sigmoid": 2, "hardsigmoid": 2,
    "tanh": 1, "erf": 1, "erfc": 1, "ndtr": 1, "softsign": 1, "atan": 1,
    # A norm that scales the values that it was computed from, as in ConvNeXt V2, also at a single position.
    "norm": 1, "vector_norm": 1, "linalg_norm": 1, "linalg_vector_norm": 1,
}  # fmt: skip
_ATTENTION = 3
# Operators that end a gate made by a sigmoid: there the sigmoid was a nonlinearity of the network.
_MIXING = WEIGHTED | those(role=("product", "normalisation"))


class Gates:
    """Which values only weigh others: gates, attention weights, and what is made of these alone.

    A gate stays a gate through operators that move, repeat, pool, pad, resize or join its values and through
    arithmetic; layers with weights and norms end it, since a sigmoid may also be a nonlinearity of the network.
    Attention weights pass these too, since a linear layer may mix heads.
    """

    def __init__(self) -> None:
        self._known: dict[int, tuple[Tensor, int]] = {}  # with their rank
        self._shifted: dict[int, Tensor] = {}  # values of the form x + 3
        self._numbers: dict[
            int, tuple[Tensor, int]
        ] = {}  # of values that repeat others: how many different numbers they hold

    def _is_hard_sigmoid(self, call: Call) -> bool:
        """Whether a clamp is a hard sigmoid: to [0, 1], or relu6(x + 3) before it is divided by 6."""
        bounds = _bounds(call)
        shifted = self._shifted.get(id(call.input))
        return bounds == (0, 1) or (bounds == (0, 6) and shifted is call.input)

    def rank(self, value: Any) -> int:
        """The rank of a value as a gate; 0 if it is none."""
        found = self._known.get(id(value))
        return found[1] if found is not None and found[0] is value else 0

    def numbers(self, value: Tensor) -> int:
        """The number of elements of a value, without repetitions."""
        found = self._numbers.get(id(value))
        return found[1] if found is not None and found[0] is value else value.numel()

    def made(self, call: Call) -> tuple[int, int | None]:
        """The rank of an operation's output, and how many numbers it repeats (None if it repeats none)."""
        kind = call.kind
        read = [call.input] if kind.endswith("_as") else call.tensors  # x.expand_as(y) takes the shape of y alone
        live = [value for value in read if value.requires_grad]
        if not live:
            return 0, None
        repeats = sum(map(self.numbers, live)) if kind not in _MIXING and _single(kind, live) else None
        rank = min(map(self.rank, live))
        rank = rank if rank == _ATTENTION or kind not in _MIXING else 0
        return max(rank, _RANKS.get(kind, 0), 2 * self._is_hard_sigmoid(call)), repeats

    def note(self, call: Call, output: Any, made: tuple[int, int | None]) -> None:
        """Remember what an operation made."""
        rank, repeats = made
        if call.kind == "add" and isinstance(output, Tensor) and _is_three(call.arguments["other"]):
            self._shifted[id(output)] = output
        for value in tensors(output):
            if rank:
                self._known[id(value)] = (value, rank)
            if repeats is not None and repeats < value.numel():
                self._numbers[id(value)] = (value, repeats)

    def pop(self, key: int, default: None) -> None:
        """Forget a value that an operation overwrites."""
        self._known.pop(key, default)
        self._shifted.pop(key, default)
        self._numbers.pop(key, default)

    def clear(self) -> None:
        """Forget all."""
        self._known.clear()
        self._shifted.clear()
        self._numbers.clear()


def _single(kind: str, live: list[Tensor]) -> bool:
    return len(live) == 1 or kind in ("cat", "stack")


def _bounds(call: Call) -> tuple[Any, Any] | None:
    """The range of a clamp, if it is given by two numbers."""
    if call.kind == "relu6":
        return (0, 6)
    if call.kind not in ("rectifying_clamp", "clamp", "hardtanh"):
        return None
    bound = call.arguments
    low, high = (bound.get(a, bound.get(b)) for a, b in (("min", "min_val"), ("max", "max_val")))
    return (low, high) if isinstance(low, int | float) and isinstance(high, int | float) else None


def _is_three(value: Any) -> bool:
    return isinstance(value, int | float) and value == 3


def pointwise(call: Call, gates: Gates, unknown: BackwardRule) -> BackwardRule:
    """An elementwise product or quotient: all relevance to the signal, one half to each factor if both are signals."""
    a, b = call.arguments["input"], call.arguments["other"]
    live = [isinstance(value, Tensor) and value.requires_grad for value in (a, b)]
    if not all(live):
        return unknown if call.kind == "div" and live[1] else _shared(1.0, 1.0)
    if call.kind == "div":
        return _shared(1.0, 0.0)
    signal, other = (gates.rank(a), -gates.numbers(a)), (gates.rank(b), -gates.numbers(b))
    if signal == other:
        return _shared(0.5, 0.5)
    return _shared(1.0, 0.0) if signal < other else _shared(0.0, 1.0)


def _shared(first: float, second: float) -> BackwardRule:
    """Parts of the relevance for the two factors of a product; a constant takes nothing."""

    def share(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
        bound = operation.call.arguments
        factors = [(bound["input"], first), (bound["other"], second)]
        return operation.back(
            *(
                (value, reduced(arriving if part == 1 else arriving * part, value.shape))
                for value, part in factors
                if part and isinstance(value, Tensor)
            )
        )

    return share


def summed(account: Account, call: Call, gates: Gates, unknown: BackwardRule) -> BackwardRule:
    r"""A product summed over shared axes (matmul, einsum): :math:`R_a = a \odot \nabla_a \langle ab, R/z\rangle`.

    Where one factor weighs the other (attention) the other takes all; where none does, both take one half.
    """
    live = [value for value in call.tensors if value.requires_grad]
    if len({id(value) for value in live}) > 2:
        return unknown
    ranks = [gates.rank(value) for value in live]
    takes = [
        index for index, value in enumerate(call.tensors) if value.requires_grad and gates.rank(value) == min(ranks)
    ]

    def share(operation: Operation, arriving: Tensor) -> tuple[Tensor | None, ...]:
        factors = [operation.call.tensors[index] for index in takes]
        return proportional(account, operation, arriving, factors, factors=len(factors))

    return share


def reduced(value: Tensor, shape: torch.Size) -> Tensor:
    """Sum over what broadcasting repeated."""
    return value.sum_to_size(shape) if value.shape != shape else value
