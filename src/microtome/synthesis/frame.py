"""How large need an image be for a layer? A canvas as wide as the unit's view, and its place in the whole picture."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError, MicrotomeError
from microtome.network import Network

_BYTES = 256 * 2**20  # for the values of one chunk, which the backward pass holds on to


@dataclass(frozen=True)
class Frame:
    """Where a canvas lies in the network's input.

    Attributes
    ----------
    size : tuple of int
        Height and width of the canvas.
    top, left : int
        Its corner in the picture.
    alone : bool
        Whether the network takes the canvas as a picture of its own; otherwise it is always placed.
    """

    size: tuple[int, int]
    top: int
    left: int
    alone: bool

    def placed(self, images: Tensor, net: Network) -> Tensor:
        """The canvas in the middle of a picture of the network's size.

        The ground is the network's mean colour, which is what its zero padding means.
        """
        height, width = net.input_shape[1:]
        if self.size == (height, width):
            return images
        right, bottom = width - self.left - self.size[1], height - self.top - self.size[0]
        ground = mean_colour(net, images)
        return torch.nn.functional.pad(images - ground, (self.left, right, self.top, bottom)) + ground

    def cut(self, value: Tensor, net: Network, layer: str) -> Tensor:
        """The positions of a layer whose fields are centred on the canvas, from those of the whole picture."""
        field = net.layer(layer).field if layer != "logits" else None
        if value.dim() != 4 or field is None or self.size == net.input_shape[1:]:
            return value
        spans = []
        for axis, (start, length) in enumerate(zip((self.top, self.left), self.size, strict=True)):
            count = value.shape[2 + axis]
            step = max(field.stride[axis], 1)
            centres = [field.offset[axis] + (field.size[axis] - 1) / 2 + at * step for at in range(count)]
            inside = [at for at, centre in enumerate(centres) if start <= centre < start + length]
            inside = inside or [min(range(count), key=lambda at: abs(centres[at] - start - length / 2))]
            spans.append(slice(inside[0], inside[-1] + 1))
        return value[:, :, spans[0], spans[1]]


def whole(net: Network) -> Frame:
    """The whole picture as canvas."""
    return Frame(net.input_shape[1:], 0, 0, alone=True)


def frame(net: Network, layer: str, size: int | tuple[int, int] | None) -> Frame:
    """A canvas of a size in the middle of the picture, on the grid of the layer's strides.

    Raises
    ------
    InputError
        When the size exceeds the network's input.
    """
    height, width = net.input_shape[1:]
    if size is None:
        return whole(net)
    asked = (size, size) if isinstance(size, int) else (int(size[0]), int(size[1]))
    if not (0 < asked[0] <= height and 0 < asked[1] <= width):
        raise InputError(f"a canvas of at most {height} x {width} pixels was expected, got {asked[0]} x {asked[1]}.")
    if asked == (height, width):
        return whole(net)
    stride = net.layer(layer).field.stride if layer != "logits" and net.layer(layer).field is not None else (1, 1)  # type: ignore[union-attr]
    top = (height - asked[0]) // 2 // max(stride[0], 1) * max(stride[0], 1)
    left = (width - asked[1]) // 2 // max(stride[1], 1) * max(stride[1], 1)
    return Frame(asked, top, left, alone=_runs_alone(net, layer, asked))


def recommended_size(net: Network, layer: str, most: int = 128) -> int | tuple[int, int] | None:
    """A canvas that shows what a unit of a layer sees and little more: twice its field, at most ``most``.

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
    stride = max(1, *found.field.stride)
    side = max(2 * max(found.field.size), 4 * stride, 16)
    side = -(-side // stride) * stride
    side = min(side, max(most // stride, 1) * stride)
    return side if side < short else None


def mean_colour(net: Network, like: Tensor) -> Tensor:
    """The colour that the network's normalisation sends to zero, (C, 1, 1), inside the pixel range."""
    mean = torch.tensor(net.mean, dtype=like.dtype, device=like.device)[:, None, None]
    return mean if net.pixels is None else mean.clamp(*net.pixels)


def chunk_size(net: Network, layers: tuple[str, ...], size: tuple[int, int]) -> int:
    """How many images fit into one pass: all values up to the last layer are kept for the way back."""
    area = size[0] * size[1] / (net.input_shape[1] * net.input_shape[2])
    names = list(net.layers)
    last = max((names.index(net.layer(name).name) for name in layers if name != "logits"), default=len(names) - 1)
    last = len(names) - 1 if "logits" in layers else last
    held = sum(torch.Size(net.layers[name].shape).numel() for name in names[: last + 1] if net.layers[name].leaf)
    return max(1, min(64, int(_BYTES / (4 * max(held, 1) * area))))


def _runs_alone(net: Network, layer: str, size: tuple[int, int]) -> bool:
    if net.layer(layer).gated or not net.layer(layer).spatial:
        return False
    probe = torch.full((1, net.input_shape[0], *size), 0.5, device=net.device)
    try:
        with torch.no_grad():
            return min(net.forward(probe, layer)[layer].shape[2:]) > 0
    except MicrotomeError:
        return False
