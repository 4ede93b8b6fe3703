"""Which layers does an atlas show, and how large is the network? What is known before any image is looked at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from microtome.atlas.budget import Budget
from microtome.errors import InputError
from microtome.loading import Subject
from microtome.network import Network
from microtome.trace.graph import Layer

__all__ = ["Outline", "convolutions", "outline", "shown_layers", "work"]

_RATE = 14e9  # multiply-adds a second that one core does on small batches


@dataclass(frozen=True)
class Outline:
    """The frame of a run.

    Attributes
    ----------
    budget : Budget
        How much is made.
    layers : tuple of str
        Layers whose units get pages.
    images : int
        Images that get pages.
    surveyed : tuple of str
        Layers whose patches are looked for: those shown and all other convolutions.
    seconds : float
        Expected seconds of one image's forward pass on one core.
    """

    budget: Budget
    layers: tuple[str, ...]
    images: int
    surveyed: tuple[str, ...]
    seconds: float


def outline(subject: Subject, size: Budget, layers: Sequence[str] | None, images: int | None) -> Outline:
    """Settle what a run shows.

    Raises
    ------
    LayerError
        A layer does not exist.
    InputError
        The number of images cannot be, or there is nothing to show.
    """
    net = subject.net
    if images is not None and images < 1:
        raise InputError(f"at least one image is shown, got --images {images}.")
    if layers is not None and not layers:
        raise InputError("no layer is named; leave --layers out for all convolutions.")
    chosen = shown_layers(net, size) if layers is None else [net.layer(name).name for name in layers]
    order = list(net.layers)
    chosen = sorted(dict.fromkeys(chosen), key=order.index)
    for name in chosen:
        if not net.layer(name).shape:
            raise InputError(f'layer "{name}" gives one number per image and has no units; choose another.')
    count = min(len(subject.images), images or size.images)
    looked = {*chosen, *(layer.name for layer in convolutions(net))}
    surveyed = tuple(name for name in order if name in looked)
    return Outline(size, tuple(chosen), count, surveyed, max(work(net) / _RATE, 2e-4))


def shown_layers(net: Network, size: Budget) -> list[str]:
    """Every convolution; of deep networks the outputs of their blocks and the convolutions between these.

    A network without convolutions shows its linear layers.
    """
    found = convolutions(net)
    if not found:
        return [layer.name for layer in net.layers.values() if layer.shape and layer.leaf and layer.parameters]
    blocks = _blocks(net, [layer.name for layer in found])
    if sum(layer.units for layer in found) <= size.many or not blocks:
        return [layer.name for layer in found]
    outside = [layer.name for layer in found if not any(layer.name.startswith(f"{block}.") for block in blocks)]
    return [*outside, *blocks]


def convolutions(net: Network) -> list[Layer]:
    """The layers that are one convolution."""
    return [
        layer
        for layer in net.layers.values()
        if layer.operation.rpartition("/")[2].startswith("conv")
        and layer.spatial
        and (layer.module is None or layer.name == layer.operation.rpartition("/")[0])
    ]


def _blocks(net: Network, convolved: Sequence[str]) -> list[str]:
    """Innermost modules that hold two convolutions or more and are no mere list of modules."""
    found = [
        layer.name
        for layer in net.layers.values()
        if layer.module is not None
        and layer.spatial
        and not isinstance(layer.module, nn.Sequential | nn.ModuleList)
        and sum(name.startswith(f"{layer.name}.") for name in convolved) >= 2
    ]
    return [name for name in found if not any(other.startswith(f"{name}.") for other in found)]


def work(net: Network, upto: str | None = None) -> float:
    """Multiply-adds of one forward pass, up to a layer: weights times the positions they are used at."""
    total = 0.0
    for layer in net.layers.values():
        if layer.module is None or layer.operation.rpartition("/")[0] == layer.name:
            total += layer.parameters * math.prod(layer.axes.grid)
        if layer.name == upto:
            break
    return total
