"""Quality of a map: kept neighbours, trustworthiness, accuracy of nearest neighbours in the layer and on the map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.representation.neighbours import Indices, Points, blocks, nearest


@dataclass(frozen=True)
class Quality:
    """How well a map shows the layer; the attributes are those of ``ImageMap``."""

    k: int
    trust: Tensor
    trustworthiness: float
    layer_accuracy: float | None
    map_accuracy: float | None


def quality(values: Points, points: Points, labels: Tensor | None, *, known: Indices | None = None) -> Quality:
    """Compare the neighbours in the layer with those on the map.

    Parameters
    ----------
    values : array
        (N, F) the layer's features.
    points : array
        (N, 2) the map.
    labels : Tensor or None
        (N,) class indices, -1 without one.
    known : array, optional
        (N, at least k) the nearest neighbours in the layer, nearest first, where they have been found already.
    """
    count = len(values)
    k = min(10, max(1, (count - 1) // 2))
    layer = nearest(values, k)[0] if known is None or known.shape[1] < k else known[:, :k]
    drawn = nearest(points, k)[0]
    kept = (layer[:, :, None] == drawn[:, None, :]).any(2).mean(1)
    return Quality(
        k=k,
        trust=torch.from_numpy(kept),
        trustworthiness=trustworthiness(values, drawn, layer),
        layer_accuracy=accuracy(layer, labels),
        map_accuracy=accuracy(drawn, labels),
    )


def trustworthiness(values: Points, drawn: Indices, layer: Indices) -> float:
    r"""The trustworthiness of a map (Venna and Kaski, 2001).

    .. math:: 1 - \frac{2}{N k (2N - 3k - 1)} \sum_i \sum_{j \in U_i} (r(i, j) - k)

    :math:`U_i` are the neighbours on the map that are none in the layer, :math:`r(i, j)` their rank there.
    """
    count, k = drawn.shape
    if 2 * count - 3 * k - 1 <= 0:
        return 1.0
    strange = ~(drawn[:, :, None] == layer[:, None, :]).any(2)
    penalty = 0.0
    for rows, squared in blocks(values):
        away = np.take_along_axis(squared, drawn[rows], 1)
        for place in range(k):
            where = np.flatnonzero(strange[rows, place])
            ranks = 1 + (squared[where] < away[where, place, None]).sum(1)
            penalty += float(np.maximum(ranks - k, 0).sum())
    return float(1 - 2 * penalty / (count * k * (2 * count - 3 * k - 1)))


def accuracy(neighbours: Indices, labels: Tensor | None) -> float | None:
    """Share of the labelled images whose class most of their labelled neighbours have; None without labels.

    Where classes have equally many neighbours, the one with the nearest of them counts.
    """
    if labels is None or not bool((labels >= 0).any()):
        return None
    told: NDArray[np.int64] = labels.cpu().numpy()
    around = told[neighbours]
    votes = np.zeros((len(told), int(told.max()) + 1))
    bonus = 0.5 ** np.arange(2, around.shape[1] + 2)  # less than a vote in sum; decides among equals
    for place in range(around.shape[1]):
        rows = np.flatnonzero(around[:, place] >= 0)
        votes[rows, around[rows, place]] += 1 + bonus[place]
    asked = told >= 0
    right = (votes.argmax(1) == told) & (votes.max(1) > 0)
    return float(right[asked].mean())
