"""Fit targets: outputs of the original network's layers at sampled positions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from microtome.data import Dataset
from microtome.errors import InputError
from microtome.network import Network
from microtome.surgery.channels.channel_families import Operation
from microtome.surgery.compression.layer_samples import drawn, outputs_of, wanted_positions
from microtome.surgery.compression.moments import normalised, together
from microtome.trace.operators.operator_calls import Call
from microtome.trace.tracing.tracer import Tracer

HELD = 1 << 30  # bytes of targets in memory at a time; the others are read by a further pass


@dataclass(frozen=True)
class ToFit:
    """A layer of the smaller network to fit.

    Attributes
    ----------
    operation : Operation
        The layer in the original network.
    made : Tensor
        (outputs,) the output channels of the original network that the smaller one still has.
    unknowns : int
        Number of inputs of an output in the smaller network, including all taps.
    groups : int
        Groups of the smaller layer.
    """

    operation: Operation
    made: Tensor
    unknowns: int
    groups: int

    def positions(self, images: int, first: int) -> Tensor | None:
        """The sampled positions in the batch that begins with an image; None for all."""
        return drawn(self.operation, self.unknowns, images, first)


class Targets:
    """Outputs of the original network's layers, batch by batch, read in as few passes as memory allows.

    Parameters
    ----------
    net : Network
        The original network.
    layers : mapping of str to ToFit
        In the order they run.
    dataset : data set
    batch : int
        Images of a batch.
    """

    def __init__(self, net: Network, layers: Mapping[str, ToFit], dataset: Dataset, batch: int) -> None:
        self._net, self._layers, self._dataset, self._batch = net, layers, dataset, batch
        self._read: dict[str, list[Tensor]] = {}
        self._waiting = list(layers)

    def of(self, name: str) -> list[Tensor]:
        """The outputs of a layer in each batch: (groups, outputs, samples); can be read once.

        Raises
        ------
        InputError
            When the layer does not run for these images, or there are none.
        """
        if name not in self._read:
            self._pass(name)
        return self._read.pop(name)

    def _pass(self, first: str) -> None:
        chosen, size = [first], self._bytes(self._layers[first])
        for name in self._waiting[self._waiting.index(first) + 1 :]:
            size += self._bytes(self._layers[name])
            if size > HELD:
                break
            chosen.append(name)
        self._waiting = self._waiting[self._waiting.index(chosen[-1]) :]
        found: dict[str, list[Tensor]] = {name: [] for name in chosen}
        for number, images in normalised(self._net, self._dataset, self._batch):
            parts: dict[str, list[Tensor]] = {name: [] for name in chosen}
            observer = _Outputs({name: self._layers[name] for name in chosen}, parts, len(self._dataset), number)
            for part in images.split(together(self._net, self._batch)):
                with torch.no_grad():
                    Tracer(self._net.model, chosen[-1:], observer=observer)(part)
            for name, given in parts.items():
                if not given:
                    raise InputError(f'layer "{name}" did not run for these images.')
                found[name].append(torch.cat(given, 2))
        self._read |= found

    def _bytes(self, layer: ToFit) -> int:
        images = len(self._dataset)
        positions = wanted_positions(layer.operation, layer.unknowns, images)
        return self._net.dtype.itemsize * len(layer.made) * positions * images


class _Outputs:
    """Keeps outputs of layers at the sampled positions."""

    def __init__(self, layers: Mapping[str, ToFit], found: dict[str, list[Tensor]], images: int, first: int) -> None:
        self._layers, self._found, self._images, self._first = layers, found, images, first

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts: nothing to do."""

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned: nothing to do."""

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run: keep its output if needed."""
        layer = self._layers.get(call.name)
        if layer is None:
            return
        operation = layer.operation
        axis = call.arguments["input"].dim() - 1 if operation.kind == "linear" else 1
        value = output.index_select(axis, layer.made.to(output.device))
        draw = layer.positions(self._images, self._first)
        self._found[call.name].append(outputs_of(value, layer.groups, operation.kind, draw))
