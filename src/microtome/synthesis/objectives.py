"""Objectives: functions of layer values to maximise, one number per image, with addition and multiplication."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network

Score = Callable[[Mapping[str, Tensor], Tensor], Tensor]

REDUCTIONS = ("mean", "positive", "max", "center")


@dataclass(frozen=True, eq=False)
class Objective:
    """One number per image, for several problems that are solved in one batch.

    ``+``, ``-`` and ``*`` combine objectives with numbers and with each other, image by image. An
    objective with a single row combines with any number of rows.

    Attributes
    ----------
    layers : tuple of str
        The layers whose values ``score`` receives; ``"logits"`` for class scores.
    rows : int
        Number of problems.
    score : function
        ``(values by layer, row of each image) -> (n,)``.

    Examples
    --------
    >>> both = channel("conv", [0, 1]) - 2 * channel("conv", 0, reduction=(0, 0))
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
        """Negate the objective, to minimise it."""
        return self * -1.0

    __radd__ = __add__
    __rmul__ = __mul__


Reduction = str | tuple[int, ...]


def channel(layer: str, channels: int | Sequence[int], *, reduction: Reduction = "mean", sign: int = 1) -> Objective:
    """The value of each channel, reduced over the positions of its map.

    Parameters
    ----------
    layer : str
        The layer.
    channels : int or sequence of int
        One problem each.
    reduction : str or tuple of int
        ``"mean"``, ``"positive"`` (mean of the positive part, which a following ReLU passes),
        ``"max"``, ``"center"``, or a position: (i, j) of a map, (t,) of tokens.
    sign : int
        -1 negates the values before the reduction.
    """
    index = torch.as_tensor([channels] if isinstance(channels, int) else list(channels), dtype=torch.long, device="cpu")

    at = _on_device(index)

    def score(values: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        maps = values[layer]
        own = maps[torch.arange(len(rows), device=maps.device), at(maps.device)[rows]]
        return reduced(sign * own, _known(reduction))

    return Objective((layer,), len(index), score)


def direction(layer: str, vectors: Tensor, *, reduction: Reduction = "mean", sign: int = 1) -> Objective:
    """The activation vector's length along each direction, |a| cos(a, v), reduced over positions.

    Parameters
    ----------
    layer : str
        The layer.
    vectors : Tensor
        (rows, channels), or one direction (channels,), of any length.
    reduction : str or tuple of int
        As for ``channel``.
    sign : int
        -1 negates the values before the reduction.

    Raises
    ------
    InputError
        When a direction is zero.
    """
    rows_of_vectors = vectors[None] if vectors.dim() == 1 else vectors
    lengths = rows_of_vectors.norm(dim=-1)
    if rows_of_vectors.dim() != 2 or not bool((lengths.gt(0) & lengths.isfinite()).all()):
        raise InputError(f"directions must be finite, non-zero rows, (n, channels), got {tuple(vectors.shape)}.")
    unit = rows_of_vectors / rows_of_vectors.norm(dim=1, keepdim=True)

    def score(values: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        maps = values[layer]
        along = torch.einsum("nc...,nc->n...", maps, unit.to(maps)[rows])
        return reduced(sign * along, _known(reduction))

    return Objective((layer,), len(unit), score)


def logit(classes: int | Sequence[int], *, sign: int = 1) -> Objective:
    """The score of each class before softmax, which would mix in all other classes."""
    index = torch.as_tensor([classes] if isinstance(classes, int) else list(classes), dtype=torch.long, device="cpu")

    at = _on_device(index)

    def score(values: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        logits = values["logits"]
        return sign * logits[torch.arange(len(rows), device=logits.device), at(logits.device)[rows]]

    return Objective(("logits",), len(index), score)


def _on_device(index: Tensor) -> Callable[[torch.device], Tensor]:
    """An index on any device, copied there once: a copy to a GPU waits for running work."""
    return lru_cache(maxsize=None)(index.to)


def arranged(net: Network, layer: str, value: Tensor, count: int) -> Tensor:
    """A layer's value in the shape of objectives: (n, C, h, w), (n, C, positions) or (n, C); logits unchanged.

    Raises
    ------
    LayerError
        When the value has no axis of images, or holds complex numbers.
    """
    if layer == "logits":
        return value
    net.layer(layer).check_real()
    axes = net.layer(layer).axes
    if not axes.units:
        return axes.per_image(value, count)
    maps = axes.maps(value, count)
    if axes.spatial:
        return maps
    return maps[..., 0] if maps.shape[2] > 1 else maps[..., 0, 0]


def reduced(own: Tensor, reduction: Reduction) -> Tensor:
    """One number for each map (n, h, w), (n, tokens) or (n,)."""
    if isinstance(reduction, tuple):
        return at_position(own, reduction)
    if own.dim() == 1:  # neurons: nothing to reduce
        return own
    if reduction == "center":
        return at_position(own, tuple(size // 2 for size in own.shape[1:]))
    flat = own.flatten(1)
    if reduction == "max":
        return flat.amax(1)
    return flat.mean(1) if reduction == "mean" else flat.clamp(min=0).mean(1)


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


def _known(reduction: Reduction) -> Reduction:
    if isinstance(reduction, str) and reduction not in REDUCTIONS:
        raise InputError(f'reduction must be one of {", ".join(REDUCTIONS)}; got "{reduction}".')
    return reduction


def _combined(a: Objective, b: Objective | float, operation: Callable[[Tensor, Tensor], Tensor]) -> Objective:
    if not isinstance(b, Objective):
        constant = torch.tensor(
            float(b), dtype=torch.float32, device="cpu"
        )  # a scalar tensor combines with every device
        return Objective(a.layers, a.rows, lambda values, rows: operation(a.score(values, rows), constant))
    if a.rows != b.rows and 1 not in (a.rows, b.rows):
        raise InputError(
            f"objectives of {a.rows} and {b.rows} rows cannot be combined; the numbers must be equal, or one of them 1."
        )

    def score(values: Mapping[str, Tensor], rows: Tensor) -> Tensor:
        parts = [one.score(values, rows if one.rows > 1 else torch.zeros_like(rows)) for one in (a, b)]
        return operation(*parts)

    return Objective(tuple(dict.fromkeys((*a.layers, *b.layers))), max(a.rows, b.rows), score)
