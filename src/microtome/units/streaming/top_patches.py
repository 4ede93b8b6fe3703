"""Top patches: the image patches that drive each unit most and least, for all layers in one pass over the data."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microtome.data import Dataset, adapt
from microtome.errors import InputError, ModelError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Provenance, provenance
from microtome.trace.graph import Layer
from microtome.trace.operators import RECTIFIERS
from microtome.units.streaming import response_distribution, streaming_pass
from microtome.units.streaming.layer_statistics import BOUNDS, summarise
from microtome.units.streaming.patch_tables import LayerPatches, TopPatches, geometry
from microtome.units.streaming.response_distribution import REST, Responses, Sample
from microtome.units.streaming.streaming_pass import Batch
from microtome.units.streaming.streaming_topk import Extremes

_BINS = 32  # bars of the histogram
_GROUPS = 10  # classes shown apart in it
_MEMORY = 256 * 2**20  # bytes for the distributions' sample


@register(
    "top-patches",
    rows=("D2", "B2"),
    paper="zeiler2014visualizing",
    needs="a data set",
    kind="units",
)
def top_patches(
    net: Network,
    dataset: Dataset,
    layers: str | Iterable[str] | None = None,
    k: int = 9,
    *,
    bins: int = 9,
    one_per_image: bool = True,
    batch: int = 16,
    sample: int | None = None,
    seed: int = 0,
) -> TopPatches:
    r"""Find the image patches that drive each unit most and least, in one pass for all layers.

    For unit u of a layer with values :math:`f_u(x; i, j)` the patches are those of

    .. math:: \operatorname{top}_k \; \max_{ij} f_u(x; i, j) \quad\text{over the images } x,

    so that the k patches come from k images; with ``one_per_image=False`` all positions of all images
    compete [1]_. Among equal values the first image, then the first position, wins. The value is the
    layer's own output: of a convolution before the rectifier that follows it.

    Parameters
    ----------
    net : Network
        The network.
    dataset : Dataset
        Images with labels or without; kept by reference.
    layers : str or iterable of str, optional
        Layers to look at; default all that compute (padding, dropout and flattening left out).
    k : int
        Patches kept at either end.
    bins : int
        Quantile bins of the per-image maximum that one example is taken from each.
    one_per_image : bool
        Whether an image enters a unit's table with its best position only.
    batch : int
        Images at a time.
    sample : int, optional
        Images that distributions are taken from, drawn at random; default all, or as many as fit
        256 MB. The tables of patches, mean, std, active, dead and saturated always cover all images.
    seed : int
        Of that draw, and of the one position per image behind the ``"position"`` quantiles.

    Returns
    -------
    TopPatches
        ``top["conv2"]``: ``.image``, ``.position``, ``.activation`` (units, k), ``.crop(unit, rank)``,
        ``.box(unit, rank)``, the same for the lowest and for bins, histogram by class, quantiles.

    Raises
    ------
    InputError
        When the data set is empty or k is not positive.
    LayerError
        When a layer does not exist.

    Notes
    -----
    Cost: one forward pass up to the last layer, and five sweeps over every value looked at. On
    EfficientNet-Lite0 that is a third of the pass again for its convolutions alone, and the pass again
    for all 142 layers, whose values a processor reads about as slowly as it makes them.
    Memory: one batch, the tables, and the sample. What it does not show: how much of the patch the
    unit needs (see ``units.reconstruct``, ``units.effective_field``).

    References
    ----------
    .. [1] Zeiler, Fergus. Visualizing and understanding convolutional networks. ECCV 2014.

    Examples
    --------
    >>> model = torch.nn.Conv2d(1, 1, 1, bias=False)
    >>> _ = torch.nn.init.constant_(model.weight, 2.0)
    >>> net = Network(torch.nn.Sequential(model, torch.nn.Flatten()), (1, 2, 2))
    >>> pictures = [torch.tensor([[[0.0, 0.1], [0.2, 0.0]]]), torch.tensor([[[0.4, 0.0], [0.0, 0.0]]])]
    >>> top = top_patches(net, pictures, "0", k=2)["0"]
    >>> top.image.tolist(), top.position.tolist(), top.box(0, 0)
    ([[1, 0]], [[[0, 0], [1, 0]]], (0, 0, 1, 1))
    """
    if k < 1 or bins < 1:
        raise InputError(f"k and bins are at least 1, got k={k} and bins={bins}.")
    chosen = streaming_pass.chosen_layers(net, layers)
    dataset = adapt(dataset, net)
    images = _length(dataset)
    total = sum(layer.units for layer in chosen)
    width = 12 if net.dtype != torch.float64 else 24
    size = min(images, max(1, _MEMORY // ((width + 4) * total)) if sample is None else sample)
    drawn = response_distribution.draw(images, size, seed)
    made = provenance(
        net, "top-patches", seed=seed, layers=[layer.name for layer in chosen], k=k, bins=bins,
        one_per_image=one_per_image, images=images, sample=drawn.size,
    )  # fmt: skip
    tables = {layer.name: _Table(layer, net, k, drawn, one_per_image=one_per_image) for layer in chosen}
    streaming_pass.read(net, dataset, {name: table.read for name, table in tables.items()}, batch=batch)
    labels = dataset.labels
    labels = None if labels is None else labels[tables[chosen[0].name].responses.image]
    found = {name: table.finished(net, labels, bins, images, made) for name, table in tables.items()}
    return TopPatches(provenance=made, layers=found).with_images(dataset)


def _length(dataset: Dataset) -> int:
    if len(dataset) == 0:
        raise InputError("the data set is empty: there is no image to run.")
    return len(dataset)


class _Table:
    """What is gathered for one layer while the data go by."""

    def __init__(self, layer: Layer, net: Network, k: int, sample: Sample, *, one_per_image: bool) -> None:
        self.layer, self.grid = layer, layer.axes.grid
        self.bounds = BOUNDS.get(streaming_pass.operation(layer))
        self.rectified = _rectified(net, layer)
        self.k, self.one_per_image = k, one_per_image
        self.top = Extremes(layer.units, k, dtype=net.dtype)
        self.low = Extremes(layer.units, k, lowest=True, dtype=net.dtype)
        self.responses = Responses(layer.units, sample, net.dtype)
        self.sums = torch.zeros(4, layer.units, dtype=torch.float64)  # values, squares, active, full
        self.count = 0

    def read(self, value: Tensor, batch: Batch) -> None:
        """Take in one batch of the layer's values."""
        value = self.layer.axes.per_unit(value, len(batch.indices))
        summary = summarise(value, self.bounds)
        if not bool(torch.isfinite(summary.total).all()):
            raise ModelError(
                f'layer "{self.layer.name}" gives NaN or infinity for images {batch.indices.tolist()[:8]}.'
            )
        sums = (summary.total, summary.square, summary.active, summary.full)
        self.sums += torch.stack([part.double().sum(0) for part in sums]).cpu()
        self.count += value.shape[0] * value.shape[2]
        if self.one_per_image:
            self.top.add(summary.high.T, batch.indices, summary.high_at.T)
            self.low.add(summary.low.T, batch.indices, summary.low_at.T)
        else:
            self.top.add(*_every_position(value, batch.indices, self.k, 1.0))
            self.low.add(*_every_position(value, batch.indices, self.k, -1.0))
        self.responses.add(value, summary, batch.indices)

    def finished(self, net: Network, labels: Tensor | None, bins: int, images: int, made: Provenance) -> LayerPatches:
        """The layer's result."""
        responses = self.responses
        mean, square, active, full = (self.sums / self.count).unbind()
        highest, lowest = self.top.value[:, 0], self.low.value[:, 0]
        binned_image, binned_at, binned = response_distribution.examples(responses, bins)
        return LayerPatches(
            provenance=made,
            **geometry(self.layer, net.input_shape),
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
            std=(square - mean.square()).clamp(min=0).sqrt(),
            highest=highest,
            lowest=lowest,
            active=active,
            dead=(highest <= 0) if self.rectified or bool((lowest >= 0).all()) else (highest == lowest),
            saturated=full >= 0.95,
            quantiles={
                "max": response_distribution.quantiles(responses.maximum),
                "mean": response_distribution.quantiles(responses.average),
                "position": response_distribution.quantiles(responses.single),
            },
            images=images,
            sampled=responses.sample.size,
            classes=net.classes,
            **_by_class(responses, labels),
        )

    def _positions(self, at: Tensor) -> Tensor:
        return torch.stack((at // self.grid[1], at % self.grid[1]), -1)


def _by_class(responses: Responses, labels: Tensor | None) -> dict[str, Any]:
    """Selectivity, the classes that a unit answers most, and the histogram by them."""
    if labels is None:
        labels = torch.full((responses.sample.size,), REST)
    maximum = responses.maximum
    present, means = response_distribution.class_means(maximum, labels)
    _, above = response_distribution.class_means(np.maximum(maximum, 0), labels)
    order = means.argsort(dim=1, descending=True, stable=True)[:, :_GROUPS]
    groups = torch.cat((present[order], torch.full((len(maximum), 1), REST)), 1)
    counts, edges = response_distribution.histogram(maximum, labels, groups, _BINS)
    return {
        "selectivity": response_distribution.selectivity(above),
        "groups": groups,
        "class_mean": means.gather(1, order),
        "histogram": counts,
        "edges": edges,
    }


def _every_position(value: Tensor, indices: Tensor, k: int, sign: float) -> tuple[Tensor, Tensor, Tensor]:
    """The k best positions of each image: (units, n * k) candidates, in order of images and then of positions."""
    n, units, positions = value.shape
    kept = min(k, positions)
    order = (value * -sign).argsort(dim=2, stable=True)[:, :, :kept].sort(2).values
    best = value.gather(2, order).permute(1, 0, 2).reshape(units, n * kept)
    return best, indices.repeat_interleave(kept), order.permute(1, 0, 2).reshape(units, n * kept)


def _rectified(net: Network, layer: Layer) -> bool:
    """Whether all that reads the layer directly is a rectifier: nothing below zero goes on."""
    readers = [other for other in net.layers.values() if layer.name in other.inputs and other.leaf]
    zeroing = RECTIFIERS & {"relu", "relu6", "rectifying_clamp"}
    return bool(readers) and all(streaming_pass.operation(reader) in zeroing for reader in readers)
