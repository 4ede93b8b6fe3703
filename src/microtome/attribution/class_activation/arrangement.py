"""Arrangement of a layer's values on the picture: maps with channels first or last, or a grid of tokens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from microtome.errors import LayerError
from microtome.network import Network
from microtome.trace import Axes, Layer

MOST_EXTRA = 8  # class, distillation and register tokens beside the patches; the largest known set is five


@dataclass(frozen=True)
class Arrangement:
    """How the values of a layer lie on the picture.

    Attributes
    ----------
    kind : str
        ``"maps"`` (N, C, h, w), ``"channels-last"`` (the picture's axes before the channels) or ``"tokens"``.
    height, width : int
        The grid.
    axes : Axes
        The axes of the images and the units.
    tokens : int
        How many tokens, those without a place on the picture included; 0 for maps.
    first : int
        The first token that stands for a patch; the patches follow row by row.
    """

    kind: str
    height: int
    width: int
    axes: Axes
    tokens: int = 0
    first: int = 0

    def maps(self, value: Tensor, count: int) -> Tensor:
        """The values of ``count`` images as maps (N, C, h, w); tokens without a place are left out.

        Raises
        ------
        LayerError
            When the values are not one set for each image, or are complex numbers.
        """
        if self.kind != "tokens":
            return self.axes.maps(value, count)
        return self.on_grid(self.axes.per_unit(value, count))

    def on_grid(self, tokens: Tensor) -> Tensor:
        """Tokens (N, C, T) as maps (N, C, h, w).

        Examples
        --------
        >>> laid = Arrangement("tokens", 1, 2, Axes(()), tokens=3, first=1)
        >>> laid.on_grid(torch.tensor([[[9.0, 1.0, 2.0]]]))
        tensor([[[[1., 2.]]]])
        """
        patches = tokens[:, :, self.first : self.first + self.height * self.width]
        return patches.reshape(len(tokens), -1, self.height, self.width)


def arrangement(net: Network, name: str) -> Arrangement:
    """How the values of a layer lie on the picture.

    Maps follow from the layer's axes. The places of tokens are measured: single patches of a gray
    image are changed, and the tokens of the layer that change with them give the places.

    Raises
    ------
    LayerError
        When the layer does not exist, holds complex numbers, or its values have no places on the picture.
    """
    layer = net.layer(name)
    layer.check_real()
    if layer.spatial and layer.units and layer.axes.image_axis is not None:
        kind = "maps" if layer.axes.channels_first else "channels-last"
        return Arrangement(kind, *layer.axes.grid, axes=layer.axes)
    found = token_arrangement(net, layer)
    if found is None:
        apart = (
            " It works on separate windows or heads; choose a layer outside the attention."
            if len(layer.shape) > 2
            else ""
        )
        raise LayerError(
            f'a layer with channels, height and width is needed, or one with a token for every patch; "{name}" gives '
            f"{layer.shape} (axes {layer.axes}).{apart} Suitable layers: {_some(net)}."
        )
    return found


def check_in_place(net: Network, name: str, maps: Callable[[Tensor], Tensor]) -> None:
    """Refuse values whose positions are not those of the picture, because the model has flipped or exchanged its parts.

    It is measured with four pictures in which one quarter is changed: the same quarter of the maps has to answer most.
    A layer whose parts answer nearly alike is not refused.

    Parameters
    ----------
    net : Network
        The network.
    name : str
        A layer, or ``"layer@input"``.
    maps : callable
        From the values of five pictures to their maps (5, C, h, w).

    Raises
    ------
    LayerError
        When a map of these values would not lie on the picture.
    """
    known = _IN_PLACE.setdefault(net, {})
    if name not in known:
        pictures = _with_changed_patches(net, (2, 2), [(0, 0), (0, 1), (1, 0), (1, 1)])
        known[name] = _answers_in_place(maps(net.activations(pictures, name, check=False)[name]).float())
    if not known[name]:
        raise LayerError(
            f'the model flips, turns, exchanges or leaves out parts of the picture before "{name}", so that a map of '
            "its values would not lie on the picture. Choose a layer before that, or change the pictures in this way "
            "before they enter the model."
        )


# Whether positions are those of the picture, by the name of a value; measured once.
_IN_PLACE: WeakKeyDictionary[Network, dict[str, bool]] = WeakKeyDictionary()
_CLEARLY = 0.1  # of the logarithm of an answer


def _answers_in_place(maps: Tensor) -> bool:
    change = maps[1:] - maps[:1]
    moved = (change - change.mean((2, 3), keepdim=True)).norm(dim=1)
    by_quarter = nn.functional.adaptive_avg_pool2d(moved[:, None], 2).flatten(1)
    if not bool(by_quarter.any()):
        return True
    if not bool(by_quarter.any(1).all()):  # a quarter of the picture that is not read
        return False
    answer = _answers(by_quarter)
    own = answer.argmax(1)
    elsewhere = own != torch.arange(4, device=own.device)
    lead = (answer.amax(1) - answer.diagonal())[elsewhere]
    exchanged = own.sort().values.tolist() == [0, 1, 2, 3] and bool(elsewhere.any())
    return not (exchanged and bool((lead > _CLEARLY).all()))


def may_be_displaced(net: Network, name: str) -> bool:
    """Whether the positions of a layer of maps have to be measured.

    Its receptive field is hidden by operations that move positions, or its positions read a part of the picture only.
    """
    layer = net.layer(name)
    if min(layer.axes.grid) < 2:
        return False
    if layer.field is None or layer.field.stride == (0, 0):
        return True
    boxes = layer.field.box(0, 0), layer.field.box(layer.axes.grid[0] - 1, layer.axes.grid[1] - 1)
    return any(
        min(boxes[1][2 + axis], length) - max(boxes[0][axis], 0) < _PART * length
        for axis, length in enumerate(net.input_shape[1:])
    )


_PART = 0.6  # of a picture's rows or columns


def token_arrangement(net: Network, layer: Layer) -> Arrangement | None:
    """The grid of a layer of tokens, measured at the first layer with the same tokens; None if there is none."""
    place = layer.axes.tokens
    if place is None or layer.axes.image_axis is None:
        return None
    same = [entry for entry in net.layers.values() if entry.axes.tokens == place] if place.origin else [layer]
    earliest = min(same, key=lambda entry: entry.step)
    for grid in _grids(net, place.size):
        first = _first_patch(net, earliest, place.size, grid)
        if first is not None:
            return Arrangement("tokens", *grid, axes=layer.axes, tokens=place.size, first=first)
    return None


def _grids(net: Network, tokens: int) -> list[tuple[int, int]]:
    """Grids that would leave few tokens without a place: of the network's maps, then of square patches of the image."""
    maps = [entry.axes.grid for entry in net.layers.values() if entry.spatial]
    height, width = net.input_shape[1:]
    square = [(height // side, width // side) for side in range(1, min(height, width) + 1)
              if height % side == 0 and width % side == 0]  # fmt: skip
    known = dict.fromkeys((int(h), int(w)) for h, w in [*maps, *square])
    fitting = [(h, w) for h, w in known if 1 < h * w <= tokens <= h * w + MOST_EXTRA]
    return sorted(fitting, key=lambda grid: tokens - grid[0] * grid[1])  # stable: the network's own maps first


def _first_patch(net: Network, layer: Layer, tokens: int, grid: tuple[int, int]) -> int | None:
    """Which token answers to the first patch, if the tokens are the patches row by row; else None."""
    height, width = grid
    corners = [(0, 0), (0, min(1, width - 1)), (min(1, height - 1), 0), (height - 1, width - 1)]
    pictures = _with_changed_patches(net, grid, corners)
    value = net.activations(pictures, layer.name, check=False)[layer.name]
    value = layer.axes.per_unit(value, len(pictures))
    change = value[1:] - value[:1]
    if tokens > 2:  # an attention moves all tokens nearly alike; the mean of two tokens would hide which one moved
        change = change - change.mean(2, keepdim=True)
    moved = change.norm(dim=1)
    if tokens < height * width or not bool((moved.amax(1) > 0).all()):
        return None
    first = _own(moved)[0]
    expected = [first + row * width + column for row, column in corners]
    return first if _own(moved) == expected and first + height * width <= tokens else None


def _own(moved: Tensor) -> list[int]:
    """The token that changes most with each patch, relative to how much it changes with any patch."""
    found: list[int] = _answers(moved).argmax(1).tolist()
    return found


def _answers(moved: Tensor) -> Tensor:
    """The logarithm of how much each token changes with each patch, relative to how much with any patch."""
    answer = moved.double().clamp(min=1e-30 + 1e-9 * float(moved.max())).log()
    return answer - answer.mean(0, keepdim=True)


def _with_changed_patches(net: Network, grid: tuple[int, int], patches: list[tuple[int, int]]) -> Tensor:
    """A gray picture, and one for each patch in which that patch is noise."""
    low, high = net.pixels or (0.0, 1.0)
    channels, rows, columns = net.input_shape
    pictures = torch.full(
        (len(patches) + 1, channels, rows, columns), (low + high) / 2, dtype=torch.float32, device="cpu"
    )
    noise = (
        torch.rand(
            channels, rows, columns, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu"
        )
        * (high - low)
        + low
    )
    for picture, (row, column) in zip(pictures[1:], patches, strict=True):
        top, bottom = (round((row + step) * rows / grid[0]) for step in (0, 1))
        left, right = (round((column + step) * columns / grid[1]) for step in (0, 1))
        picture[:, top:bottom, left:right] = noise[:, top:bottom, left:right]
    return pictures


def _some(net: Network) -> str:
    names = [entry.name for entry in net.layers.values() if entry.spatial and not entry.is_complex]
    return ", ".join(names[-8:]) if names else "none"
