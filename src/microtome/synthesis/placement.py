"""How large need an image be for a layer? A canvas as wide as the unit's view, and its place in the whole picture."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError, MicrotomeError
from microtome.network import Network

_BYTES = 256 * 2**20  # for the values of one chunk, which the backward pass holds on to

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Frame:
    """Where a canvas lies in the network's picture, and on which part of the picture the network runs.

    Attributes
    ----------
    canvas, window : (int, int, int, int)
        Top, left, bottom and right (exclusive), in pixels of the picture. The window is what the
        network sees during ascent; it holds the canvas.
    """

    canvas: Box
    window: Box

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the canvas."""
        return self.canvas[2] - self.canvas[0], self.canvas[3] - self.canvas[1]

    def in_window(self, images: Tensor, net: Network) -> Tensor:
        """The canvas as the network sees it during ascent."""
        return _placed(images, self.canvas, self.window, net)

    def in_picture(self, images: Tensor, net: Network) -> Tensor:
        """The canvas in a picture of the network's size.

        The ground is the network's mean colour, which is what its zero padding means.
        """
        return _placed(images, self.canvas, (0, 0, *net.input_shape[1:]), net)

    def cut(self, value: Tensor, net: Network, layer: str) -> Tensor:
        """The positions of a layer whose fields are centred on the canvas, from those of the whole picture."""
        field = net.layer(layer).field if layer != "logits" else None
        if value.dim() != 4 or field is None or self.size == net.input_shape[1:]:
            return value
        spans = []
        for axis in range(2):
            start, length, count = self.canvas[axis], self.size[axis], int(value.shape[2 + axis])
            first = field.offset[axis] + (field.size[axis] - 1) / 2
            centres = torch.arange(count) * field.stride[axis] + first
            inside = ((centres >= start) & (centres < start + length)).nonzero().flatten().tolist()
            inside = inside or [int((centres - start - length / 2).abs().argmin())]
            spans.append(slice(inside[0], inside[-1] + 1))
        return value[:, :, spans[0], spans[1]]


def whole(net: Network) -> Frame:
    """The whole picture as canvas."""
    picture = (0, 0, *net.input_shape[1:])
    return Frame(picture, picture)


def centred(net: Network, layer: str, size: int | tuple[int, int] | None) -> Frame:
    """A canvas of a size in the middle of the picture, on the grid of the layer's strides.

    The network runs on the canvas alone where it takes pictures of that size.

    Raises
    ------
    InputError
        When the size exceeds the network's input.
    """
    if size is None:
        return whole(net)
    height, width = net.input_shape[1:]
    asked = _fitting(net, size)
    stride = _stride(net, layer)
    top = (height - asked[0]) // 2 // stride[0] * stride[0]
    left = (width - asked[1]) // 2 // stride[1] * stride[1]
    canvas = (top, left, top + asked[0], left + asked[1])
    alone = _probe(net, layer, asked) is not None and not net.layer(layer).gated
    return Frame(canvas, canvas if alone else (0, 0, height, width))


def around(
    net: Network, layer: str, position: tuple[int, ...], size: int | tuple[int, int] | None = None
) -> tuple[Frame, tuple[int, ...]]:
    """The receptive field of one neuron as canvas, or a canvas of a size around it, inside the picture.

    Returns
    -------
    frame, position
        The frame, and where the neuron lies in the layer's map of the window.

    Raises
    ------
    InputError
        When the position lies outside the map.
    """
    found = net.layer(layer)
    sizes = found.axes.grid if found.spatial else tuple(size for size in found.axes.grid[:1] if size > 1)
    if len(position) != len(sizes) or any(not 0 <= at < size for at, size in zip(position, sizes, strict=True)):
        raise InputError(f'a position inside {sizes} was expected for layer "{layer}", got {tuple(position)}.')
    if not found.spatial or found.field is None or found.gated:
        return whole(net), position
    height, width = net.input_shape[1:]
    top, left, bottom, right = found.field.box(position[0], position[1])
    if size is not None:
        top, left, bottom, right = _about(
            found.field.box(position[0], position[1]), _fitting(net, size), (height, width)
        )
        return Frame((top, left, bottom, right), (0, 0, height, width)), position
    canvas = (max(top, 0), max(left, 0), min(bottom, height), min(right, width))
    if canvas[0] >= canvas[2] or canvas[1] >= canvas[3]:  # a neuron that sees padding only
        return whole(net), position
    stride = _stride(net, layer)
    start = (canvas[0] // stride[0] * stride[0], canvas[1] // stride[1] * stride[1])
    window = (*start, canvas[2], canvas[3])
    local = (position[0] - start[0] // stride[0], position[1] - start[1] // stride[1])
    if _same_there(net, layer, window, local, position):
        return Frame(canvas, window), local
    return Frame(canvas, (0, 0, height, width)), position


def recommended_size(net: Network, layer: str, most: int = 128) -> int | None:
    """A canvas that shows what the units of a layer see and little more: twice their field, at most ``most``.

    Returns
    -------
    int or None
        Side in pixels, a multiple of the layer's stride; None for the whole picture, which is what
        small pictures, layers without height and width and layers with global gates need.
    """
    found = net.layer(layer)
    short = min(net.input_shape[1:])
    if short <= 64 or not found.spatial or found.field is None or found.gated:
        return None
    stride = max(_stride(net, layer))
    side = max(2 * max(found.field.size), 4 * stride, 16)
    side = min(-(-side // stride), max(most // stride, 1)) * stride
    return side if side < short else None


def mean_colour(net: Network, like: Tensor) -> Tensor:
    """The colour that the network's normalisation sends to zero, (C, 1, 1), inside the pixel range."""
    mean = torch.tensor(net.mean, dtype=like.dtype, device=like.device)[:, None, None]
    return mean if net.pixels is None else mean.clamp(*net.pixels)


def chunk_size(net: Network, layers: tuple[str, ...], window: Box) -> int:
    """How many images fit into one pass: all values up to the last layer are kept for the way back."""
    area = (window[2] - window[0]) * (window[3] - window[1]) / (net.input_shape[1] * net.input_shape[2])
    names = list(net.layers)
    last = len(names) - 1
    if "logits" not in layers:
        last = max(names.index(net.layer(name).name) for name in layers)
    held = sum(torch.Size(net.layers[name].shape).numel() for name in names[: last + 1] if net.layers[name].leaf)
    return max(1, min(64, int(_BYTES / (4 * max(held, 1) * area))))


def _fitting(net: Network, size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = net.input_shape[1:]
    asked = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if not (0 < asked[0] <= height and 0 < asked[1] <= width):
        raise InputError(f"a canvas of at most {height} x {width} pixels was expected, got {asked[0]} x {asked[1]}.")
    return asked


def _about(box: Box, size: tuple[int, int], picture: tuple[int, int]) -> Box:
    """A box of a size around the middle of another one, moved into the picture."""
    starts = [
        min(max((box[axis] + box[axis + 2] - size[axis]) // 2, 0), picture[axis] - size[axis]) for axis in range(2)
    ]
    return starts[0], starts[1], starts[0] + size[0], starts[1] + size[1]


def _placed(images: Tensor, inner: Box, outer: Box, net: Network) -> Tensor:
    if inner == outer:
        return images
    height, width = outer[2] - outer[0], outer[3] - outer[1]
    ground = mean_colour(net, images).expand(len(images), -1, height, width).clone()
    top, left = inner[0] - outer[0], inner[1] - outer[1]
    ground[:, :, top : top + images.shape[2], left : left + images.shape[3]] = images
    return ground


def _stride(net: Network, layer: str) -> tuple[int, int]:
    field = net.layer(layer).field if layer != "logits" else None
    return (1, 1) if field is None else (max(math.ceil(field.stride[0]), 1), max(math.ceil(field.stride[1]), 1))


def _probe(net: Network, layer: str, size: tuple[int, int], picture: Tensor | None = None) -> Tensor | None:
    """The layer's value on a picture of another size; None where the network does not take it."""
    if not net.layer(layer).spatial:
        return None
    probe = net.probe[:, :, :1, :1].expand(-1, -1, *size) if picture is None else picture
    try:
        with torch.no_grad():
            value = net.layer(layer).axes.maps(net.forward(probe, layer)[layer], 1)
    except MicrotomeError:
        return None
    return value if value.numel() > 0 else None


def _same_there(net: Network, layer: str, window: Box, local: tuple[int, ...], position: tuple[int, ...]) -> bool:
    """Whether a neuron computes the same from its window as from the picture: the padding may depend on the size."""
    draw = torch.rand(1, *net.input_shape, generator=torch.Generator().manual_seed(0)).to(net.device)
    there = _probe(net, layer, net.input_shape[1:], draw)
    here = _probe(net, layer, (0, 0), draw[:, :, window[0] : window[2], window[1] : window[3]])
    if here is None or there is None or any(not 0 <= at < size for at, size in zip(local, here.shape[2:], strict=True)):
        return False
    return bool(torch.allclose(here[0, :, local[0], local[1]], there[0, :, position[0], position[1]], 1e-3, 1e-4))
