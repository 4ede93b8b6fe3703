"""A pass that fits each layer just before it runs, and a pass that reads the inputs of a single layer."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from microtome.batch_sizes import values_at_once
from microtome.data import Dataset
from microtome.errors import InputError
from microtome.network import Network
from microtome.surgery.compression.fit_targets import ToFit
from microtome.surgery.compression.layer_samples import inputs_of, with_one
from microtome.surgery.compression.moments import normalised
from microtome.trace.operators.operator_calls import Call
from microtome.trace.tracing.observers import Capture
from microtome.trace.tracing.tracer import Tracer

HELD = 4 << 30  # bytes that the values of all images may take

Fit = Callable[[str, Iterable[Tensor]], None]


def can_go_together(net: Network, layers: Iterable[str], images: int) -> bool:
    """Whether all images can run as one batch: they do not mix, memory suffices, and each has one row of values.

    A layer may read pieces of images, or tokens before images. Its rows are counted in two passes of different sizes.
    """
    if net.graph.mixes or net.graph.note or images * values_at_once(net) > HELD:
        return False
    for count in {min(images, 2), min(images, 3)}:
        rows = _Rows()
        with torch.no_grad():
            Tracer(net.model, observer=rows)(net.normalise(net.probe[:1].expand(count, -1, -1, -1).contiguous()))
        if any(rows.of.get(name, count) != count for name in layers):
            return False
    return True


class _Rows:
    """Counts the rows of every operation's input."""

    def __init__(self) -> None:
        self.of: dict[str, int] = {}

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts: nothing to do."""

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned: nothing to do."""

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        if call.tensors and call.input.dim():
            self.of[call.name] = len(call.input)


def one_pass(small: Network, layers: Mapping[str, ToFit], dataset: Dataset, batch: int, fit: Fit) -> None:
    """Run all images through the smaller network; before a layer runs, ``fit`` gets its inputs, batch by batch.

    Raises
    ------
    InputError
        When a layer does not run for these images.
    """
    parts = list(normalised(small, dataset, batch))
    starts = [number for number, _ in parts]
    images = torch.cat([part for _, part in parts])
    del parts
    rules = _FitBeforeRunning(layers, fit, starts, len(images))
    with torch.no_grad():
        Tracer(small.model, list(layers)[-1:], rules=rules)(images)
    missing = [name for name in layers if name not in rules.done]
    if missing:
        raise InputError(f'layer "{missing[0]}" did not run for these images.')


class _FitBeforeRunning:
    """Runs every operation as the model wrote it, after its layer has been fitted."""

    name = "the fit of a smaller network"
    asks_places = True
    sees = None

    def __init__(self, layers: Mapping[str, ToFit], fit: Fit, starts: list[int], images: int) -> None:
        self._layers, self._fit, self._images = layers, fit, images
        self._batches = list(zip(starts, [*starts[1:], images], strict=True))
        self.done: set[str] = set()

    def run(self, call: Call) -> Any:
        """Run one operation."""
        layer = self._layers.get(call.name)
        if layer is not None and call.name not in self.done:
            self.done.add(call.name)
            self._fit(call.name, self._samples(layer, call))
        return call.run()

    def _samples(self, layer: ToFit, call: Call) -> Iterator[Tensor]:
        for first, last in self._batches:
            yield with_one(inputs_of(call, layer.positions(self._images, first), slice(first, last)))

    def ask(self, func: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Answer a question about a tensor."""
        return func(*args, **kwargs)

    def content(self, value: Tensor) -> Tensor:
        """What a value of the pass holds: itself."""
        return value

    def opaque(self, what: str) -> None:
        """Run opaque code unchanged."""


def read_again(small: Network, layer: ToFit, dataset: Dataset, batch: int) -> Iterator[Tensor]:
    """The inputs of a layer of the smaller network, batch by batch, each by a pass up to the layer.

    Raises
    ------
    InputError
        When the layer does not run for these images.
    """
    name = layer.operation.name
    for first, images in normalised(small, dataset, batch):
        capture = Capture(name)
        with torch.no_grad():
            Tracer(small.model, [name], observer=capture)(images)
        if capture.call is None:
            raise InputError(f'layer "{name}" did not run for these images.')
        yield with_one(inputs_of(capture.call, layer.positions(len(dataset), first)))
