"""Guided backpropagation by hooks on autograd's own nodes, which clamp the signal that arrives at a rectifier."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from proof.plain import Plain
from proof.subject import NotCompared

_NAMED = frozenset(
    "Relu LeakyRelu Gelu Silu Hardswish Elu Celu Mish Softplus PreluKernel Threshold RreluWithNoise".split()
)
_CURVED = frozenset("Sigmoid Tanh Erf Hardsigmoid Softplus Relu Hardtanh".split())
_STEPS = _CURVED | frozenset("Mul Add Sub Div Pow Neg Clone ToCopy Clamp".split())


def operator(node: Any) -> str:
    """The operator of a node: ``LeakyRelu`` for ``LeakyReluBackward1``."""
    return type(node).__name__.rpartition("Backward")[0] or type(node).__name__


def nodes(root: Any) -> Iterator[Any]:
    """All nodes of a graph."""
    seen, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        yield node
        waiting += [reached for reached, _ in node.next_functions]


def guided(plain: Plain, images: Tensor, targets: Sequence[int]) -> Tensor:
    """The guided signal at the pixels."""
    x = images.clone().requires_grad_()
    score = plain.scores(x)[range(len(x)), list(targets)].sum()
    every = list(nodes(score.grad_fn))
    if any(operator(node) == "CopySlices" for node in every):
        raise NotCompared("an operation in place on a part of a tensor, which no node of its own shows")
    written = [node for node in every if _by_hand(node)]
    inside = {part for node in written for part in _between(node)}
    for node in every:
        if node in inside:
            continue
        if node in written or operator(node) in _NAMED or _bounded(node) or _masked(node):
            node.register_prehook(lambda signals: tuple(None if s is None else s.clamp(min=0) for s in signals))
        elif "BatchNorm" in operator(node):  # torch's own fault: its gradient needs a contiguous signal
            node.register_prehook(lambda signals: tuple(None if s is None else s.contiguous() for s in signals))
    return torch.autograd.grad(score, x)[0]


def _bounded(node: Any) -> bool:
    """A clamp from zero: ReLU6 and its spellings."""
    name = operator(node)
    if name == "Hardtanh":
        return node._saved_min_val == 0
    if name == "ClampMin":
        return node._saved_min == 0
    return name == "Clamp" and node._saved_min == 0 and node._saved_max not in (1, 1.0)


def _masked(node: Any) -> bool:
    """ReLU as x (x > 0), as a choice between x and a constant, or as x + |x|."""
    live = [edge for edge in node.next_functions if edge[0] is not None]
    if operator(node) == "Mul":
        other = getattr(node, "_saved_other", None)
        return len(live) == 1 and isinstance(other, Tensor) and other.dtype == torch.bool
    if operator(node) == "Add" and len(live) == 2:
        return any(operator(a[0]) == "Abs" and a[0].next_functions[0] == b for a, b in (live, live[::-1]))
    return operator(node) in ("Maximum", "Where") and len(live) == 1


def _by_hand(node: Any) -> bool:
    """A product x g(x) of two functions of one value, one of them curved, such as x sigmoid(x)."""
    return _meeting(node) is not None


def _meeting(node: Any) -> tuple[Any, int] | None:
    """The value from which both factors of a product are computed element by element, one of them by a curved function.

    It is the first node on every path from both factors: a sum in front of the nonlinearity may itself combine several
    values.
    """
    if operator(node) != "Mul" or len([1 for reached, _ in node.next_functions if reached is not None]) < 2:
        return None
    waiting, seen = list(node.next_functions), set[tuple[Any, int]]()
    while waiting:
        one = waiting.pop(0)
        if one in seen or one[0] is None:
            continue
        seen.add(one)
        found = [_sources(edge, one) for edge in node.next_functions]
        if all(sources <= {one} for sources, _ in found):
            return one if any(curved for _, curved in found) else None
        if operator(one[0]) in _STEPS:
            waiting += one[0].next_functions
    return None


def _sources(edge: tuple[Any, int], stop: tuple[Any, int] | None = None) -> tuple[set[tuple[Any, int]], bool]:
    """The values from which a value is computed element by element, and whether by a curved function."""
    found, curved, waiting, seen = set[tuple[Any, int]](), False, [edge], set[tuple[Any, int]]()
    while waiting:
        one = waiting.pop()
        if one in seen or one[0] is None:
            continue
        seen.add(one)
        if one == stop or operator(one[0]) not in _STEPS:
            found.add(one)
            continue
        curved = curved or operator(one[0]) in _CURVED
        waiting += one[0].next_functions
    return found, curved


def _between(node: Any) -> set[Any]:
    """The nodes inside a product by hand."""
    stop = _meeting(node)
    inside, waiting = set(), [edge for edge in node.next_functions if edge != stop]
    while waiting:
        edge = waiting.pop()
        if edge == stop or edge[0] is None or edge[0] in inside:
            continue
        inside.add(edge[0])
        waiting += edge[0].next_functions
    return inside
