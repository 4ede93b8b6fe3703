"""Which layers of a network hold complex numbers: these have no order and no sign, so no unit of them fires most."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import torch
from torch import nn

from microtome import trace
from microtome.trace.operators.nested_tensors import tensors

if TYPE_CHECKING:
    from microtome.network.network import Network

_FOUND: WeakKeyDictionary[Network, frozenset[str]] = WeakKeyDictionary()


def complex_layers(net: Network) -> frozenset[str]:
    """The names of these layers; one pass over one image, once for each network."""
    if net not in _FOUND:
        seen = _ComplexValues()
        with torch.no_grad():
            trace.Tracer(net.model, observer=seen)(net.normalise(net.probe))
        _FOUND[net] = frozenset(name for name, layer in net.layers.items() if layer.operation in seen.operations)
    return _FOUND[net]


class _ComplexValues:
    """Notes the operations of a pass whose values are complex numbers."""

    name = "reading the network"

    def __init__(self) -> None:
        self.operations: set[str] = set()

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts."""

    def operation(self, call: trace.Call, output: Any) -> None:
        """An operation has run."""
        if any(value.is_complex() for value in tensors(output)[:1]):
            self.operations.add(call.name)

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned; code that no operation of its own shows may have made its value."""
        if any(value.is_complex() for value in tensors(output)[:1]):
            self.operations.add(name)
