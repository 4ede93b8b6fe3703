"""Tables of top patches: the results for one layer and for several layers."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from microtome.data import Adapter, Dataset, Expected, adapt
from microtome.errors import InputError, LayerError, nearest
from microtome.results import Result
from microtome.trace import ReceptiveField
from microtome.units.streaming import response_distribution
from microtome.units.streaming.crops import Box, crop_box, cut, field_box

P = TypeVar("P", bound="Patches")

SELECTIONS = ("top", "low", "binned")


@dataclass(frozen=True, eq=False, kw_only=True)
class Patches(Result):
    """Base of results that refer to patches of a data set's pictures, by positions of one layer.

    The result holds a reference to the data set, not copies of pictures: a crop reads ``dataset[image]``.
    A result from a file has no data set; ``with_images`` adds it.
    """

    layer: str
    picture: tuple[int, int, int]
    size: tuple[int, int] | None
    stride: tuple[float, float] | None
    offset: tuple[int, int] | None
    gated: bool

    @property
    def field(self) -> ReceptiveField | None:
        """The layer's receptive field without global gates; None if it is unknown."""
        if self.size is None or self.stride is None or self.offset is None:
            return None
        return ReceptiveField(_two(self.size), (self.stride[0], self.stride[1]), _two(self.offset))

    @property
    def dataset(self) -> Dataset:
        """The data set of the pass.

        Raises
        ------
        InputError
            When the result comes from a file, and ``with_images`` was not called.
        """
        dataset: Dataset = self.pictures.dataset
        return dataset

    @property
    def pictures(self) -> Adapter:
        """The adapter that reads the data set; a picture that has changed since the pass is an error.

        Raises
        ------
        InputError
            When the result comes from a file, and ``with_images`` was not called.
        """
        pictures: Adapter | None = self.__dict__.get("_pictures")
        if pictures is None:
            raise InputError("this result was loaded from a file, which holds no images; use .with_images(dataset).")
        return pictures

    def with_images(self: P, dataset: Dataset) -> P:
        """A copy of the result with the data set of its pass."""
        copy = dataclasses.replace(self)
        pictures = dataset if isinstance(dataset, Adapter) else adapt(dataset, Expected(self.picture))
        object.__setattr__(copy, "_pictures", pictures)
        return copy

    def box_at(self, position: tuple[int, int]) -> Box:
        """The receptive field of a position: top, left, bottom, right (exclusive). It may exceed the picture."""
        return field_box(self.field, position, (self.picture[1], self.picture[2]))

    def crop_box_at(self, position: tuple[int, int]) -> Box:
        """The crop of a position: along each axis its receptive field, or the whole picture if the field is larger."""
        return crop_box(self.box_at(position), (self.picture[1], self.picture[2]))

    def crop_at(self, image: int, position: tuple[int, int]) -> Tensor:
        """The pixels (C, h, w) of the crop of a position, in the network's range.

        Pixels outside the picture are gray. Without an image (-1) all pixels are gray.
        """
        box = self.crop_box_at(position)
        if image < 0:
            return torch.full(
                (self.picture[0], box[2] - box[0], box[3] - box[1]),
                self.pictures.gray,
                dtype=torch.float32,
                device="cpu",
            )
        images, _ = self.pictures.fetch(torch.tensor([image], device="cpu"))
        return cut(images[0], box, self.pictures.gray)


def geometry(layer: Any, picture: tuple[int, int, int]) -> dict[str, Any]:
    """The fields of ``Patches`` that come from a layer."""
    field = layer.field
    return {
        "layer": layer.name,
        "picture": picture,
        "size": None if field is None else field.size,
        "stride": None if field is None else field.stride,
        "offset": None if field is None else field.offset,
        "gated": layer.gated,
    }


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerPatches(Patches, drawing="units.unit_figures:layer_patches"):
    """Top patches of each unit of one layer, and the distribution of its activations over the data.

    Positions are (row, column) in the layer's own grid. ``rank`` 0 is the strongest. If the data set
    has fewer than k images, ``image`` is -1 and ``activation`` is NaN for the missing ranks.

    Attributes
    ----------
    layer, kind : str
        Name and kind of the layer.
    grid : (int, int)
        Rows and columns of its positions.
    image, position, activation : Tensor
        (units, k), (units, k, 2), (units, k): the highest activations of each unit, highest first.
    low_image, low_position, low_activation : Tensor
        Like the above: the lowest activations of each unit, lowest first.
    binned_image, binned_position, binned_activation : Tensor
        (units, bins): one image from each quantile bin of the per-image maximum, highest bin first.
    mean, std, highest, lowest : Tensor
        (units,) over all images and positions.
    active : Tensor
        (units,) share of images and positions above zero: the unit's sparsity.
    dead : Tensor
        (units,) bool. For a layer without negative values, or before a ReLU: no value in the data is
        above zero. For other layers: all values are equal.
    saturated : Tensor
        (units,) bool: at least 95 % of the values are within 1 % of a bound of the activation function.
        False for unbounded functions.
    selectivity : Tensor
        (units,) class selectivity in [0, 1]; see ``response_distribution.selectivity``. 0 without labels.
    groups : Tensor
        (units, g) classes with the highest mean of the per-image maximum, highest first; the last column is
        -1, for all other images.
    class_mean : Tensor
        (units, g - 1) the means of these classes.
    histogram, edges : Tensor
        (units, g, bins) counts of the per-image maximum by class group, and edges of the bins.
    quantiles : dict of str to Tensor
        (units, 101): of the per-image maximum (``"max"``), of the per-image mean (``"mean"``) and of
        the value at one random position per image (``"position"``).
    images, sampled : int
        Number of images of the pass; number of images behind quantiles, bins, histogram and class means.
    classes : list of str or None
        Names of the classes.
    """

    kind: str
    grid: tuple[int, int]
    image: Tensor
    position: Tensor
    activation: Tensor
    low_image: Tensor
    low_position: Tensor
    low_activation: Tensor
    binned_image: Tensor
    binned_position: Tensor
    binned_activation: Tensor
    mean: Tensor
    std: Tensor
    highest: Tensor
    lowest: Tensor
    active: Tensor
    dead: Tensor
    saturated: Tensor
    selectivity: Tensor
    groups: Tensor
    class_mean: Tensor
    histogram: Tensor
    edges: Tensor
    quantiles: dict[str, Tensor]
    images: int
    sampled: int
    classes: list[str] | None

    @property
    def units(self) -> int:
        """Number of units."""
        return len(self.image)

    def count(self, selection: str = "top") -> int:
        """Number of patches of each unit: k, or the number of bins.

        Parameters
        ----------
        selection : str
            ``"top"``, ``"low"`` or ``"binned"`` patches.

        Raises
        ------
        InputError
            When there is no such selection.
        """
        if selection not in SELECTIONS:
            raise InputError(f'selection must be "top", "low" or "binned", got "{selection}".')
        return int(getattr(self, "image" if selection == "top" else f"{selection}_image").shape[1])

    def entry(self, unit: int, rank: int, selection: str = "top") -> tuple[int, tuple[int, int], float]:
        """Image, position and activation of one patch.

        Raises
        ------
        InputError
            When unit, rank or selection does not exist.
        """
        count = self.count(selection)
        prefix = "" if selection == "top" else f"{selection}_"
        images = getattr(self, f"{prefix}image")
        if not 0 <= unit < self.units:
            raise InputError(f'unit {unit} does not exist: "{self.layer}" has units 0 to {self.units - 1}.')
        if not 0 <= rank < count:
            raise InputError(f"rank {rank} does not exist: there are patches 0 to {count - 1}.")
        row, column = getattr(self, f"{prefix}position")[unit, rank].tolist()
        return int(images[unit, rank]), (row, column), float(getattr(self, f"{prefix}activation")[unit, rank])

    def box(self, unit: int, rank: int, selection: str = "top") -> Box:
        """The receptive field of a patch: top, left, bottom, right (exclusive). It may exceed the picture."""
        return self.box_at(self.entry(unit, rank, selection)[1])

    def crop(self, unit: int, rank: int, selection: str = "top") -> Tensor:
        """The patch's pixels (C, h, w) in the network's range; gray outside the picture.

        All crops of a layer have the same size: along each axis that of the receptive field, or of the
        picture if the field is larger.
        """
        image, position, _ = self.entry(unit, rank, selection)
        return self.crop_at(image, position)

    def crops(self, unit: int, selection: str = "top") -> Tensor:
        """All patches of a unit (k, C, h, w)."""
        return torch.stack([self.crop(unit, rank, selection) for rank in range(self.count(selection))])

    def percentile(self, unit: int, value: float, distribution: str = "max") -> float:
        """The share of the data, in percent, whose activation does not exceed ``value``.

        Parameters
        ----------
        unit : int
            The unit.
        value : float
            An activation, for example that of a synthetic image.
        distribution : str
            The distribution of the per-image maximum (``"max"``), of the per-image mean (``"mean"``), or of
            single positions (``"position"``).

        Raises
        ------
        InputError
            When ``distribution`` is none of these.
        """
        if distribution not in self.quantiles:
            raise InputError(f'distribution must be one of {", ".join(self.quantiles)}; got "{distribution}".')
        return response_distribution.percentile(self.quantiles[distribution][unit], value)


@dataclass(frozen=True, eq=False, kw_only=True)
class TopPatches(Result, drawing="units.unit_figures:top_patches"):
    """The tables of several layers from one pass; ``top["conv2"]`` is the table of one layer.

    Attributes
    ----------
    layers : dict of str to LayerPatches
        By layer, in execution order.
    """

    layers: dict[str, LayerPatches]

    def __getitem__(self, layer: str) -> LayerPatches:
        """One layer's table.

        Raises
        ------
        LayerError
            When there are no patches of the layer.
        """
        table = self.layers.get(layer) or self.layers.get(f"/{layer}")
        if table is None:
            raise LayerError(f'there are no patches of "{layer}". Nearest: {nearest(layer, self.layers)}.')
        return table

    def __iter__(self) -> Iterator[str]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    def __contains__(self, layer: object) -> bool:
        return layer in self.layers or f"/{layer}" in self.layers

    def keys(self) -> list[str]:
        """Names of the layers."""
        return list(self.layers)

    def values(self) -> list[LayerPatches]:
        """The tables."""
        return list(self.layers.values())

    def items(self) -> list[tuple[str, LayerPatches]]:
        """Names with tables."""
        return list(self.layers.items())

    def with_images(self, dataset: Dataset) -> TopPatches:
        """A copy of the result with the data set of its pass."""
        return dataclasses.replace(self, layers={name: table.with_images(dataset) for name, table in self.items()})


def _two(pair: Any) -> tuple[int, int]:
    return int(pair[0]), int(pair[1])
