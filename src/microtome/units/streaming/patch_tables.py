"""Tables of top patches: the result for one layer, and for all layers of a pass."""

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
from microtome.units.streaming.crops import Box, cut, field_box, frame

P = TypeVar("P", bound="Patches")

KINDS = ("top", "low", "binned")


@dataclass(frozen=True, eq=False, kw_only=True)
class Patches(Result):
    """Places in a data set's pictures that belong to positions of one layer; base of what holds them.

    The pictures are not copied: the data set is kept by reference, and a crop reads ``dataset[image]``.
    A result loaded from a file gets its data set back by ``with_images``.
    """

    layer: str
    picture: tuple[int, int, int]
    size: tuple[int, int] | None
    stride: tuple[float, float] | None
    offset: tuple[int, int] | None
    gated: bool

    @property
    def field(self) -> ReceptiveField | None:
        """The layer's receptive field, global gates left out; None where it cannot be known."""
        if self.size is None or self.stride is None or self.offset is None:
            return None
        return ReceptiveField(_two(self.size), (self.stride[0], self.stride[1]), _two(self.offset))

    @property
    def dataset(self) -> Dataset:
        """The data set that was looked at.

        Raises
        ------
        InputError
            When the result comes from a file and has not been given its images.
        """
        found: Dataset = self.pictures.dataset
        return found

    @property
    def pictures(self) -> Adapter:
        """The data set as it is read: a picture that differs from the one that was measured is an error.

        Raises
        ------
        InputError
            When the result comes from a file and has not been given its images.
        """
        found: Adapter | None = self.__dict__.get("_pictures")
        if found is None:
            raise InputError("this result was loaded from a file, which holds no images; use .with_images(dataset).")
        return found

    def with_images(self: P, dataset: Dataset) -> P:
        """The same result with the data set that it was made from."""
        again = dataclasses.replace(self)
        known = dataset if isinstance(dataset, Adapter) else adapt(dataset, Expected(self.picture))
        object.__setattr__(again, "_pictures", known)
        return again

    def box_at(self, position: tuple[int, int]) -> Box:
        """The receptive field of a position: top, left, bottom, right (exclusive); may leave the picture."""
        return field_box(self.field, position, (self.picture[1], self.picture[2]))

    def frame_at(self, position: tuple[int, int]) -> Box:
        """The rectangle shown for a position: its field, on either axis no more than the whole picture."""
        return frame(self.box_at(position), (self.picture[1], self.picture[2]))

    def crop_at(self, image: int, position: tuple[int, int]) -> Tensor:
        """The pixels (C, h, w) of a frame, in the network's range.

        Grey where it leaves the picture, and all grey without image.
        """
        box = self.frame_at(position)
        if image < 0:
            return torch.full((self.picture[0], box[2] - box[0], box[3] - box[1]), self.pictures.grey)
        found, _ = self.pictures.fetch(torch.tensor([image]))
        return cut(found[0], box, self.pictures.grey)


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
class LayerPatches(Patches):
    """What drives each unit of one layer, and how its responses are spread over the data.

    Positions are (row, column) in the layer's own grid. ``rank`` 0 is the strongest. Where the data
    set has fewer than k images, ``image`` is -1 and ``activation`` NaN.

    Attributes
    ----------
    layer, kind : str
        Name and kind of the layer.
    grid : (int, int)
        Rows and columns of its positions.
    image, position, activation : Tensor
        (units, k), (units, k, 2), (units, k): the strongest.
    low_image, low_position, low_activation : Tensor
        The same for the weakest: the lowest activations of each unit, lowest first.
    binned_image, binned_position, binned_activation : Tensor
        (units, bins): one image from each quantile bin of the per-image maximum, highest bin first.
    mean, std, highest, lowest : Tensor
        (units,) over all images and positions.
    active : Tensor
        (units,) share of images and positions above zero: the unit's sparsity.
    dead : Tensor
        (units,) bool. For a layer whose values are never negative or that feeds a rectifier: no value
        above zero in the data. For any other: the same value everywhere.
    saturated : Tensor
        (units,) bool: at least 95 % of the values within 1 % of a bound of the activation function.
        All false for unbounded functions.
    selectivity : Tensor
        (units,) in [0, 1]; see ``units.selectivity``. 0 without labels.
    groups : Tensor
        (units, g) classes with the highest mean of the per-image maximum, highest first, then -1 for
        all other images.
    class_mean : Tensor
        (units, g - 1) those means.
    histogram, edges : Tensor
        (units, g, bins) counts of the per-image maximum by class group, and the bins' edges.
    quantiles : dict of str to Tensor
        (units, 101): of the per-image maximum (``"max"``), of the per-image mean (``"mean"``) and of
        the value at one random position per image (``"position"``).
    images, sampled : int
        Images of the pass; images that quantiles, bins, histogram and class means are taken from.
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

    def kept(self, of: str = "top") -> int:
        """How many patches each unit has: k, or the number of bins.

        Raises
        ------
        InputError
            When there is no such kind of patch.
        """
        if of not in KINDS:
            raise InputError(f'patches are "top", "low" or "binned", got "{of}".')
        return int(getattr(self, "image" if of == "top" else f"{of}_image").shape[1])

    def entry(self, unit: int, rank: int, of: str = "top") -> tuple[int, tuple[int, int], float]:
        """Image, position and activation of one patch.

        Raises
        ------
        InputError
            When unit, rank or kind of patch does not exist.
        """
        kept = self.kept(of)
        prefix = "" if of == "top" else f"{of}_"
        images = getattr(self, f"{prefix}image")
        if not 0 <= unit < self.units:
            raise InputError(f'unit {unit} does not exist: "{self.layer}" has units 0 to {self.units - 1}.')
        if not 0 <= rank < kept:
            raise InputError(f"rank {rank} does not exist: patches 0 to {kept - 1} are kept.")
        row, column = getattr(self, f"{prefix}position")[unit, rank].tolist()
        return int(images[unit, rank]), (row, column), float(getattr(self, f"{prefix}activation")[unit, rank])

    def box(self, unit: int, rank: int, of: str = "top") -> Box:
        """The receptive field of a patch: top, left, bottom, right (exclusive); may leave the picture."""
        return self.box_at(self.entry(unit, rank, of)[1])

    def crop(self, unit: int, rank: int, of: str = "top") -> Tensor:
        """The patch's pixels (C, h, w) in [0, 1], grey where the field leaves the picture.

        All crops of a layer have the same size: the field's, or the picture's on an axis where the
        field exceeds it.
        """
        image, position, _ = self.entry(unit, rank, of)
        return self.crop_at(image, position)

    def crops(self, unit: int, of: str = "top") -> Tensor:
        """All patches of a unit (k, C, h, w)."""
        return torch.stack([self.crop(unit, rank, of) for rank in range(self.kept(of))])

    def percentile(self, unit: int, value: float, of: str = "max") -> float:
        """The share of the data, in percent, whose activation does not exceed ``value``.

        Parameters
        ----------
        unit : int
            The unit.
        value : float
            An activation: reached by a synthetic image, say.
        of : str
            What it is compared with: the per-image maximum (``"max"``), the per-image mean
            (``"mean"``), or single positions (``"position"``).

        Raises
        ------
        InputError
            When ``of`` is none of these.
        """
        if of not in self.quantiles:
            raise InputError(f'a distribution is one of {", ".join(self.quantiles)}; got "{of}".')
        return response_distribution.percentile(self.quantiles[of][unit], value)


@dataclass(frozen=True, eq=False, kw_only=True)
class TopPatches(Result):
    """The tables of several layers from one pass; ``top["conv2"]`` is one layer's.

    Attributes
    ----------
    layers : dict of str to LayerPatches
        By layer, in the order they run.
    """

    layers: dict[str, LayerPatches]

    def __getitem__(self, layer: str) -> LayerPatches:
        """One layer's table.

        Raises
        ------
        LayerError
            When the layer was not looked at.
        """
        found = self.layers.get(layer) or self.layers.get(f"/{layer}")
        if found is None:
            raise LayerError(f'there are no patches of "{layer}". Nearest: {nearest(layer, self.layers)}.')
        return found

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
        """The same result with the data set that it was made from."""
        return dataclasses.replace(self, layers={name: table.with_images(dataset) for name, table in self.items()})


def _two(pair: Any) -> tuple[int, int]:
    return int(pair[0]), int(pair[1])
