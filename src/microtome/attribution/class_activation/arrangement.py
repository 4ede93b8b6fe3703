"""Where on the picture does each value of a layer lie? In maps with channels first or last, or in a grid of tokens."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import LayerError
from microtome.network import Network
from microtome.trace import Layer

MOST_EXTRA = 8  # class, distillation and register tokens beside the patches; the largest known set is five


@dataclass(frozen=True)
class Arrangement:
    """How the values of a layer lie on the picture.

    Attributes
    ----------
    kind : str
        ``"maps"`` (N, C, h, w), ``"channels-last"`` (N, h, w, C) or ``"tokens"`` (N, T, C).
    height, width : int
        The grid.
    tokens : int
        How many tokens, those without a place on the picture included; 0 for maps.
    first : int
        The first token that stands for a patch; the patches follow row by row.
    """

    kind: str
    height: int
    width: int
    tokens: int = 0
    first: int = 0

    def maps(self, value: Tensor, count: int) -> Tensor:
        """The values of ``count`` images as maps (N, C, h, w); tokens without a place are left out.

        Raises
        ------
        LayerError
            When the values are not one set for each image.

        Examples
        --------
        >>> laid = Arrangement("tokens", 1, 2, tokens=3, first=1)
        >>> laid.maps(torch.tensor([[[9.0], [1.0], [2.0]]]), 1)
        tensor([[[[1., 2.]]]])
        """
        if self.kind == "tokens":
            value = self.by_image(value, count)
            patches = value[:, self.first : self.first + self.height * self.width].transpose(1, 2)
            return patches.reshape(count, -1, self.height, self.width)
        if len(value) != count:
            raise _split(tuple(value.shape), count)
        return value.movedim(3, 1) if self.kind == "channels-last" else value

    def by_image(self, value: Tensor, count: int) -> Tensor:
        """Tokens as (N, T, C), also where the model keeps them as (T, N, C).

        Raises
        ------
        LayerError
            When they are neither.
        """
        if tuple(value.shape[:2]) == (count, self.tokens):
            return value
        if tuple(value.shape[:2]) == (self.tokens, count):
            return value.transpose(0, 1)
        raise _split(tuple(value.shape), count)


def _split(shape: tuple[int, ...], count: int) -> LayerError:
    return LayerError(
        f"values of {count} images were expected, the layer gives {shape}: it works on windows or heads apart. "
        "Choose a layer outside the attention, such as a block's output."
    )


def arrangement(net: Network, name: str) -> Arrangement:
    """How the values of a layer lie on the picture.

    Tokens are given places by measurement: single patches of a gray picture are changed, and the first
    layer with as many tokens shows which tokens answer.

    Raises
    ------
    LayerError
        When the layer does not exist, or its values have no places on the picture.
    """
    layer = net.layer(name)
    if layer.spatial:
        if _channels_last(net, layer):
            if not _in_proportion(net, *layer.shape[:2]):
                raise LayerError(
                    f'the values of "{name}", {layer.shape}, do not lie as the picture does: it works on windows or '
                    "heads apart. Choose a layer outside the attention, such as a block's output."
                )
            return Arrangement("channels-last", layer.shape[0], layer.shape[1])
        return Arrangement("maps", layer.shape[1], layer.shape[2])
    found = token_arrangement(net, layer)
    if found is None:
        raise LayerError(
            f'a layer with channels, height and width is needed, or one with a token for every patch; "{name}" gives '
            f"{layer.shape}. Layers that serve: {_some(net)}."
        )
    return found


def token_arrangement(net: Network, layer: Layer) -> Arrangement | None:
    """The grid of a layer of tokens; None where it has none."""
    if len(layer.shape) != 2:
        return None
    tokens = layer.shape[0] if layer.shape[0] > 1 else _leading(net, layer.name)
    rows = [entry for entry in net.layers.values() if len(entry.shape) == 2 and entry.shape[0] == tokens]
    if tokens == 1 or not rows:
        return None
    for grid in _grids(net, tokens):
        first = _first_patch(net, rows[0].name, tokens, grid)
        if first is not None:
            return Arrangement("tokens", *grid, tokens=tokens, first=first)
    return None


def _leading(net: Network, name: str) -> int:
    """The first axis of a value for one image: the tokens, where the model keeps them as (T, N, C)."""
    return len(net.activations(_with_changed_patches(net, (1, 1), []), name, check=False)[name])


def _grids(net: Network, tokens: int) -> list[tuple[int, int]]:
    """Grids that would leave few tokens without a place: of the network's maps, then of square patches of the image."""
    maps = [entry.shape[1:] for entry in net.layers.values() if entry.spatial]
    height, width = net.input_shape[1:]
    square = [(height // side, width // side) for side in range(1, min(height, width) + 1)
              if height % side == 0 and width % side == 0]  # fmt: skip
    known = dict.fromkeys((int(h), int(w)) for h, w in [*maps, *square])
    fitting = [(h, w) for h, w in known if 1 < h * w <= tokens <= h * w + MOST_EXTRA]
    return sorted(fitting, key=lambda grid: tokens - grid[0] * grid[1])  # stable: the network's own maps first


def _first_patch(net: Network, name: str, tokens: int, grid: tuple[int, int]) -> int | None:
    """Which token answers to the first patch, if the tokens are the patches row by row; else None."""
    height, width = grid
    corners = [(0, 0), (0, min(1, width - 1)), (min(1, height - 1), 0), (height - 1, width - 1)]
    value = net.activations(_with_changed_patches(net, grid, corners), name, check=False)[name]
    if tuple(value.shape[:2]) != (len(corners) + 1, tokens):
        return None
    moved = (value[1:] - value[:1]).abs().sum(2)
    first = int(moved[0].argmax())
    expected = [first + row * width + column for row, column in corners]
    answers = moved.argmax(1).tolist() == expected and bool((moved.amax(1) > 0).all())
    return first if answers and first + height * width <= tokens else None


def _with_changed_patches(net: Network, grid: tuple[int, int], patches: list[tuple[int, int]]) -> Tensor:
    """A gray picture, and one for each patch in which that patch is noise."""
    low, high = net.pixels or (0.0, 1.0)
    channels, rows, columns = net.input_shape
    pictures = torch.full((len(patches) + 1, channels, rows, columns), (low + high) / 2)
    noise = torch.rand(channels, rows, columns, generator=torch.Generator().manual_seed(0)) * (high - low) + low
    for picture, (row, column) in zip(pictures[1:], patches, strict=True):
        top, bottom = (round((row + step) * rows / grid[0]) for step in (0, 1))
        left, right = (round((column + step) * columns / grid[1]) for step in (0, 1))
        picture[:, top:bottom, left:right] = noise[:, top:bottom, left:right]
    return pictures


def _in_proportion(net: Network, height: int, width: int) -> bool:
    """Whether a grid has the proportions of the picture, up to a last row or column that is not full."""
    rows, columns = net.input_shape[1:]
    return abs(height * columns - width * rows) < max(rows, columns)


# -- channels last -------------------------------------------------------------------------------------------------

_FIRST = frozenset(("conv2d", "batch_norm", "max_pool2d", "avg_pool2d", "group_norm", "adaptive_avg_pool2d"))


def _channels_last(net: Network, layer: Layer) -> bool:
    """Whether a layer of three axes is (h, w, C): a linear layer or layer norm made it so, and nothing moved it."""
    last: dict[str, bool] = {}
    for entry in net.layers.values():
        if len(entry.shape) != 3 or not entry.leaf:
            continue
        kind = operator_of(entry)
        if kind in _FIRST:
            last[entry.operation] = last[entry.name] = False
        elif kind == "linear" or (kind == "layer_norm" and entry.parameters in (entry.shape[2], 2 * entry.shape[2])):
            last[entry.operation] = last[entry.name] = True
        else:
            last[entry.operation] = last[entry.name] = _inherited(net, entry, last)
    return last.get(layer.operation, _inherited(net, layer, last))


def _inherited(net: Network, layer: Layer, last: dict[str, bool]) -> bool:
    read = (net.layers[name] for name in layer.inputs if name in net.layers)
    return any(last.get(entry.name, False) for entry in read if entry.shape == layer.shape)


def operator_of(layer: Layer) -> str:
    """The operator whose value a layer hands on: ``"softmax"`` for ``"attn/softmax.1"``."""
    return layer.operation.rpartition("/")[2].partition(".")[0]


def _some(net: Network) -> str:
    names = [entry.name for entry in net.layers.values() if entry.spatial]
    return ", ".join(names[-8:]) if names else "none"
