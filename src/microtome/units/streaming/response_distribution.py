"""Distribution of a unit's responses over the images: quantiles, histograms by class, selectivity, examples by bin."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.units.streaming.layer_statistics import Summary

Array = NDArray[np.floating]

LEVELS = 101  # quantiles at 0, 1, ..., 100 %
REST = -1  # the class number of all other images


@dataclass(frozen=True)
class Sample:
    """Which images the distributions are taken from: all, or as many drawn at random as memory allows.

    Attributes
    ----------
    row : Tensor
        (images of the data set,) place among the sampled images, -1 for those left out.
    draw : Tensor
        (images of the data set,) a number in [0, 1) per image: where its one random position lies.
    """

    row: Tensor
    draw: Tensor

    @property
    def size(self) -> int:
        """How many images are in it."""
        return int((self.row >= 0).sum())


def draw(images: int, size: int, seed: int) -> Sample:
    """Choose ``size`` of ``images`` without repeats, in the data set's order."""
    generator = torch.Generator().manual_seed(seed)
    row = torch.full((images,), -1)
    chosen = torch.randperm(images, generator=generator)[:size].sort().values
    row[chosen] = torch.arange(len(chosen))
    return Sample(row, torch.rand(images, generator=generator, dtype=torch.float64))


class Responses:
    """One layer's responses to the sampled images: per image the maximum with its position, the mean, one position.

    Parameters
    ----------
    units : int
        Rows.
    sample : Sample
        Columns.
    dtype : torch.dtype
        Precision of the network.
    """

    def __init__(self, units: int, sample: Sample, dtype: torch.dtype) -> None:
        wide = np.float64 if dtype == torch.float64 else np.float32
        self.sample = sample
        self._tables = [np.zeros((sample.size, units), kind) for kind in (wide, wide, wide, np.int32)]
        self.image = torch.nonzero(sample.row >= 0)[:, 0]

    def add(self, value: Tensor, summary: Summary, indices: Tensor) -> None:
        """Keep what the sample holds of a batch: value (n, units, positions), its summary, the images' indices."""
        rows = self.sample.row[indices]
        kept = torch.nonzero(rows >= 0)[:, 0]
        if not len(kept):
            return
        images, positions = rows[kept].numpy(), value.shape[2]
        here = kept.to(value.device)
        spot = (self.sample.draw[indices[kept]] * positions).long().to(value.device)
        found = (
            summary.high[here],
            summary.total[here] / positions,
            value[here, :, spot].to(summary.high.dtype),
            summary.high_at[here],
        )
        for table, new in zip(self._tables, found, strict=True):
            table[images] = new.cpu().numpy()

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
        """(units, sampled images): where the largest activation is."""
        return np.ascontiguousarray(self._tables[3].T)


def quantiles(table: Array) -> Tensor:
    """Quantiles (units, 101) of the rows of a table (units, images), linear between neighbours."""
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
    after = int(np.searchsorted(q, float(torch.tensor(value, dtype=knots.dtype)), side="right"))
    if after in (0, len(q)):
        return 100.0 * (after > 0)
    return float(after - 1 + (value - q[after - 1]) / (q[after] - q[after - 1]))


def examples(responses: Responses, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """One image per quantile bin of the maxima: the one in the middle of the bin.

    Bin b of B holds the images between the quantiles b/B and (b+1)/B; its example has rank
    floor((b + 1/2) S / B) of the S sampled images in rising order.

    Returns
    -------
    image, at, value : Tensor
        (units, bins), highest bin first.
    """
    maximum = responses.maximum
    size = maximum.shape[1]
    order = np.argsort(maximum, axis=1, kind="stable")
    rank = np.floor((np.arange(bins)[::-1] + 0.5) * size / bins).astype(int)
    column = order[:, rank]
    return (
        responses.image[torch.from_numpy(column)],
        torch.from_numpy(np.take_along_axis(responses.at, column, 1).astype(np.int64)),
        torch.from_numpy(np.take_along_axis(maximum, column, 1)),
    )


def histogram(table: Array, labels: Tensor | None, groups: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Counts of a table (units, images) in equal bins between each unit's lowest and highest value.

    Parameters
    ----------
    table : array
        (units, images).
    labels : Tensor, optional
        (images,) classes.
    groups : Tensor
        (units, g) the classes counted apart for each unit; ``REST`` takes all others.
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
    which = np.zeros((units, images), np.int64)
    if labels is not None:
        given = labels.numpy()
        which[:] = groups.shape[1] - 1  # REST is the last column
        for column in range(groups.shape[1] - 1):
            which[given[None, :] == groups[:, column : column + 1].numpy()] = column
    flat = (np.arange(units)[:, None] * groups.shape[1] + which) * bins + place
    counts = np.bincount(flat.ravel(), minlength=units * groups.shape[1] * bins)
    edges = low + width * np.linspace(0, 1, bins + 1)
    return torch.from_numpy(counts.reshape(units, groups.shape[1], bins)), torch.from_numpy(edges)


def class_means(table: Array, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The classes that occur (K,) and the mean response of every unit to each of them (units, K)."""
    present = torch.unique(labels[labels >= 0])
    means = [torch.from_numpy(table[:, (labels == label).numpy()].mean(axis=1, dtype=np.float64)) for label in present]
    return present, torch.stack(means, 1) if means else torch.zeros(len(table), 0, dtype=torch.float64)


def selectivity(means: Tensor) -> Tensor:
    r"""How much one class stands out: (units,) in [0, 1], from mean responses (units, K).

    .. math:: s = \frac{\mu_{\max} - \mu_{-\max}}{\mu_{\max} + \mu_{-\max}}

    with the highest class mean and the mean over the other classes. Responses are taken above zero,
    so that the index is defined for layers with negative values; a unit that never rises above zero,
    and a data set of one class, give 0 [1]_.

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
        return torch.zeros(len(means), dtype=means.dtype)
    above = means.clamp(min=0)
    highest = above.amax(1)
    rest = (above.sum(1) - highest) / (means.shape[1] - 1)
    both = highest + rest
    return torch.where(both > 0, (highest - rest) / both.where(both > 0, torch.ones_like(both)), torch.zeros_like(both))
