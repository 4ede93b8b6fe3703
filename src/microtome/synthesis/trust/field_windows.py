"""Windows of a picture that contain the receptive field of one position of a layer, for cheaper passes."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from microtome.errors import MicrotomeError
from microtome.network import Network
from microtome.trace.receptive_fields import ReceptiveField

__all__ = ["FieldWindow", "field_window"]

_WORTH = 0.5  # largest share of the picture's pixels: larger windows save too little

Place = tuple[int, int]


@dataclass(frozen=True)
class FieldWindow:
    """A window of one size for all positions of a layer.

    It begins at a multiple of the layer's stride and lies inside the picture. So it ends at the picture's border
    wherever the receptive field exceeds the picture, and padding has the same effect as in the whole picture.

    Attributes
    ----------
    size : (int, int)
        Height and width in pixels.
    picture : (int, int)
        Height and width of the whole picture.
    grid : (int, int)
        Height and width of the layer's map of a window.
    stride : (int, int)
        Pixels between neighbouring positions.
    field : ReceptiveField
        Receptive field of the layer.
    """

    size: Place
    picture: Place
    grid: Place
    stride: Place
    field: ReceptiveField

    def network(self, net: Network) -> Network:
        """The network with the input size of the window."""
        smaller = copy.copy(net)
        smaller.input_shape = (net.input_shape[0], *self.size)
        return smaller

    def cut(self, picture: Tensor, place: Place) -> tuple[Tensor, Place]:
        """The window (C, h, w) of a picture (C, H, W) for a position, and the position in the layer's map of it."""
        starts = [
            min(max(corner, 0) // stride * stride, whole - length)
            for corner, stride, whole, length in zip(
                self.field.box(*place)[:2], self.stride, self.picture, self.size, strict=True
            )
        ]
        local = tuple(at - start // stride for at, start, stride in zip(place, starts, self.stride, strict=True))
        top, left = starts
        return picture[:, top : top + self.size[0], left : left + self.size[1]], (local[0], local[1])


_KNOWN: WeakKeyDictionary[Network, dict[str, FieldWindow | None]] = WeakKeyDictionary()


def field_window(net: Network, layer: str) -> FieldWindow | None:
    """The window of a layer; None if the whole picture is needed, or is hardly larger.

    Parameters
    ----------
    net : Network
        The network.
    layer : str
        A layer with height and width.

    Notes
    -----
    A model may pad depending on its input size, or read the whole input. So values of the layer in windows
    at the corners and in the middle of a picture of noise are compared with those in the whole picture, once for each
    layer. Cost: one pass over that picture and three over windows.
    """
    known = _KNOWN.setdefault(net, {})
    if layer not in known:
        known[layer] = _proved(net, layer)
    return known[layer]


def _proved(net: Network, layer: str) -> FieldWindow | None:
    info, picture = net.layer(layer), net.input_shape[1:]
    if not info.spatial or info.field is None or info.gated or any(step % 1 for step in info.field.stride):
        return None
    stride = (int(info.field.stride[0]), int(info.field.stride[1]))
    pairs = list(zip(info.field.size, stride, picture, strict=True))
    size = tuple(-(-(field + step - 1) // step) * step for field, step, _ in pairs)
    if size[0] * size[1] > _WORTH * picture[0] * picture[1] or any(whole % step for _, step, whole in pairs):
        return None
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(net.input_shape, generator=generator, dtype=torch.float32, device="cpu").to(
        net.device, net.dtype
    )
    whole = _maps(net, layer, noise)
    if whole is None:
        return None
    rows, columns = whole.shape[1:]
    found: FieldWindow | None = None
    for place in ((0, 0), (rows // 2, columns // 2), (rows - 1, columns - 1)):
        window = FieldWindow((size[0], size[1]), (picture[0], picture[1]), (0, 0), stride, info.field)
        part, local = window.cut(noise, place)
        value = _maps(window.network(net), layer, part)
        if value is None or any(not 0 <= at < side for at, side in zip(local, value.shape[1:], strict=True)):
            return None
        own, true = value[:, local[0], local[1]], whole[:, place[0], place[1]]
        if float((own - true).abs().max()) > 1e-4 * max(float(true.abs().max()), 1e-12):
            return None
        found = FieldWindow(window.size, window.picture, (value.shape[1], value.shape[2]), stride, info.field)
    return found


def _maps(net: Network, layer: str, picture: Tensor) -> Tensor | None:
    """A layer's maps (units, h, w) of one picture; None if the network does not take this size."""
    try:
        value = net.run(picture[None], record=layer, output_layer=layer, check=False).value[layer]
        maps: Tensor = net.layer(layer).axes.maps(value, 1)[0]
    except MicrotomeError:
        return None
    return maps if maps.dim() == 3 and maps.numel() else None
