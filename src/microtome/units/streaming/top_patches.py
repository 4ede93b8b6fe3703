"""Top patches: the image patches with the highest and lowest activation of each unit, in one pass over the data."""

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
from microtome.results import Provenance, stated
from microtome.trace.graph import Layer
from microtome.trace.operators.operator_table import RECTIFIERS
from microtome.units.streaming import response_distribution, streaming_pass
from microtome.units.streaming.layer_statistics import BOUNDS, summarise
from microtome.units.streaming.patch_tables import LayerPatches, TopPatches, geometry
from microtome.units.streaming.response_distribution import REST, Sample, SampledActivations
from microtome.units.streaming.streaming_pass import Batch
from microtome.units.streaming.streaming_topk import TopK

_BINS = 32  # bins of the histogram
_GROUPS = 10  # classes with their own counts in the histogram
_MEMORY = 256 * 2**20  # bytes for the sample of the distributions


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
    *,
    k: int = 9,
    bins: int = 9,
    one_per_image: bool = True,
    batch: int | None = None,
    sample: int | None = None,
    seed: int = 0,
) -> TopPatches:
    r"""Find the image patches with the highest and lowest activation of each unit, in one pass for all layers.

    For unit u of a layer with values :math:`f_u(x; i, j)` the patches are those of

    .. math:: \operatorname{top}_k \; \max_{ij} f_u(x; i, j) \quad\text{over the images } x,

    so that the k patches come from k images. With ``one_per_image=False``, all positions of all images
    are candidates [1]_. Equal values are ordered by image, then by position. The value is the layer's own
    output: for a convolution the value before the ReLU.

    Parameters
    ----------
    net : Network
        The network.
    dataset : Dataset
        Images with or without labels; the result holds a reference.
    layers : str or iterable of str, optional
        Names of layers; default all layers that compute (without padding, dropout and flattening).
    k : int
        Number of highest patches and number of lowest patches.
    bins : int
        Number of quantile bins of the per-image maximum, with one example each.
    one_per_image : bool
        Whether only the best position of each image is a candidate.
    batch : int, optional
        Number of images per pass.
    sample : int, optional
        Number of random images for the distributions; default all, or as many as fit into 256 MB. The
        tables of patches, mean, std, active, dead and saturated always cover all images.
    seed : int
        Seed of the sample, and of the random position per image for the ``"position"`` quantiles.

    Returns
    -------
    TopPatches
        ``top["conv2"]``: ``.image``, ``.position``, ``.activation`` (units, k), ``.crop(unit, rank)``,
        ``.box(unit, rank)``; the same for lowest and binned patches; histogram by class, quantiles.

    Raises
    ------
    InputError
        When the data set is empty or k is not positive.
    LayerError
        When a layer does not exist.

    Notes
    -----
    Cost: one forward pass up to the last layer, and five reductions of every value. On EfficientNet-Lite0
    the reductions take a third of the time of the pass for the convolutions, and as long as the pass for
    all 142 layers, because memory access dominates. Memory: one batch, the tables, and the sample.
    What it does not show: the part of the patch that causes the activation (see ``units.reconstruct``,
    ``units.effective_field``).

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
    selected = streaming_pass.selected_layers(net, layers)
    dataset = adapt(dataset, net)
    images = _length(dataset)
    total = sum(layer.units for layer in selected)
    width = 12 if net.dtype != torch.float64 else 24
    size = min(images, max(1, _MEMORY // ((width + 4) * total)) if sample is None else sample)
    subset = response_distribution.draw(images, size, seed)
    note = stated(layers=[layer.name for layer in selected], images=images, sample=subset.size)  # fmt: skip
    tables = {layer.name: _Table(layer, net, k, subset, one_per_image=one_per_image) for layer in selected}
    streaming_pass.read(net, dataset, {name: table.read for name, table in tables.items()}, batch=batch)
    labels = dataset.labels
    labels = None if labels is None else labels[tables[selected[0].name].activations.image]
    results = {name: table.result(net, labels, bins, images, note) for name, table in tables.items()}
    return TopPatches(provenance=note, layers=results).with_images(dataset)


def _length(dataset: Dataset) -> int:
    if len(dataset) == 0:
        raise InputError("the data set is empty: there is no image to run.")
    return len(dataset)


class _Table:
    """Running statistics of one layer during the pass."""

    def __init__(self, layer: Layer, net: Network, k: int, sample: Sample, *, one_per_image: bool) -> None:
        self.layer, self.grid = layer, layer.axes.grid
        self.bounds = BOUNDS.get(streaming_pass.operation(layer))
        self.rectified = _rectified(net, layer)
        self.k, self.one_per_image = k, one_per_image
        self.top = TopK(layer.units, k, dtype=net.dtype)
        self.low = TopK(layer.units, k, lowest=True, dtype=net.dtype)
        self.activations = SampledActivations(layer.units, sample, net.dtype)
        self.sums = torch.zeros(4, layer.units, dtype=torch.float64, device="cpu")  # values, squares, active, full
        self.count = 0

    def read(self, value: Tensor, batch: Batch) -> None:
        """Add one batch of the layer's values."""
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
        self.activations.add(value, summary, batch.indices)

    def result(self, net: Network, labels: Tensor | None, bins: int, images: int, note: Provenance) -> LayerPatches:
        """The layer's result."""
        activations = self.activations
        mean, square, active, full = (self.sums / self.count).unbind()
        highest, lowest = self.top.value[:, 0], self.low.value[:, 0]
        binned_image, binned_at, binned = response_distribution.examples(activations, bins)
        return LayerPatches(
            provenance=note,
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
                "max": response_distribution.quantiles(activations.maximum),
                "mean": response_distribution.quantiles(activations.average),
                "position": response_distribution.quantiles(activations.single),
            },
            images=images,
            sampled=activations.sample.size,
            classes=net.classes,
            **_by_class(activations, labels),
        )

    def _positions(self, at: Tensor) -> Tensor:
        return torch.stack((at // self.grid[1], at % self.grid[1]), -1)


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
    return bool(readers) and all(streaming_pass.operation(reader) in zeroing for reader in readers)
