"""Specialised units: sparse activation over images (rarity) and over positions (locality)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.data import Dataset, adapt
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, stated
from microtome.tables import Table
from microtome.trace.graph import Layer
from microtome.units.streaming import streaming_pass
from microtome.units.streaming.streaming_pass import Batch

_NOTE = "score: how few images the unit responds to, times how local its response is, each from 0 to 1."


@dataclass(frozen=True, eq=False, kw_only=True)
class Specialised(Result, drawing="units.unit_figures:specialised"):
    """Rarity and locality of the activations of every unit.

    Attributes
    ----------
    rarity : dict of str to Tensor
        (units,) by layer: sparseness of the per-image maximum over images, in [0, 1].
    locality : dict of str to Tensor
        (units,) by layer: sparseness over the positions of an image, in [0, 1], averaged over images with
        the maximum as weight; 0 for a layer without positions.
    score : dict of str to Tensor
        rarity * locality (rarity alone for a layer without positions).
    fires_on : dict of str to Tensor
        (units,) by layer: number of images with an activation above half of the unit's maximum.
    peak_image : dict of str to Tensor
        (units,) by layer: index of the image with the highest activation.
    peak_label : dict of str to Tensor
        (units,) by layer: label of this image; -1 without labels.
    images : int
        Number of images of the pass.
    classes : list of str or None
        Names of the classes.
    """

    rarity: dict[str, Tensor]
    locality: dict[str, Tensor]
    score: dict[str, Tensor]
    fires_on: dict[str, Tensor]
    peak_image: dict[str, Tensor]
    peak_label: dict[str, Tensor]
    images: int
    classes: list[str] | None

    def units(self, k: int = 10, layer: str | None = None) -> list[tuple[str, int, float]]:
        """The most specialised units of all layers, or of one layer: layer, unit and score, highest first."""
        names = list(self.score) if layer is None else [layer]
        rows = [(name, unit, value) for name in names for unit, value in enumerate(self.score[name].tolist())]
        return sorted(rows, key=lambda row: -row[2])[:k]

    def describe(self, layer: str, unit: int) -> str:
        """One sentence with the numbers of a unit's score."""
        count, label = int(self.fires_on[layer][unit]), int(self.peak_label[layer][unit])
        of_class = f' of class "{self.classes[label]}"' if self.classes is not None and label >= 0 else ""
        return (
            f"unit {unit} of {layer} exceeds half of its maximum on {count} of {self.images} images "
            f"(rarity {float(self.rarity[layer][unit]):.2f}, locality {float(self.locality[layer][unit]):.2f}); "
            f"strongest on image {int(self.peak_image[layer][unit])}{of_class}."
        )

    def table(self, k: int = 10, layer: str | None = None) -> Table:
        """The most specialised units, each with a description."""
        rows = ((name, unit, score, self.describe(name, unit)) for name, unit, score in self.units(k, layer))
        return Table(("layer", "unit", "score", "description"), tuple(rows), _NOTE)


@register("specialised-units", rows=("D1",), paper="yosinski2015understanding", needs="a data set", kind="units")
def specialised(
    net: Network, dataset: Dataset, layers: str | Iterable[str] | None = None, *, batch: int | None = None
) -> Specialised:
    r"""Find units with local activations on few images, such as face or text detectors [1]_.

    With the positive part :math:`r = \max(f, 0)` of the activations, the sparseness of n numbers is

    .. math:: S(r) = \frac{1 - \big(\sum r / n\big)^2 \big/ \big(\sum r^2 / n\big)}{1 - 1/n}

    It is 1 if only one number is not zero, and 0 if all are equal [2]_. Rarity is S of the per-image
    maxima over the images. Locality is S of the map over its positions, averaged over the images with
    the maxima as weights. The score is their product. A unit without positive activations has score 0.

    Parameters
    ----------
    net : Network
        The network.
    dataset : Dataset
        Images with or without labels.
    layers : str or iterable of str, optional
        Names of layers; default all layers that compute and have positions.
    batch : int, optional
        Number of images per pass.

    Returns
    -------
    Specialised
        ``.units(10)``: layer, unit and score of the highest scores; ``.table()`` with descriptions.

    Raises
    ------
    InputError
        When the data set is empty.
    LayerError
        When a layer does not exist.

    Notes
    -----
    Cost: one forward pass and a few reductions of all values. What it does not show: the common property
    of a unit's images; see ``units.top_patches``.

    References
    ----------
    .. [1] Yosinski, Clune, Nguyen, Fuchs, Lipson. Understanding neural networks through deep
       visualization. ICML Deep Learning Workshop 2015.
    .. [2] Vinje, Gallant. Sparse coding and decorrelation in primary visual cortex during natural
       vision. Science 287, 2000.

    Examples
    --------
    >>> net = Network(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten()), (1, 1, 2))
    >>> result = specialised(net, [torch.tensor([[[0.0, 1.0]]]), torch.zeros(1, 1, 2)], "0")
    >>> result.rarity["0"].item(), result.locality["0"].item(), result.fires_on["0"].item()
    (1.0, 1.0, 1)
    """
    selected = streaming_pass.selected_layers(net, layers)
    if layers is None:
        selected = [layer for layer in selected if layer.axes.grid != (1, 1)] or selected
    dataset = adapt(dataset, net)
    peaks = {layer.name: _PeakActivations(layer, len(dataset)) for layer in selected}
    images = streaming_pass.read(net, dataset, {name: one.read for name, one in peaks.items()}, batch=batch)
    labels, classes = dataset.shown_classes
    peak_image = {name: one.maximum.argmax(1) for name, one in peaks.items()}
    rarity = {name: sparseness(one.maximum) for name, one in peaks.items()}
    locality = {name: one.locality() for name, one in peaks.items()}
    return Specialised(
        provenance=stated(layers=list(peaks), images=images),
        rarity=rarity,
        locality=locality,
        score={name: rarity[name] * locality[name] if one.extended else rarity[name] for name, one in peaks.items()},
        fires_on={name: (one.maximum > one.maximum.amax(1, keepdim=True) / 2).sum(1) for name, one in peaks.items()},
        peak_image=peak_image,
        peak_label={name: torch.full_like(at, -1) if labels is None else labels[at] for name, at in peak_image.items()},
        images=images,
        classes=classes,
    )


def sparseness(responses: Tensor) -> Tensor:
    """Sparseness by Vinje and Gallant over the last axis; 0 if all numbers are zero or there is only one.

    Examples
    --------
    >>> sparseness(torch.tensor([[0.0, 3.0, 0.0], [2.0, 2.0, 2.0], [0.0, 0.0, 0.0]])).tolist()
    [1.0, 0.0, 0.0]
    """
    return _sparseness(responses.double().sum(-1), responses.double().square().sum(-1), responses.shape[-1])


def _sparseness(total: Tensor, square: Tensor, n: int) -> Tensor:
    if n < 2:
        return torch.zeros_like(total)
    density = torch.where(square > 0, total.square() / (n * square.where(square > 0, torch.ones_like(square))), 1.0)
    return ((1 - density) / (1 - 1 / n)).clamp(0, 1)


class _PeakActivations:
    """Per image the maximum; summed over images the locality, with the maximum as weight."""

    def __init__(self, layer: Layer, images: int) -> None:
        self._axes = layer.axes
        self.maximum = torch.zeros(layer.units, images, dtype=torch.float32, device="cpu")
        self.extended = False
        self._weighted = torch.zeros(layer.units, dtype=torch.float64, device="cpu")

    def read(self, value: Tensor, batch: Batch) -> None:
        """Add one batch."""
        value = self._axes.per_unit(value, len(batch.indices))
        positive = value.clamp(min=0).float()
        peak = positive.amax(2)
        square = torch.linalg.vector_norm(positive, dim=2).square()
        local = _sparseness(positive.sum(2).double(), square.double(), value.shape[2])
        self.extended = value.shape[2] > 1
        self.maximum[:, batch.indices] = peak.T.cpu()
        self._weighted += (local * peak).sum(0).cpu()

    def locality(self) -> Tensor:
        """(units,) mean over images, with their maxima as weights."""
        weight = self.maximum.double().sum(1)
        return torch.where(weight > 0, self._weighted / weight.where(weight > 0, torch.ones_like(weight)), 0.0)
