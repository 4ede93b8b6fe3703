"""Survey of patches: tables and sums over a part of the images, which merge in any order with equal bytes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microtome.errors import InputError, ModelError
from microtome.network import Network
from microtome.results import Provenance, Result, provenance
from microtome.trace.graph import Layer
from microtome.trace.operators.operator_table import RECTIFIERS
from microtome.units.streaming import response_distribution, streaming_pass
from microtome.units.streaming.layer_statistics import BOUNDS, pooled, summarise
from microtome.units.streaming.merge_tree import MergeTree
from microtome.units.streaming.patch_tables import LayerPatches, TopPatches, geometry
from microtome.units.streaming.response_distribution import REST, Sample, SampledActivations
from microtome.units.streaming.streaming_pass import Batch, Reader
from microtome.units.streaming.streaming_topk import TopK

_BINS = 32  # bins of the histogram
_GROUPS = 10  # classes with their own counts in the histogram
_MEMORY = 192 * 2**20  # bytes for the sample of the distributions


@dataclass(frozen=True, eq=False, kw_only=True)
class LayerSummary(Result):
    """One layer's tables and sums over some of the images.

    Attributes
    ----------
    high, low : tuple of Tensor
        (units, k) each: keys, images and positions of the highest and of the lowest activations.
    nodes, sums : Tensor
        (m, 2) nodes of the tree of shards, and (m, 5, units) over each node: the number of values, their mean, the sum
        of squared differences from it, the number of values above zero and of values at a bound.
    sampled : tuple of Tensor
        The images (n,) that belong to the sample; (n, units) each: their maximum, mean, a random value, and the
        maximum's position.
    """

    high: tuple[Tensor, ...]
    low: tuple[Tensor, ...]
    nodes: Tensor
    sums: Tensor
    sampled: tuple[Tensor, ...]


@dataclass(frozen=True, eq=False, kw_only=True)
class PatchSummary(Result):
    """The tables and sums of several layers over some of the images.

    Attributes
    ----------
    layers : dict of str to LayerSummary
        By layer.
    images : int
        Number of these images.
    """

    layers: dict[str, LayerSummary]
    images: int


class PatchSurvey:
    """Tables and sums of a pass over all images, or over one shard of them.

    Parameters
    ----------
    net : Network
        The network.
    images : int
        Number of images of the whole data set.
    layers, k, one_per_image, sample, seed
        See ``units.top_patches``.
    shard : (int, int), optional
        Number and size of a shard: the images from number * size to (number + 1) * size. Default all images.

    Raises
    ------
    InputError, LayerError
        See ``units.top_patches``.

    Notes
    -----
    Every shard needs memory for its own images of the sample, the tables and one batch, so that memory does not grow
    with the number of images. To merge, make one survey without a shard and ``absorb`` the summaries of all shards, in
    any order. Sums are added along a fixed tree, equal activations are ordered by image and position: the result
    depends only on the size of the shards and of the batches.
    """

    def __init__(
        self,
        net: Network,
        images: int,
        layers: str | Iterable[str] | None = None,
        *,
        k: int = 9,
        one_per_image: bool = True,
        sample: int | None = None,
        seed: int = 0,
        shard: tuple[int, int] | None = None,
    ) -> None:
        if k < 1:
            raise InputError(f"k must be at least 1, got k={k}.")
        if images < 1:
            raise InputError("the data set is empty: there is no image to run.")
        selected = streaming_pass.selected_layers(net, layers)
        total = sum(layer.units for layer in selected)
        width = 12 if net.dtype != torch.float64 else 24
        size = min(images, max(1, _MEMORY // ((width + 4) * total)) if sample is None else sample)
        number, length = (0, images) if shard is None else shard
        self.within = number * length, min((number + 1) * length, images)
        if not 0 <= self.within[0] < self.within[1]:
            raise InputError(f"shard {number} of {length} images is empty: there are {images} images.")
        whole = response_distribution.draw(images, size, seed)
        self._part = whole if shard is None else whole.within(*self.within)
        self._net, self._images, self._number = net, images, number
        self._made_by: dict[str, Any] = {
            "seed": seed, "layers": [layer.name for layer in selected], "k": k, "one_per_image": one_per_image,
            "images": images, "sample": whole.size,
        }  # fmt: skip
        self._tables = {
            layer.name: _Table(layer, net, k, self._part, number, one_per_image=one_per_image) for layer in selected
        }
        self.seen = 0  # images

    @property
    def readers(self) -> dict[str, Reader]:
        """By layer the function that ``streaming_pass.read`` calls for the images ``within``."""
        self.seen = self.within[1] - self.within[0]
        return {name: table.read for name, table in self._tables.items()}

    def summary(self) -> PatchSummary:
        """Tables and sums, for merging."""
        layers = {name: table.summary() for name, table in self._tables.items()}
        made = provenance(self._net, "top-patches", **self._made_by)
        return PatchSummary(provenance=made, layers=layers, images=self.seen)

    def absorb(self, other: PatchSummary) -> None:
        """Add the summary of other images; after the first one no more images can be read.

        Raises
        ------
        InputError
            When the summary belongs to other layers or options, or to images that were already added.
        """
        if other.provenance.parameters != provenance(self._net, **self._made_by).parameters:
            raise InputError("the summary was made with other layers or options; make both by the same survey.")
        try:
            for name, table in self._tables.items():
                table.absorb(other.layers[name])
        except ValueError as error:
            raise InputError(f"these images are already in the survey: {error}") from error
        self.seen += other.images

    def result(self, labels: Tensor | None, bins: int, classes: list[str] | None) -> TopPatches:
        """The tables of patches.

        Parameters
        ----------
        labels : Tensor or None
            (images,) class of every image of the data set.
        bins : int
            Number of quantile bins of the per-image maximum, with one example each.
        classes : list of str or None
            Names of the classes.

        Raises
        ------
        InputError
            When ``bins`` is not positive, or images are missing.
        """
        if bins < 1:
            raise InputError(f"bins must be at least 1, got bins={bins}.")
        if self.seen != self._images:
            raise InputError(f"{self._images - self.seen} of {self._images} images are missing in the survey.")
        note = provenance(self._net, "top-patches", bins=bins, **self._made_by)
        labels = None if labels is None else labels[(self._part.row >= 0).nonzero()[:, 0]]
        layers = {
            name: table.result(self._net.input_shape, labels, bins, classes, self._images, note)
            for name, table in self._tables.items()
        }
        return TopPatches(provenance=note, layers=layers)


class _Table:
    """Running statistics of one layer."""

    def __init__(self, layer: Layer, net: Network, k: int, sample: Sample, number: int, *, one_per_image: bool) -> None:
        self.layer, self.grid = layer, layer.axes.grid
        self.bounds = BOUNDS.get(layer.operator)
        self.rectified = _rectified(net, layer)
        self.k, self.one_per_image = k, one_per_image
        self.top = TopK(layer.units, k, dtype=net.dtype)
        self.low = TopK(layer.units, k, lowest=True, dtype=net.dtype)
        self.activations = SampledActivations(layer.units, sample, net.dtype)
        self.sums: Tensor | None = None  # (5, units): count, mean, sum of squared differences, active, full
        self.number = number
        self.merged: MergeTree[Tensor] = MergeTree(_joined)

    def read(self, value: Tensor, batch: Batch) -> None:
        """Add one batch of the layer's values."""
        value = self.layer.axes.per_unit(value, len(batch.indices))
        summary = summarise(value, self.bounds)
        if not bool(torch.isfinite(summary.mean).all()):
            raise ModelError(
                f'layer "{self.layer.name}" gives NaN or infinity for images {batch.indices.tolist()[:8]}.'
            )
        count = torch.full_like(summary.mean, value.shape[2])
        sums = (count, summary.mean, summary.scatter, summary.active.double(), summary.full.double())
        each = torch.stack(sums, 1).cpu()
        self.sums = _joined(*([] if self.sums is None else [self.sums]), *each)
        if self.one_per_image:
            self.top.add(summary.high.T, batch.indices, summary.high_at.T)
            self.low.add(summary.low.T, batch.indices, summary.low_at.T)
        else:
            self.top.add(*_every_position(value, batch.indices, self.k, 1.0))
            self.low.add(*_every_position(value, batch.indices, self.k, -1.0))
        self.activations.add(value, summary, batch.indices)

    def nodes(self) -> dict[tuple[int, int], Tensor]:
        """The sums by node of the tree of shards."""
        return self.merged.nodes() or ({} if self.sums is None else {(0, self.number): self.sums})

    def summary(self) -> LayerSummary:
        """Tables and sums, for merging."""
        nodes = self.nodes()
        return LayerSummary(
            high=self.top.entries(),
            low=self.low.entries(),
            nodes=torch.tensor(list(nodes), device="cpu"),
            sums=torch.stack(list(nodes.values())),
            sampled=self.activations.entries(),
        )

    def absorb(self, other: LayerSummary) -> None:
        """Add the summary of other images."""
        if self.sums is not None and not self.merged.nodes():
            self.merged.add((0, self.number), self.sums)
        for (level, place), sums in zip(other.nodes.tolist(), other.sums, strict=True):
            self.merged.add((level, place), sums)
        self.top.absorb(*other.high)
        self.low.absorb(*other.low)
        self.activations.absorb(other.sampled)

    def result(
        self,
        picture: tuple[int, int, int],
        labels: Tensor | None,
        bins: int,
        classes: list[str] | None,
        images: int,
        note: Provenance,
    ) -> LayerPatches:
        """The layer's result."""
        activations = self.activations
        sums = self.merged.total() if self.merged.nodes() else self.sums
        if sums is None:
            raise InputError("no image was read; read or absorb images first.")
        count, mean, scatter, active, full = sums.unbind()
        highest, lowest = self.top.value[:, 0], self.low.value[:, 0]
        binned_image, binned_at, binned = response_distribution.examples(activations, bins)
        return LayerPatches(
            provenance=note,
            **geometry(self.layer, picture),
            kind=self.layer.kind,
            grid=self.grid,
            image=self.top.image,
            position=self._positions(self.top.at),
            activation=self.top.value,
            low_image=self.low.image,
            low_position=self._positions(self.low.at),
            low_activation=self.low.value,
            binned_image=binned_image,
            binned_position=self._positions(binned_at),
            binned_activation=binned,
            mean=mean,
            std=(scatter / count).sqrt(),
            highest=highest,
            lowest=lowest,
            active=active / count,
            dead=(highest <= 0) if self.rectified or bool((lowest >= 0).all()) else (highest == lowest),
            saturated=full / count >= 0.95,
            quantiles={
                "max": response_distribution.quantiles(activations.maximum),
                "mean": response_distribution.quantiles(activations.average),
                "position": response_distribution.quantiles(activations.single),
            },
            images=images,
            sampled=activations.sample.size,
            classes=classes,
            **_by_class(activations, labels),
        )

    def _positions(self, at: Tensor) -> Tensor:
        return torch.stack((at // self.grid[1], at % self.grid[1]), -1)


def _joined(*sums: Tensor) -> Tensor:
    """The sums (5, units) over several runs of images, in their order."""
    each = torch.stack(sums)
    return torch.cat([pooled(each[:, :3]), each[:, 3:].sum(0)])


def _by_class(activations: SampledActivations, labels: Tensor | None) -> dict[str, Any]:
    """Class selectivity, the classes with the highest means, and the histogram by class."""
    if labels is None:
        labels = torch.full((activations.sample.size,), REST, device="cpu")
    maximum = activations.maximum
    present, means = response_distribution.class_means(maximum, labels)
    _, positive_means = response_distribution.class_means(np.maximum(maximum, 0), labels)
    order = means.argsort(dim=1, descending=True, stable=True)[:, :_GROUPS]
    groups = torch.cat((present[order], torch.full((len(maximum), 1), REST, device="cpu")), 1)
    counts, edges = response_distribution.histogram(maximum, labels, groups, _BINS)
    return {
        "selectivity": response_distribution.selectivity(positive_means),
        "groups": groups,
        "class_mean": means.gather(1, order),
        "histogram": counts,
        "edges": edges,
    }


def _every_position(value: Tensor, indices: Tensor, k: int, sign: float) -> tuple[Tensor, Tensor, Tensor]:
    """The k best positions of each image: (units, n * k) candidates, ordered by image, then by position."""
    n, units, positions = value.shape
    count = min(k, positions)
    order = (value * -sign).argsort(dim=2, stable=True)[:, :, :count].sort(2).values
    best = value.gather(2, order).permute(1, 0, 2).reshape(units, n * count)
    return best, indices.repeat_interleave(count), order.permute(1, 0, 2).reshape(units, n * count)


def _rectified(net: Network, layer: Layer) -> bool:
    """Whether all direct successors of the layer are ReLUs, which block negative values."""
    readers = [other for other in net.layers.values() if layer.name in other.inputs and other.leaf]
    zeroing = RECTIFIERS & {"relu", "relu6", "rectifying_clamp"}
    return bool(readers) and all(reader.operator in zeroing for reader in readers)
