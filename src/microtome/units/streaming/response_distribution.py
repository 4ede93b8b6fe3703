"""Distribution of a unit's activations over images: quantiles, histograms by class, selectivity, examples by bin."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.units.streaming.layer_statistics import Summary

Array = NDArray[np.floating]

LEVELS = 101  # quantiles at 0, 1, ..., 100 %
REST = -1  # the class index for all other images


@dataclass(frozen=True)
class Sample:
    """The images behind the distributions: all, or a random sample that fits into memory.

    Attributes
    ----------
    row : Tensor
        (images of the data set,) index among the sampled images; -1 for images outside the sample.
    draw : Tensor
        (images of the data set,) a random number in [0, 1) per image, which selects its random position.
    """

    row: Tensor
    draw: Tensor

    @property
    def size(self) -> int:
        """Number of images in the sample."""
        return int((self.row >= 0).sum())

    def within(self, start: int, stop: int) -> Sample:
        """The sampled images among those from ``start`` to ``stop``, counted from 0."""
        row = torch.full_like(self.row, -1)
        chosen = (self.row[start:stop] >= 0).nonzero()[:, 0] + start
        row[chosen] = torch.arange(len(chosen), device="cpu")
        return Sample(row, self.draw)


def draw(images: int, size: int, seed: int) -> Sample:
    """Draw ``size`` of ``images`` without replacement, in the order of the data set."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.full((images,), -1, device="cpu")
    chosen = torch.randperm(images, generator=generator, device="cpu")[:size].sort().values
    row[chosen] = torch.arange(len(chosen), device="cpu")
    return Sample(row, torch.rand(images, generator=generator, dtype=torch.float64, device="cpu"))


class SampledActivations:
    """One layer's activations on the sampled images: per image the maximum, its position, the mean, one random value.

    Parameters
    ----------
    units : int
        Number of units.
    sample : Sample
        The images.
    dtype : torch.dtype
        Precision of the network.
    """

    def __init__(self, units: int, sample: Sample, dtype: torch.dtype) -> None:
        precision = np.float64 if dtype == torch.float64 else np.float32
        self.sample = sample
        self._tables = [np.zeros((sample.size, units), kind) for kind in (precision, precision, precision, np.int32)]
        self.image = torch.nonzero(sample.row >= 0)[:, 0]
        self._filled = np.zeros(sample.size, bool)

    def add(self, value: Tensor, summary: Summary, indices: Tensor) -> None:
        """Add the sampled images of a batch: value (n, units, positions), its summary, the images' indices."""
        rows = self.sample.row[indices]
        sampled = torch.nonzero(rows >= 0)[:, 0]
        if not len(sampled):
            return
        images, positions = rows[sampled].numpy(), value.shape[2]
        position = (self.sample.draw[indices[sampled]] * positions).long().to(value.device)
        sampled = sampled.to(value.device)
        statistics = (
            summary.high[sampled],
            summary.mean[sampled],
            value[sampled, :, position].to(summary.high.dtype),
            summary.high_at[sampled],
        )
        for table, new in zip(self._tables, statistics, strict=True):
            table[images] = new.cpu().numpy()
        self._filled[images] = True

    def entries(self) -> tuple[Tensor, ...]:
        """For merging: the added sampled images (n,), and (n, units) of each table."""
        return self.image[self._filled], *(torch.from_numpy(table[self._filled]) for table in self._tables)

    def absorb(self, entries: Sequence[Tensor]) -> None:
        """Merge the ``entries`` of other images of the same sample."""
        rows = self.sample.row[entries[0]].numpy()
        for table, new in zip(self._tables, entries[1:], strict=True):
            table[rows] = new.numpy()
        self._filled[rows] = True

    @property
    def maximum(self) -> Array:
        """(units, sampled images): the largest activation of each image."""
        return np.ascontiguousarray(self._tables[0].T)

    @property
    def average(self) -> Array:
        """(units, sampled images): the mean over positions."""
        return np.ascontiguousarray(self._tables[1].T)

    @property
    def single(self) -> Array:
        """(units, sampled images): the value at one random position of each image."""
        return np.ascontiguousarray(self._tables[2].T)

    @property
    def at(self) -> NDArray[np.int32]:
        """(units, sampled images): the position of the largest activation."""
        return np.ascontiguousarray(self._tables[3].T)


def quantiles(table: Array) -> Tensor:
    """Quantiles (units, 101) of the rows of a table (units, images), with linear interpolation."""
    ordered = np.sort(table, axis=1)
    place = np.linspace(0, ordered.shape[1] - 1, LEVELS)
    low = np.floor(place).astype(int)
    high = np.minimum(low + 1, ordered.shape[1] - 1)
    share = (place - low).astype(table.dtype)
    return torch.from_numpy(ordered[:, low] * (1 - share) + ordered[:, high] * share)


def percentile(knots: Tensor, value: float) -> float:
    """The share of the data, in percent, that does not exceed a value, from quantiles (101,).

    Examples
    --------
    >>> percentile(torch.linspace(0, 1, 101), 0.25), percentile(torch.zeros(101), 0.0), percentile(torch.zeros(101), -1)
    (25.0, 100.0, 0.0)
    """
    q = knots.double().numpy()
    after = int(np.searchsorted(q, float(torch.tensor(value, dtype=knots.dtype, device="cpu")), side="right"))
    if after in (0, len(q)):
        return 100.0 * (after > 0)
    return float(after - 1 + (value - q[after - 1]) / (q[after] - q[after - 1]))


def examples(activations: SampledActivations, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """One image per quantile bin of the per-image maximum: the image in the middle of the bin.

    Bin b of B holds the images between the quantiles b/B and (b+1)/B. Its example has rank
    floor((b + 1/2) S / B) among the S sampled images in ascending order.

    Returns
    -------
    image, at, value : Tensor
        (units, bins), highest bin first.
    """
    maximum = activations.maximum
    size = maximum.shape[1]
    order = np.argsort(maximum, axis=1, kind="stable")
    rank = np.floor((np.arange(bins)[::-1] + 0.5) * size / bins).astype(int)
    column = order[:, rank]
    return (
        activations.image[torch.from_numpy(column)],
        torch.from_numpy(np.take_along_axis(activations.at, column, 1).astype(np.int64)),
        torch.from_numpy(np.take_along_axis(maximum, column, 1)),
    )


def histogram(table: Array, labels: Tensor | None, groups: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Histogram of the rows of a table (units, images), in equal bins between each unit's lowest and highest value.

    Parameters
    ----------
    table : array
        (units, images).
    labels : Tensor, optional
        (images,) classes.
    groups : Tensor
        (units, g) the classes with their own counts for each unit; ``REST`` counts all others.
    bins : int
        Number of bins.

    Returns
    -------
    counts, edges : Tensor
        (units, g, bins) and (units, bins + 1).
    """
    units, images = table.shape
    low, high = table.min(axis=1, keepdims=True).astype(np.float64), table.max(axis=1, keepdims=True).astype(np.float64)
    width = np.where(high > low, high - low, 1.0)
    place = np.minimum(((table - low) / width * bins).astype(np.int64), bins - 1)
    group = np.zeros((units, images), np.int64)
    if labels is not None:
        group[:] = groups.shape[1] - 1  # REST is the last column
        for column in range(groups.shape[1] - 1):
            group[labels.numpy()[None, :] == groups[:, column : column + 1].numpy()] = column
    flat = (np.arange(units)[:, None] * groups.shape[1] + group) * bins + place
    counts = np.bincount(flat.ravel(), minlength=units * groups.shape[1] * bins)
    edges = low + width * np.linspace(0, 1, bins + 1)
    return torch.from_numpy(counts.reshape(units, groups.shape[1], bins)), torch.from_numpy(edges)


def class_means(table: Array, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The classes in the data (K,), and the mean activation of every unit on each class (units, K)."""
    present = torch.unique(labels[labels >= 0])
    means = [torch.from_numpy(table[:, (labels == label).numpy()].mean(axis=1, dtype=np.float64)) for label in present]
    return present, torch.stack(means, 1) if means else torch.zeros(len(table), 0, dtype=torch.float64, device="cpu")


def selectivity(means: Tensor) -> Tensor:
    r"""Class selectivity index (units,) in [0, 1], from mean activations by class (units, K) [1]_.

    .. math:: s = \frac{\mu_{\max} - \mu_{-\max}}{\mu_{\max} + \mu_{-\max}}

    :math:`\mu_{\max}` is the highest class mean, :math:`\mu_{-\max}` the mean over the other classes. Negative
    means count as zero, so that the index is defined for layers with negative values. The index is 0 for a
    unit without positive means and for a data set with one class.

    References
    ----------
    .. [1] Morcos, Barrett, Rabinowitz, Botvinick. On the importance of single directions for
       generalization. ICLR 2018.

    Examples
    --------
    >>> selectivity(torch.tensor([[3.0, 1.0, 1.0], [0.0, 0.0, 0.0], [2.0, 0.0, 0.0]])).tolist()
    [0.5, 0.0, 1.0]
    """
    if means.shape[1] < 2:
        return torch.zeros(len(means), dtype=means.dtype, device=means.device)
    above = means.clamp(min=0)
    highest = above.amax(1)
    rest = (above.sum(1) - highest) / (means.shape[1] - 1)
    both = highest + rest
    return torch.where(both > 0, (highest - rest) / both.where(both > 0, torch.ones_like(both)), torch.zeros_like(both))
