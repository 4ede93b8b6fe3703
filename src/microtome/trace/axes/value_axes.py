"""Axes of a layer's value: which elements belong to which image and to which unit."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple

import torch
from torch import Tensor

from microtome.errors import LayerError

IMAGE, UNIT, ROW, COLUMN, PLACE = "image", "unit", "row", "column", "place"


class Factor(NamedTuple):
    """One factor of the length of an axis: ``(N, windows)`` folded into one axis has two.

    Attributes
    ----------
    role : str
        ``"image"``, ``"unit"``, ``"row"`` or ``"column"`` of the picture, ``"place"`` for other positions.
    size : int
        The size; 0 stands for the number of images.
    step : int
        For rows and columns that were cut into windows: the distance in rows between two neighbours.
    origin : int
        For other positions: the operation that arranged them. Layers of the same origin and size have the same
        positions in the same order; 0 if unknown, negative for frequencies.
    """

    role: str
    size: int
    step: int = 1
    origin: int = 0


Axis = tuple[Factor, ...]


@dataclass(frozen=True)
class Axes:
    """The arrangement of the elements of a layer's value.

    Attributes
    ----------
    factors : tuple of tuple of Factor
        For each axis of the value the sizes folded into it, the slowest first.
    mixed : bool
        Whether the values of one image depend on the others in the batch, as with batch statistics.
    measured : bool
        Whether the images were found by running batches of different size; False if the model accepts only one size, so
        that the axes follow from the operators alone.

    Examples
    --------
    >>> tokens = Axes(((Factor(PLACE, 5),), (Factor(IMAGE, 0),), (Factor(UNIT, 3),)))
    >>> str(tokens), tokens.units, tokens.shape
    ('5 N C', 3, (5, 3))
    >>> tokens.per_image(torch.zeros(5, 2, 3), 2).shape, tokens.per_unit(torch.zeros(5, 2, 3), 2).shape
    (torch.Size([2, 5, 3]), torch.Size([2, 3, 5]))
    """

    factors: tuple[Axis, ...]
    mixed: bool = False
    measured: bool = True

    @cached_property
    def image_axis(self) -> int | None:
        """The axis that holds the images, alone or with windows or heads; None where a value belongs to no image."""
        return next((k for k, axis in enumerate(self.factors) if any(f.role == IMAGE for f in axis)), None)

    @cached_property
    def unit_axis(self) -> int | None:
        """The first axis that holds units; None where there are none."""
        return next((k for k, axis in enumerate(self.factors) if any(f.role == UNIT for f in axis)), None)

    @cached_property
    def units(self) -> int:
        """The number of units; 0 if the value has none."""
        found = [f.size for axis in self.factors for f in axis if f.role == UNIT]
        return math.prod(found) if found else 0

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Shape of one image's value, as ``per_image`` gives it."""
        sizes = []
        for axis in self.factors:
            if any(f.role == IMAGE for f in axis):
                rest = [f.size for f in axis if f.role != IMAGE]
                sizes += [math.prod(rest)] if rest else []
            else:
                sizes.append(math.prod(f.size for f in axis))
        return tuple(sizes)

    @cached_property
    def tokens(self) -> Factor | None:
        """The positions, if they all lie on one axis without the units and there are several."""
        found = [
            axis for axis in self.factors if axis and all(f.role not in (IMAGE, UNIT) and f.size > 1 for f in axis)
        ]
        return found[0][0] if len(found) == 1 and len(found[0]) == 1 and len(self.shape) == 2 and self.units else None

    @cached_property
    def grid(self) -> tuple[int, int]:
        """Rows and columns of a unit's positions: those of the picture if they exist, else (positions, 1)."""
        rows, columns = self._picture()
        if rows is not None and columns is not None and rows < columns:
            return self._size(rows), self._size(columns)
        return math.prod(f.size for axis in self.factors for f in axis if f.role not in (IMAGE, UNIT)), 1

    @cached_property
    def spatial(self) -> bool:
        """Whether the positions are the rows and columns of the picture, each on an axis of its own."""
        rows, columns = self._picture()
        return rows is not None and columns is not None and rows < columns

    @property
    def channels_first(self) -> bool:
        """Whether the value is laid out (N, C, H, W)."""
        return self.spatial and self.image_axis == 0 and self.unit_axis == 1 and len(self.factors) == 4

    def per_image(self, value: Tensor, count: int) -> Tensor:
        """The value with the images first, (count, ...); windows and heads of an image keep their axis.

        Parameters
        ----------
        value : Tensor
            The layer's value for ``count`` images.
        count : int
            Number of images.

        Raises
        ------
        LayerError
            When the value belongs to no image, or to another number of images.
        """
        place = self.image_axis
        if place is None:
            raise LayerError(f"a value of shape {tuple(value.shape)} belongs to no single image of the batch.")
        outer, inner = self.around
        if value.dim() != len(self.factors) or value.shape[place] % count or (count * outer * inner) == 0:
            raise self._misfit(value, count)
        rest = value.shape[place] // count
        if rest == 1:
            return value.movedim(place, 0)
        if inner != 1 and outer != 1 and rest != outer * inner:
            raise self._misfit(value, count)
        outer, inner = (outer, rest // outer) if inner != 1 else (rest, 1)
        split: Tensor = value.unflatten(place, (outer, count, inner)).movedim(place + 1, 0)
        return split.flatten(place + 1, place + 2)

    def per_unit(self, value: Tensor, count: int) -> Tensor:
        """The value as (count, units, positions), positions in the order of the axes; integers and booleans as floats.

        Raises
        ------
        LayerError
            When the value has no units, belongs to no image, or holds complex numbers.
        """
        if value.is_complex():
            raise LayerError(
                "a layer of real numbers is needed; this one holds complex numbers, which have no sign. Choose a layer "
                "before the transform, or one that holds the size or the real part of these numbers."
            )
        order, sizes = self._split(value, count)
        numbers = value if value.is_floating_point() else value.to(torch.float32)
        flat = numbers.reshape(sizes)
        moved = flat.permute(order)
        return moved.reshape(count, self.units, -1)

    def maps(self, value: Tensor, count: int) -> Tensor:
        """The value as (count, units, rows, columns): other positions lie in one column, neurons have one.

        A view of the value wherever its layout admits one.

        Raises
        ------
        LayerError
            When the value has no units, belongs to no image, or holds complex numbers.
        """
        units = self.per_unit(value, count)
        rows, columns = self._picture()
        if rows is None or columns is None or rows > columns:
            return units[..., None]
        return units.reshape(count, -1, value.shape[rows], value.shape[columns])

    def from_units(self, value: Tensor, shape: tuple[int, ...]) -> Tensor:
        """The inverse of ``per_unit``: (count, units, positions) arranged as the layer has it, ``shape``."""
        count = len(value)
        order, sizes = self._split(value.new_empty(1).expand(shape), count)
        back = [order.index(axis) for axis in range(len(order))]
        return value.reshape([sizes[axis] for axis in order]).permute(back).reshape(shape)

    def join(self, parts: list[Tensor], counts: list[int]) -> Tensor:
        """Join the values of several batches as the model would return them for one large batch.

        Raises
        ------
        LayerError
            When the value belongs to no image and differs between batches, or does not hold all images of a batch.
        """
        place = self.image_axis
        for part, count in zip(parts, counts, strict=True):
            if place is not None and (part.dim() != len(self.factors) or part.shape[place] % count):
                raise self._misfit(part, count)
        if len(parts) == 1:
            return parts[0]
        if place is None:
            if any(part.shape != parts[0].shape or not torch.equal(part, parts[0]) for part in parts[1:]):
                raise LayerError("a value that belongs to no single image differs between batches; use one batch.")
            return parts[0]
        outer, _ = self.around
        if outer == 1:
            return torch.cat(parts, place)
        split = [part.unflatten(place, (outer, count, -1)) for part, count in zip(parts, counts, strict=True)]
        return torch.cat(split, place + 1).flatten(place, place + 2)

    def __str__(self) -> str:
        """One word for each axis: N images, C units, numbers for positions; folded ones in brackets."""
        words = []
        for axis in self.factors:
            inside = [{IMAGE: "N", UNIT: "C"}.get(f.role, str(f.size)) for f in axis] or ["1"]
            words.append(inside[0] if len(inside) == 1 else f"({' '.join(inside)})")
        return " ".join(words)

    # -- inside ----------------------------------------------------------------------------------------------------

    def _split(self, value: Tensor, count: int) -> tuple[list[int], list[int]]:
        """Order (image, units, positions) of the factors, and their sizes for this value."""
        if self.image_axis is None or self.unit_axis is None:
            what = "belongs to no image" if self.image_axis is None else "has no units"
            raise LayerError(f"a value of shape {tuple(value.shape)} {what}.")
        if value.dim() != len(self.factors):
            raise self._misfit(value, count)
        sizes: list[int] = []
        roles: list[str] = []
        for length, axis in zip(value.shape, self.factors, strict=True):
            found = [count if f.role == IMAGE else f.size for f in axis] or [1]
            kinds = [f.role for f in axis] or [PLACE]
            places = [k for k, kind in enumerate(kinds) if kind not in (IMAGE, UNIT)]
            if math.prod(found) != length:  # images of another size have other positions
                others = math.prod(size for k, size in enumerate(found) if k not in places)
                if len(places) != 1 or length % others:
                    raise self._misfit(value, count)
                found[places[0]] = length // others
            sizes += found
            roles += kinds
        rank = {IMAGE: 0, UNIT: 1}
        order = sorted(range(len(roles)), key=lambda k: rank.get(roles[k], 2))
        return order, sizes

    @property
    def around(self) -> tuple[int, int]:
        """Sizes outside and inside the image factor along its axis: (1, windows) for (N, windows)."""
        axis = self.factors[self.image_axis or 0]
        at = next(k for k, f in enumerate(axis) if f.role == IMAGE)
        return math.prod(f.size for f in axis[:at]), math.prod(f.size for f in axis[at + 1 :])

    def _picture(self) -> tuple[int | None, int | None]:
        """The axes of the picture's rows and columns, where nothing else holds positions."""
        found: dict[str, int] = {}
        for k, axis in enumerate(self.factors):
            for f in axis:
                if f.role in (ROW, COLUMN):
                    if f.role in found or len(axis) > 1:
                        return None, None
                    found[f.role] = k
                elif f.role == PLACE and f.size > 1:
                    return None, None
        return found.get(ROW), found.get(COLUMN)

    def _size(self, axis: int) -> int:
        return math.prod(f.size for f in self.factors[axis])

    def _misfit(self, value: Tensor, count: int) -> LayerError:
        return LayerError(
            f"a value of {count} images, arranged as {self}, was expected; got shape {tuple(value.shape)}. "
            "The model arranges its values differently from when it was read."
        )
