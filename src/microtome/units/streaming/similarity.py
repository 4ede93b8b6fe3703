"""Similarity of units: correlation of the activations of a layer's units over the data."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import overload

import torch
from torch import Tensor

from microtome.data import Dataset
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, stated
from microtome.trace.graph import Layer
from microtome.units.streaming import streaming_pass
from microtome.units.streaming.layer_statistics import rounding
from microtome.units.streaming.streaming_pass import Batch


@dataclass(frozen=True, eq=False, kw_only=True)
class Similarity(Result, drawing="units.unit_figures:similarity"):
    """Correlations between the units of a layer.

    Attributes
    ----------
    layer : str
        The layer.
    correlation : Tensor
        (units, units) Pearson correlation; NaN for a constant unit.
    images : int
        Number of images.
    """

    layer: str
    correlation: Tensor
    images: int

    def nearest(self, unit: int, k: int = 5) -> list[tuple[int, float]]:
        """The units with the highest correlation with a unit, highest first, without constant units."""
        row = self.correlation[unit].clone()
        row[unit] = float("nan")
        order = torch.nan_to_num(row, nan=-2.0).argsort(dim=0, descending=True, stable=True)
        return [(int(other), float(row[other])) for other in order[:k] if not torch.isnan(row[other])]

    def repeats(self, above: float = 0.95) -> list[tuple[int, int, float]]:
        """Pairs of units with a correlation above a threshold, highest first."""
        upper = torch.nan_to_num(self.correlation, nan=0.0).triu(1)
        pairs = [(int(a), int(b), float(upper[a, b])) for a, b in (upper > above).nonzero()]
        return sorted(pairs, key=lambda pair: -pair[2])


@overload
def similar(net: Network, dataset: Dataset, layers: str, *, batch: int | None = None) -> Similarity: ...  # type: ignore[overload-overlap]  # str is an Iterable[str]
@overload
def similar(
    net: Network, dataset: Dataset, layers: Iterable[str], *, batch: int | None = None
) -> dict[str, Similarity]: ...
@register("similar-units", rows=("B4", "G1"), paper="zhou2015object", needs="a data set", kind="units")
def similar(
    net: Network, dataset: Dataset, layers: str | Iterable[str], *, batch: int | None = None
) -> Similarity | dict[str, Similarity]:
    r"""Correlate the activations of a layer's units over all images and positions [1]_.

    .. math:: r_{uv} = \frac{\operatorname{cov}(f_u, f_v)}{\sqrt{\operatorname{var} f_u \operatorname{var} f_v}}

    Two units correlate if they are active at the same positions of the same pictures.

    Parameters
    ----------
    net : Network
        The network.
    dataset : Dataset
        Images with or without labels.
    layers : str or iterable of str
        One layer, or several in one pass over the images.
    batch : int, optional
        Number of images per pass.

    Returns
    -------
    Similarity or dict of str to Similarity
        ``.correlation`` (units, units), ``.nearest(unit)``, ``.repeats()`` of one layer; by layer if
        ``layers`` is an iterable.

    Raises
    ------
    LayerError
        When the layer does not exist or has no units.

    Notes
    -----
    Cost: one forward pass up to the last layer, and units squared times positions multiplications per image.
    What it does not show: units with equal maps at shifted positions.

    References
    ----------
    .. [1] Zhou, Khosla, Lapedriza, Oliva and Torralba, Object detectors emerge in deep scene CNNs, ICLR 2015.

    Examples
    --------
    >>> model = torch.nn.Conv2d(1, 2, 1, bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([1.0, -3.0]).view(2, 1, 1, 1))
    >>> net = Network(torch.nn.Sequential(model, torch.nn.Flatten()), (1, 1, 2))
    >>> similar(net, [torch.tensor([[[0.25, 0.5]]])], "0").nearest(0)
    [(1, -1.0)]
    """
    sums = {layer.name: _Products(layer) for layer in streaming_pass.selected_layers(net, layers)}
    images = streaming_pass.read(net, dataset, {name: one.read for name, one in sums.items()}, batch=batch)
    results = {
        name: Similarity(
            provenance=stated(layers=name, images=images),
            layer=name,
            correlation=one.correlation(),
            images=images,
        )
        for name, one in sums.items()
    }
    return next(iter(results.values())) if isinstance(layers, str) else results


class _Products:
    """Sums of products of activations minus the first batch's means, each unit at a scale of its own.

    The shift reduces cancellation; the scales, powers of two, keep the squares of huge and small activations in range.
    """

    def __init__(self, layer: Layer) -> None:
        units, self._axes = layer.units, layer.axes
        self._product = torch.zeros(units, units, dtype=torch.float64, device="cpu")
        self._total = torch.zeros(units, dtype=torch.float64, device="cpu")
        self._scale = torch.zeros(units, dtype=torch.float64, device="cpu")
        self._shift: Tensor | None = None
        self._rounding = 0.0
        self._count = 0

    def read(self, value: Tensor, batch: Batch) -> None:
        """Add one batch."""
        flat = self._axes.per_unit(value, len(batch.indices)).transpose(0, 1).flatten(1)
        self._rounding = max(self._rounding, rounding(flat.dtype))
        flat = flat if flat.dtype == torch.float64 else flat.float()
        if self._shift is None:
            self._shift = flat.mean(1, keepdim=True)
        flat = flat - self._shift
        flat = flat / self._scales(flat.abs().amax(1).double().cpu()).to(flat)[:, None]
        self._product += (flat @ flat.T).double().cpu()
        self._total += flat.sum(1).double().cpu()
        self._count += flat.shape[1]

    def _scales(self, largest: Tensor) -> Tensor:
        """The scale of each unit for its largest activation so far; the sums are brought to it."""
        exponent = torch.frexp(torch.maximum(largest, self._scale / 2))[1]
        scale = torch.where((largest > 0) | (self._scale > 0), torch.ldexp(torch.ones_like(largest), exponent), 0.0)
        change = torch.where(scale > 0, self._scale / scale.where(scale > 0, torch.ones_like(scale)), 0.0)
        self._product *= change[:, None] * change
        self._total *= change
        self._scale = scale
        return torch.where(scale > 0, scale, 1.0)

    def correlation(self) -> Tensor:
        """(units, units); NaN for constant units."""
        assert self._shift is not None  # noqa: S101 - a pass reads at least one image
        mean = self._total / self._count
        covariance = self._product / self._count - mean[:, None] * mean[None, :]
        deviation = covariance.diagonal().clamp(min=0).sqrt()
        level = (self._shift[:, 0].double().cpu() + mean * self._scale).abs()
        # The variance of a constant unit is not exactly zero: values and products are rounded.
        varies = (deviation * self._scale > self._rounding * level) & (deviation > 0)
        deviation = torch.where(varies, deviation, torch.nan)
        return (covariance / deviation[:, None] / deviation[None, :]).clamp(-1, 1)
