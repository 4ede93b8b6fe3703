"""The graph of values of one pass, and the last small values themselves."""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those

_NEAR = 48  # number of operations before the end that are searched for a closing softmax or sigmoid
SMALL = 2**18  # largest number of elements of a value that may be scores
TIGHT = 1e-3  # a clamp within this distance of 0 and 1 only keeps logarithms finite


# Operators that keep some values unchanged but not all: behind them, equal numbers prove nothing.
_BENDING = (those(function="step") | those(function="piecewise", alone=True)) - {"hardsigmoid"}


_RANDOM = frozenset(
    "dropout bernoulli rand randn randint randperm normal uniform exponential poisson multinomial rrelu gumbel_softmax "
    "rand_like randn_like randint_like cauchy geometric log_normal fractional_max_pool2d stochastic_depth".split()
)


@dataclass
class Node:
    """One value of the pass."""

    kind: str
    name: str
    inputs: tuple[int, ...]
    bends: bool
    drawn: bool
    recordable: bool


@dataclass
class Ending:
    """Records from which values each value of a pass is computed, and keeps the last small ones."""

    nodes: list[Node] = field(default_factory=list)
    value: dict[int, Tensor] = field(default_factory=dict)
    reader: dict[int, str] = field(default_factory=dict)
    _made: dict[int, tuple[weakref.ref[Tensor], int]] = field(default_factory=dict)
    _read: dict[str, tuple[int, ...]] = field(default_factory=dict)  # by each running module

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts."""
        self._read[name] = self._known(tensors(args))

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        outputs = tensors(output) or ([call.input] if call.kind == "setitem" else [])
        inputs = self._known(call.tensors)
        for node in inputs:
            self.reader.setdefault(node, call.name)
        drawn = call.kind in _RANDOM and not any(value is output or same(value, output) for value in call.tensors)
        for place, value in enumerate(outputs):
            noted = Node(call.kind, call.name, inputs, bends(call), drawn, place == 0)
            self._add(value, noted, value.detach().clone() if value.numel() <= SMALL else value)

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned; a scripted one is one operation of unknown kind."""
        inputs = self._read.pop(name, ())
        for place, value in enumerate(tensors(output)):
            if self.node_of(value) is None:
                # A copy made here, between operations, would be seen as the model's own.
                self._add(value, Node("", name, inputs, False, False, place == 0), value)

    def node_of(self, value: Tensor) -> int | None:
        """The node that computed a value."""
        found = self._made.get(id(value))
        return None if found is None or found[0]() is not value else found[1]

    def behind(self, node: int) -> set[int]:
        """All nodes that a node is computed from."""
        found: set[int] = set()
        waiting = [node]
        while waiting:
            for source in self.nodes[waiting.pop()].inputs:
                if source not in found:
                    found.add(source)
                    waiting.append(source)
        return found

    def _known(self, values: list[Tensor]) -> tuple[int, ...]:
        found = (self.node_of(value) for value in values)
        return tuple(dict.fromkeys(node for node in found if node is not None))

    def _add(self, value: Tensor, node: Node, kept: Tensor) -> None:
        self._made[id(value)] = weakref.ref(value), len(self.nodes)
        if value.is_floating_point() and 0 < value.numel() <= SMALL:
            self.value[len(self.nodes)] = kept
            self.value.pop(len(self.nodes) - _NEAR, None)
        self.nodes.append(node)


def bends(call: Call) -> bool:
    """Whether an operation keeps some values unchanged but not all."""
    if call.kind not in _BENDING:
        return False
    if not call.kind.startswith(("clamp", "rectifying_clamp")):
        return True
    bound = call.arguments
    low, high = bound.get("min", bound.get("min_val")), bound.get("max", bound.get("max_val"))
    numbers = all(edge is None or isinstance(edge, int | float) for edge in (low, high))
    return not (numbers and (low is None or low <= TIGHT) and (high is None or high >= 1 - TIGHT))


def same(value: Tensor, output: Any) -> bool:
    """Whether an operation returns a value as it is."""
    return isinstance(output, Tensor) and value.shape == output.shape and torch.equal(value, output)
