"""One pass over a data set: every layer's value is handed to a reader where it arises, and nothing is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome import trace
from microtome.data import Dataset, batches
from microtome.errors import InputError, LayerError, OpaqueError
from microtome.network import Network
from microtome.trace.graph import Layer
from microtome.trace.operator_table import those

# Operations that move values about: their units are those of the layer before.
_MOVES = those(role=("view", "selection", "copy", "padding"), layer=False)


@dataclass(frozen=True)
class Batch:
    """Some images of a pass: their indices (n,), their labels (n,) or None, and the pictures (n, C, H, W)."""

    indices: Tensor
    labels: Tensor | None
    images: Tensor


Reader = Callable[[Tensor, Batch], None]


def computing_layers(net: Network) -> list[str]:
    """Names of the layers that compute units of their own, in the order they run.

    Containers are left out, since their value is that of their last part, and so are layers that only move values
    (padding, dropout, flattening, identity) and those without units or images (tables of position biases).
    """
    found = []
    for layer in net.layers.values():
        scope = layer.operation.rpartition("/")[0]
        owns = layer.module is None or layer.name in (scope, layer.operation)
        if owns and layer.units and layer.axes.image_axis is not None and operation(layer) not in _MOVES:
            found.append(layer.name)
    return found


def chosen_layers(net: Network, layers: str | Iterable[str] | None) -> list[Layer]:
    """The layers asked for, by the network's own names; all that compute where none is named.

    Raises
    ------
    LayerError
        When a layer does not exist, has no units, or its values belong to no image.
    """
    names = computing_layers(net) if layers is None else [layers] if isinstance(layers, str) else list(layers)
    found = [net.layer(name) for name in names]
    for layer in found:
        if layer.axes.image_axis is None:
            raise LayerError(
                f'the values of layer "{layer.name}" belong to no single image of a batch; choose another.'
            )
        if not layer.units:
            what = "one number per image" if not layer.shape else f"{layer.shape} without an axis of units"
            raise LayerError(f'layer "{layer.name}" gives {what}, so that it has no units; choose another.')
    return list({layer.name: layer for layer in found}.values())


def operation(layer: Layer) -> str:
    """The operator that makes the layer's value: ``"conv2d"``, ``"relu"``."""
    return layer.operation.rpartition("/")[2].partition(".")[0]


def read(net: Network, dataset: Dataset, readers: Mapping[str, Reader], *, batch: int = 16) -> int:
    """Run a data set through the network once and hand every layer's value to its reader.

    The value is the one the model goes on with, before any later in-place change; it must not be
    written on or kept. The pass ends at the last of the layers.

    Parameters
    ----------
    net : Network
        The network.
    dataset : Dataset
        Images (C, H, W) in the network's pixel range, with labels or without.
    readers : mapping of str to function
        By layer: called with the value (n, ...) and its batch.
    batch : int
        Images at a time; what bounds the memory.

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
    names = {net.layer(name).name: reader for name, reader in readers.items()}
    end: str | None = None
    count = 0
    for indices, images, found in batches(dataset, net.admitted(batch), net=net):
        given = net.images(images)
        now = Batch(indices, found, given)
        seen: list[str] = []
        with torch.no_grad():
            taps = {name: _tap(name, reader, now, seen) for name, reader in names.items()}
            trace.Tracer(net.model, [] if end is None else [end], replace=taps)(net.normalise(given))
        missing = names.keys() - set(seen)
        if missing:
            raise OpaqueError(f'layer "{sorted(missing)[0]}" did not run for images {indices[0]} to {indices[-1]}.')
        end = seen[-1]
        count += len(indices)
    if not count:
        raise InputError("the data set is empty: there is no image to run.")
    return count


def _tap(name: str, reader: Reader, batch: Batch, seen: list[str]) -> Callable[[Tensor], Tensor]:
    """A replacement that replaces nothing."""

    def look(value: Tensor) -> Tensor:
        if name not in seen:  # a layer that runs again under the same name counts once, as it is recorded
            seen.append(name)
            reader(value.detach(), batch)  # a model that takes gradients itself gives values that carry one
        return value

    return look
