"""Streaming pass: run a data set through the network once and call a reader with each layer's value."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome import trace
from microtome.batch_sizes import read_at_once
from microtome.data import Dataset, batches
from microtome.errors import InputError, LayerError, OpaqueError
from microtome.network import Network
from microtome.trace.graph import Layer
from microtome.trace.operators.operator_table import those

_USUAL = 16  # images of a pass on a processor
_SCORES = "logits"

# Operations that only rearrange values: their units are those of the previous layer.
_MOVES = those(role=("view", "selection", "copy", "padding"), layer=False)


@dataclass(frozen=True)
class Batch:
    """A batch of images: indices (n,) and pictures (n, C, H, W)."""

    indices: Tensor
    images: Tensor


Reader = Callable[[Tensor, Batch], None]


def computing_layers(net: Network) -> list[str]:
    """Names of the layers that compute their own units, in execution order.

    Containers are excluded, because their value is that of their last part. Layers that only rearrange values
    (padding, dropout, flattening, identity), layers without axes of units or images (tables of position biases) and
    layers of complex numbers are excluded as well.
    """
    names = []
    for layer in net.layers.values():
        scope = layer.operation.rpartition("/")[0]
        owns = layer.module is None or layer.name in (scope, layer.operation)
        fires = layer.units and layer.axes.image_axis is not None and not layer.is_complex
        if owns and fires and layer.operator not in _MOVES:
            names.append(layer.name)
    return names


def selected_layers(net: Network, layers: str | Iterable[str] | None) -> list[Layer]:
    """The layers with these names; None stands for all layers that compute.

    Raises
    ------
    LayerError
        When a layer does not exist, has no units, holds complex numbers, or its values have no axis of images; when
        there is no layer.
    """
    names = computing_layers(net) if layers is None else [layers] if isinstance(layers, str) else list(layers)
    selected = [net.layer(name) for name in names]
    for layer in selected:
        if layer.axes.image_axis is None:
            raise LayerError(f'the values of layer "{layer.name}" have no axis of images; choose another layer.')
        if not layer.units:
            what = "one number per image" if not layer.shape else f"{layer.shape} without an axis of units"
            raise LayerError(f'layer "{layer.name}" has no units: its value is {what}; choose another layer.')
        layer.check_real()
    if not selected and layers is not None:
        raise LayerError("no layer was named; `microtome layers` lists all layers.")
    if not selected:
        raise LayerError(
            "no layer of this network has units with separate image axes, for example because it is scripted or runs "
            "each image separately; give the original module."
        )
    return list({layer.name: layer for layer in selected}.values())


def read(
    net: Network,
    dataset: Dataset,
    readers: Mapping[str, Reader],
    *,
    batch: int | None = None,
    within: tuple[int, int] | None = None,
) -> int:
    """Run a data set through the network once and call the reader of each layer with its value.

    A reader receives the model's own tensor, before any later in-place change. It must not modify or
    store the tensor. The pass ends at the last of the layers.

    Parameters
    ----------
    net : Network
        The network.
    dataset : Dataset
        Images (C, H, W) in the network's pixel range, with or without labels.
    readers : mapping of str to function
        By layer: a function of the value (n, ...) and its batch. The reader of ``"logits"`` gets the class scores
        (n, K).
    batch : int, optional
        Number of images per pass, which limits the memory; default 16 on a processor, what fits on a GPU.
    within : (int, int), optional
        Index of the first image and one past the last; default all.

    Returns
    -------
    int
        The number of images.

    Raises
    ------
    InputError
        When the data set is empty, or its images do not fit.
    OpaqueError
        When a layer did not run.
    """
    names = {name if name == _SCORES else net.layer(name).name: reader for name, reader in readers.items()}
    end: str | None = None
    count = 0
    size = net.admitted(read_at_once(net, batch, _USUAL))
    for indices, images, _ in batches(dataset, size, net=net, within=within):
        done: list[str] = []
        _read_batch(net, names, Batch(indices, net.images(images)), end, done)
        missing = names.keys() - set(done)
        if missing:
            raise OpaqueError(f'layer "{sorted(missing)[0]}" did not run for images {indices[0]} to {indices[-1]}.')
        end = done[-1]
        count += len(indices)
    if not count:
        raise InputError("the data set is empty: there is no image to run.")
    return count


def _read_batch(net: Network, readers: Mapping[str, Reader], batch: Batch, end: str | None, done: list[str]) -> None:
    """Run one batch; if the GPU memory runs out, run its halves for the layers that have not been read yet."""
    begun: list[str] = []
    scores = readers.get(_SCORES)
    # The pass runs to the end: all layers are read, and the scores may be the model's output.
    ends = [] if end is None or scores is not None else [end]
    record = [*ends, *(net.head.record if scores is not None else ())]
    with torch.no_grad():
        taps = {name: _tap(name, reader, batch, begun, done) for name, reader in readers.items() if name != _SCORES}
        try:
            tracer = trace.Tracer(net.model, record, replace=taps, stop=scores is None)
            output = tracer(net.normalise(batch.images))
            if scores is not None:
                _tap(_SCORES, scores, batch, begun, done)(net.head.scores(tracer, output, len(batch.indices)))
            return
        except torch.cuda.OutOfMemoryError:
            if len(batch.indices) == 1 or net.graph.mixes or begun != done:  # a reader may have added a part
                raise
    torch.cuda.empty_cache()
    left = {name: reader for name, reader in readers.items() if name not in done}
    middle = len(batch.indices) // 2
    half: list[str] = []
    for rows in (slice(None, middle), slice(middle, None)):
        half = []
        _read_batch(net, left, Batch(batch.indices[rows], batch.images[rows]), end, half)
    done += half


def _tap(name: str, reader: Reader, batch: Batch, begun: list[str], done: list[str]) -> Callable[[Tensor], Tensor]:
    """A replacement function that calls the reader and returns the value unchanged."""

    def call_reader(value: Tensor) -> Tensor:
        if name not in begun:  # only the first run of a layer counts, as in recordings
            begun.append(name)
            reader(value.detach(), batch)  # the value may require a gradient if the model enables gradients
            done.append(name)
        return value

    return call_reader
