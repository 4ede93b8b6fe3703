"""What is to be made large? One number per image, read from the values of layers; objectives add and multiply."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network

Score = Callable[[Mapping[str, Tensor], Tensor], Tensor]

REDUCTIONS = ("mean", "positive", "max", "center")


@dataclass(frozen=True, eq=False)
class Objective:
    """One number per image, for a list of problems solved side by side.

    ``+``, ``-`` and ``*`` combine objectives with numbers and with each other, image by image; one
    with a single row goes with any number of rows.

    Attributes
    ----------
    layers : tuple of str
        The layers it reads; ``"logits"`` for class scores.
    rows : int
        How many problems there are.
    score : function
        ``(values by layer, row of each image) -> (n,)``.

    Examples
    --------
    >>> both = channel("conv", [0, 1]) - 2 * channel("conv", 0, of=(0, 0))
    >>> values = {"conv": torch.tensor([[[[1.0, 3.0]], [[5.0, 7.0]]]]).expand(2, 2, 1, 2)}
    >>> both.rows, both.score(values, torch.tensor([0, 1]))
    (2, tensor([0., 4.]))
    """

    layers: tuple[str, ...]
    rows: int
    score: Score

    def __add__(self, other: Objective | float) -> Objective:
        """Add another objective or a number."""
        return _combined(self, other, torch.add)

    def __mul__(self, other: Objective | float) -> Objective:
        """Multiply with another objective or a number."""
        return _combined(self, other, torch.mul)

    def __sub__(self, other: Objective | float) -> Objective:
        """Subtract another objective or a number."""
        return self + (-1.0) * other

    def __neg__(self) -> Objective:
        """Turn the objective over: what lowers it most."""
        return self * -1.0

    __radd__ = __add__
    __rmul__ = __mul__


Where = str | tuple[int, ...]


def channel(layer: str, channels: int | Sequence[int], *, of: Where = "mean", sign: int = 1) -> Objective:
    """Each channel's value reduced over the positions of its map.

    Parameters
    ----------
    layer : str
        The layer.
    channels : int or sequence of int
        One problem each.
    of : str or tuple of int
        ``"mean"``, ``"positive"`` (mean of the positive part, which a following ReLU lets through),
        ``"max"``, ``"center"``, or a position: (i, j) of a map, (t,) of tokens.
    sign : int
        -1 turns the values over before they are reduced.
    """
    index = torch.as_tensor([channels] if isinstance(channels, int) else list(channels), dtype=torch.long)

    def score(values: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        maps = values[layer]
        own = maps[torch.arange(len(rows), device=maps.device), index.to(maps.device)[rows]]
        return reduced(sign * own, _reduction(of))

    return Objective((layer,), len(index), score)


def direction(layer: str, vectors: Tensor, *, of: Where = "mean", sign: int = 1) -> Objective:
    """The activation vector's length along each direction, |a| cos(a, v), reduced over positions.

    Parameters
    ----------
    layer : str
        The layer.
    vectors : Tensor
        (rows, channels), or one direction (channels,); only the direction counts, not the length.
    of : str or tuple of int
        As for ``channel``.
    sign : int
        -1 turns the values over before they are reduced.

    Raises
    ------
    InputError
        When a direction is zero.
    """
    given = vectors[None] if vectors.dim() == 1 else vectors
    if given.dim() != 2 or not bool(given.norm(dim=1).gt(0).all()):
        raise InputError(f"directions are non-zero rows of shape (n, channels), got {tuple(vectors.shape)}.")
    unit = given / given.norm(dim=1, keepdim=True)

    def score(values: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        maps = values[layer]
        along = torch.einsum("nc...,nc->n...", maps, unit.to(maps)[rows])
        return reduced(sign * along, _reduction(of))

    return Objective((layer,), len(unit), score)


def logit(classes: int | Sequence[int], *, sign: int = 1) -> Objective:
    """Each class's score before softmax, which would mix in all other classes."""
    index = torch.as_tensor([classes] if isinstance(classes, int) else list(classes), dtype=torch.long)

    def score(values: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        logits = values["logits"]
        return sign * logits[torch.arange(len(rows), device=logits.device), index.to(logits.device)[rows]]

    return Objective(("logits",), len(index), score)


def arranged(net: Network, layer: str, value: Tensor, count: int) -> Tensor:
    """A layer's value as objectives read it: (n, C, h, w), (n, C, positions) or (n, C); scores as they are.

    Raises
    ------
    LayerError
        When the value belongs to no image.
    """
    if layer == "logits":
        return value
    axes = net.layer(layer).axes
    if not axes.units:
        return axes.per_image(value, count)
    maps = axes.maps(value, count)
    if axes.spatial:
        return maps
    return maps[..., 0] if maps.shape[2] > 1 else maps[..., 0, 0]


def reduced(own: Tensor, of: Where) -> Tensor:
    """One number for each map (n, h, w), (n, tokens) or (n,)."""
    if isinstance(of, tuple):
        return at_position(own, of)
    if own.dim() == 1:  # neurons: nothing to reduce
        return own
    if of == "center":
        return at_position(own, tuple(size // 2 for size in own.shape[1:]))
    flat = own.flatten(1)
    if of == "max":
        return flat.amax(1)
    return flat.mean(1) if of == "mean" else flat.clamp(min=0).mean(1)


def at_position(own: Tensor, position: tuple[int, ...]) -> Tensor:
    """The value of each map (n, h, w) or (n, tokens) at one position.

    Raises
    ------
    InputError
        When the position lies outside the map.
    """
    sizes = tuple(own.shape[1:])
    if len(position) != len(sizes) or any(not 0 <= at < size for at, size in zip(position, sizes, strict=True)):
        raise InputError(f"a position inside {sizes} was expected, got {tuple(position)}.")
    index: tuple[slice | int, ...] = (slice(None), *position)
    return own[index]


def _reduction(of: Where) -> Where:
    if isinstance(of, str) and of not in REDUCTIONS:
        raise InputError(f'of is one of {", ".join(REDUCTIONS)}; got "{of}".')
    return of


def _combined(a: Objective, b: Objective | float, operation: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    if not isinstance(b, Objective):
        number = float(b)
        return Objective(a.layers, a.rows, lambda values, rows: operation(a.score(values, rows), torch.tensor(number)))
    if a.rows != b.rows and 1 not in (a.rows, b.rows):
        raise InputError(f"objectives of {a.rows} and {b.rows} rows do not go together; one of them may have one row.")

    def score(values: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        parts = [one.score(values, rows if one.rows > 1 else torch.zeros_like(rows)) for one in (a, b)]
        return operation(*parts)

    return Objective(tuple(dict.fromkeys((*a.layers, *b.layers))), max(a.rows, b.rows), score)
