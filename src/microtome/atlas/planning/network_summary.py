"""Network summary: the layers that an atlas shows, and the multiply-adds up to each of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import nn

from microtome.atlas.planning.budget import Budget
from microtome.errors import InputError
from microtome.loading import Subject
from microtome.network import Network
from microtome.spaces.operators.linear_layer import linear_layers
from microtome.trace.graph import Layer

__all__ = [
    "NetworkSummary",
    "convolutions",
    "maps_inside",
    "multiply_adds",
    "network_summary",
    "shown_layers",
    "small_images",
    "work",
]

_SMALL = 64  # pixels a side up to which images are no photos, and need little memory
_RATE = 14e9  # multiply-adds per second of one core on small batches
_WRITTEN = 64  # multiply-adds in the time that a number of a map takes to be computed from others and written


@dataclass(frozen=True)
class NetworkSummary:
    """The facts of a run before any image is read.

    Attributes
    ----------
    budget : Budget
        How much is made.
    layers : tuple of str
        Layers whose units get pages.
    images : int
        Number of images that get pages.
    surveyed : tuple of str
        Layers whose strongest patches are searched: those shown and all other convolutions.
    seconds : float
        Expected seconds of a forward pass of one image on one core.
    """

    budget: Budget
    layers: tuple[str, ...]
    images: int
    surveyed: tuple[str, ...]
    seconds: float


def network_summary(
    subject: Subject, size: Budget, layers: Sequence[str] | None = None, images: int | None = None
) -> NetworkSummary:
    """Choose the layers that a run shows, and estimate the cost of a pass.

    Raises
    ------
    LayerError
        A layer does not exist.
    InputError
        The number of images is below one, or no layer has units.
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
    usual = size.images if small_images(net) else min(size.images, size.photos)
    count = min(len(subject.images), images or usual)
    searched = {*chosen, *(layer.name for layer in convolutions(net))}
    surveyed = tuple(name for name in order if name in searched)
    return NetworkSummary(size, tuple(chosen), count, surveyed, max(multiply_adds(net) / _RATE, 2e-4))


def small_images(net: Network) -> bool:
    """Whether the images of a network are small, not photos."""
    return max(net.input_shape[1:]) <= _SMALL


def shown_layers(net: Network, size: Budget) -> list[str]:
    """Every convolution; in deep networks the outputs of the blocks and the convolutions between them.

    A network without convolutions shows its linear layers.
    """
    found = convolutions(net)
    if not found:
        return [layer.name for layer in net.layers.values() if layer.shape and layer.leaf and layer.parameters]
    blocks = _blocks(net, [layer.name for layer in found])
    if sum(layer.units for layer in found) <= size.units_in_all or not blocks:
        return [layer.name for layer in found]
    outside = [layer.name for layer in found if not any(layer.name.startswith(f"{block}.") for block in blocks)]
    return [*outside, *blocks]


def convolutions(net: Network) -> list[Layer]:
    """The layers that are a single convolution."""
    return [
        layer
        for layer in net.layers.values()
        if layer.operator.startswith("conv")
        and layer.spatial
        and (layer.module is None or layer.name == layer.operation.rpartition("/")[0])
    ]


def _blocks(net: Network, convolved: Sequence[str]) -> list[str]:
    """Innermost modules with two convolutions or more, lists of modules excluded."""
    found = [
        layer.name
        for layer in net.layers.values()
        if layer.module is not None
        and layer.spatial
        and not isinstance(layer.module, nn.Sequential | nn.ModuleList)
        and sum(name.startswith(f"{layer.name}.") for name in convolved) >= 2
    ]
    return [name for name in found if not any(other.startswith(f"{name}.") for other in found)]


def multiply_adds(net: Network, upto: str | None = None) -> float:
    """Multiply-adds of a forward pass of one image, up to a layer: weights times positions."""
    total = 0.0
    for layer in net.layers.values():
        if layer.module is None or layer.operation.rpartition("/")[0] == layer.name:
            total += layer.parameters * math.prod(layer.axes.grid)
        if layer.name == upto:
            break
    return total


def work(net: Network, upto: str | None = None) -> float:
    """Work of a forward pass of one image, up to a layer, in multiply-adds; each written number counts as several.

    First layers have large maps and few weights; memory access dominates their time.
    """
    total = multiply_adds(net, upto)
    for layer in net.layers.values():
        if layer.leaf:
            total += _WRITTEN * math.prod(layer.shape)
        if layer.name == upto:
            break
    return total


def maps_inside(net: Network, layer: str) -> list[str]:
    """The linear layers that a layer is or holds, in the order they run.

    Examples
    --------
    >>> net = Network(nn.Sequential(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU()), nn.Conv2d(2, 1, 1)), (1, 4, 4))
    >>> maps_inside(net, "0"), maps_inside(net, "1"), maps_inside(net, "0.1")
    (['0.0'], ['1'], [])
    """
    return [name for name in linear_layers(net) if name == layer or name.startswith(f"{layer}.")]
