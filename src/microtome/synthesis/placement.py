"""Placement of the canvas: its size for a layer, its place in the picture, and the window that the network runs on."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError, MicrotomeError
from microtome.inputs import column
from microtome.network import Network

_BYTES = 256 * 2**20  # memory for the activations of one pass, which the backward pass needs

Box = tuple[int, int, int, int]


@dataclass(frozen=True)
class Placement:
    """The place of a canvas in the network's picture, and the part of the picture that the network runs on.

    Attributes
    ----------
    canvas, window : (int, int, int, int)
        Top, left, bottom and right (exclusive), in pixels of the picture. The window is the input of the
        network during ascent; it contains the canvas.
    """

    canvas: Box
    window: Box

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the canvas."""
        return self.canvas[2] - self.canvas[0], self.canvas[3] - self.canvas[1]

    def in_window(self, images: Tensor, net: Network) -> Tensor:
        """The canvas in the window, the network's input during ascent."""
        return _placed(images, self.canvas, self.window, net)

    def in_picture(self, images: Tensor, net: Network) -> Tensor:
        """The canvas in a picture of the network's size.

        The background is the network's mean colour, which equals its zero padding.
        """
        return _placed(images, self.canvas, (0, 0, *net.input_shape[1:]), net)

    def crop(self, value: Tensor, net: Network, layer: str) -> Tensor:
        """Crop a layer's map of the whole picture to the positions whose receptive fields are centred on the canvas."""
        field = net.layer(layer).field if layer != "logits" else None
        if value.dim() != 4 or field is None or self.size == net.input_shape[1:]:
            return value
        spans = []
        for axis in range(2):
            start, length, count = self.canvas[axis], self.size[axis], int(value.shape[2 + axis])
            first = field.offset[axis] + (field.size[axis] - 1) / 2
            centres = torch.arange(count, device="cpu") * field.stride[axis] + first
            inside = ((centres >= start) & (centres < start + length)).nonzero().flatten().tolist()
            inside = inside or [int((centres - start - length / 2).abs().argmin())]
            spans.append(slice(inside[0], inside[-1] + 1))
        return value[:, :, spans[0], spans[1]]


def whole(net: Network) -> Placement:
    """The whole picture as canvas."""
    picture = (0, 0, *net.input_shape[1:])
    return Placement(picture, picture)


def centred(net: Network, layer: str, size: int | tuple[int, int] | None) -> Placement:
    """A canvas of a size in the middle of the picture, on the grid of the layer's strides.

    The network runs on the canvas alone if it accepts pictures of that size.

    Raises
    ------
    InputError
        When the size exceeds the network's input.
    """
    if size is None:
        return whole(net)
    height, width = net.input_shape[1:]
    shape = _checked_size(net, size)
    stride = _stride(net, layer)
    top = (height - shape[0]) // 2 // stride[0] * stride[0]
    left = (width - shape[1]) // 2 // stride[1] * stride[1]
    canvas = (top, left, top + shape[0], left + shape[1])
    alone = _probe(net, layer, shape) is not None and not net.layer(layer).gated
    return Placement(canvas, canvas if alone else (0, 0, height, width))


def around(
    net: Network, layer: str, position: tuple[int, ...], size: int | tuple[int, int] | None = None
) -> tuple[Placement, tuple[int, ...]]:
    """The receptive field of one neuron as canvas, or a canvas of a size around it, inside the picture.

    Returns
    -------
    placement, position
        The placement, and the neuron's position in the layer's map of the window.

    Raises
    ------
    InputError
        When the position lies outside the map.
    """
    info = net.layer(layer)
    sizes = info.axes.grid if info.spatial else tuple(size for size in info.axes.grid[:1] if size > 1)
    if len(position) != len(sizes) or any(not 0 <= at < size for at, size in zip(position, sizes, strict=True)):
        raise InputError(f'a position inside {sizes} was expected for layer "{layer}", got {tuple(position)}.')
    if not info.spatial or info.field is None or info.gated:
        return whole(net), position
    height, width = net.input_shape[1:]
    top, left, bottom, right = info.field.box(position[0], position[1])
    if size is not None:
        canvas = _around_box((top, left, bottom, right), _checked_size(net, size), (height, width))
        return Placement(canvas, (0, 0, height, width)), position
    canvas = (max(top, 0), max(left, 0), min(bottom, height), min(right, width))
    if canvas[0] >= canvas[2] or canvas[1] >= canvas[3]:  # the neuron depends on padding only
        return whole(net), position
    stride = _stride(net, layer)
    start = (canvas[0] // stride[0] * stride[0], canvas[1] // stride[1] * stride[1])
    window = (*start, canvas[2], canvas[3])
    local = (position[0] - start[0] // stride[0], position[1] - start[1] // stride[1])
    if _equal_in_window(net, layer, window, local, position):
        return Placement(canvas, window), local
    return Placement(canvas, (0, 0, height, width)), position


def recommended_size(net: Network, layer: str, *, limit: int = 128) -> int | None:
    """A canvas a little larger than the receptive fields of a layer: twice the field, at most ``limit`` pixels.

    Returns
    -------
    int or None
        Side in pixels, a multiple of the layer's stride. None stands for the whole picture: for small
        pictures, layers without height and width, and layers with global gates.
    """
    info = net.layer(layer)
    short = min(net.input_shape[1:])
    if short <= 64 or not info.spatial or info.field is None or info.gated:
        return None
    stride = max(_stride(net, layer))
    side = max(2 * max(info.field.size), 4 * stride, 16)
    side = min(-(-side // stride), max(limit // stride, 1)) * stride
    return side if side < short else None


def mean_colour(net: Network, like: Tensor) -> Tensor:
    """The colour that the network's normalisation maps to zero, (C, 1, 1), clamped to the pixel range."""
    mean = column(net.mean, like.dtype, like.device)
    return mean if net.pixels is None else mean.clamp(*net.pixels)


def images_per_pass(net: Network, layers: tuple[str, ...], window: Box) -> int:
    """Number of images per pass: the backward pass needs all activations up to the last layer in memory."""
    area = (window[2] - window[0]) * (window[3] - window[1]) / (net.input_shape[1] * net.input_shape[2])
    names = list(net.layers)
    last = len(names) - 1
    if "logits" not in layers:
        last = max(names.index(net.layer(name).name) for name in layers)
    saved = sum(torch.Size(net.layers[name].shape).numel() for name in names[: last + 1] if net.layers[name].leaf)
    return max(1, min(64, int(_BYTES / (4 * max(saved, 1) * area))))


def _checked_size(net: Network, size: int | tuple[int, int]) -> tuple[int, int]:
    height, width = net.input_shape[1:]
    rows, columns = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if not (0 < rows <= height and 0 < columns <= width):
        raise InputError(f"a canvas of at most {height} x {width} pixels was expected, got {rows} x {columns}.")
    return rows, columns


def _around_box(box: Box, size: tuple[int, int], picture: tuple[int, int]) -> Box:
    """A box of a size around the middle of another box, shifted into the picture."""
    starts = [
        min(max((box[axis] + box[axis + 2] - size[axis]) // 2, 0), picture[axis] - size[axis]) for axis in range(2)
    ]
    return starts[0], starts[1], starts[0] + size[0], starts[1] + size[1]


def _placed(images: Tensor, inner: Box, outer: Box, net: Network) -> Tensor:
    if inner == outer:
        return images
    height, width = outer[2] - outer[0], outer[3] - outer[1]
    background = mean_colour(net, images).expand(len(images), -1, height, width).clone()
    top, left = inner[0] - outer[0], inner[1] - outer[1]
    background[:, :, top : top + images.shape[2], left : left + images.shape[3]] = images
    return background


def _stride(net: Network, layer: str) -> tuple[int, int]:
    field = net.layer(layer).field if layer != "logits" else None
    return (1, 1) if field is None else (max(math.ceil(field.stride[0]), 1), max(math.ceil(field.stride[1]), 1))


def _probe(net: Network, layer: str, size: tuple[int, int], picture: Tensor | None = None) -> Tensor | None:
    """The layer's value on a picture of another size; None if the network does not accept this size."""
    if not net.layer(layer).spatial:
        return None
    probe = net.probe[:, :, :1, :1].expand(-1, -1, *size) if picture is None else picture
    try:
        with torch.no_grad():
            value = net.layer(layer).axes.maps(net.forward(probe, layer)[layer], 1)
    except MicrotomeError:
        return None
    return value if value.numel() > 0 else None


def _equal_in_window(net: Network, layer: str, window: Box, local: tuple[int, ...], position: tuple[int, ...]) -> bool:
    """Whether a neuron has the same value in its window as in the picture; padding may depend on the size."""
    picture = torch.rand(
        1, *net.input_shape, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu"
    ).to(net.device)
    whole_map = _probe(net, layer, net.input_shape[1:], picture)
    part = _probe(net, layer, (0, 0), picture[:, :, window[0] : window[2], window[1] : window[3]])
    if part is None or whole_map is None:
        return False
    if any(not 0 <= at < size for at, size in zip(local, part.shape[2:], strict=True)):
        return False
    return bool(torch.allclose(part[0, :, local[0], local[1]], whole_map[0, :, position[0], position[1]], 1e-3, 1e-4))
