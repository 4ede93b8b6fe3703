"""Quality of a map: kept neighbours, trustworthiness, accuracy of nearest neighbours in the layer and on the map."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from microtome.representation.neighbours import Indices, Points, blocks, distances_to, nearest


@dataclass(frozen=True)
class Quality:
    """Quality of a map; the attributes are those of ``ImageMap``."""

    k: int
    trust: Tensor
    trustworthiness: float
    layer_accuracy: float | None
    map_accuracy: float | None


def quality(
    values: Points, points: Points, labels: Tensor | None, *, known: tuple[Indices, Points] | None = None
) -> Quality:
    """Compare the neighbours in the layer with those on the map.

    Parameters
    ----------
    values : array
        (N, F) the layer's features.
    points : array
        (N, 2) the map.
    labels : Tensor or None
        (N,) class indices, -1 without one.
    known : two arrays, optional
        (N, at least k) the nearest neighbours in the layer, nearest first, and their distances, where they have been
        found already.
    """
    count = len(values)
    k = min(10, max(1, (count - 1) // 2))
    if known is None or known[0].shape[1] < k:
        known = nearest(values, k)
    layer, farthest = known[0][:, :k], known[1][:, k - 1 : k]
    drawn = nearest(points, k)[0]
    # Of several images at the same distance any may be the k-th: those of a dead layer are all equally near.
    kept = (layer[:, :, None] == drawn[:, None, :]).any(1) | (distances_to(values, values, drawn) <= farthest)
    return Quality(
        k=k,
        trust=torch.from_numpy(kept.mean(1)),
        trustworthiness=trustworthiness(values, drawn, *known),
        layer_accuracy=accuracy(layer, labels),
        map_accuracy=accuracy(drawn, labels),
    )


def trustworthiness(values: Points, drawn: Indices, layer: Indices, away: Points) -> float:
    r"""The trustworthiness of a map (Venna and Kaski, 2001).

    .. math:: 1 - \frac{2}{N k (2N - 3k - 1)} \sum_i \sum_{j \in U_i} (r(i, j) - k)

    :math:`U_i` are the neighbours on the map that are not neighbours in the layer, :math:`r(i, j)` their rank there.
    The rank of a known neighbour in ``layer`` (N, at least k) with the distances ``away`` is looked up; all distances
    are computed only for images that have others.
    """
    count, k = drawn.shape
    if 2 * count - 3 * k - 1 <= 0:
        return 1.0
    penalty = 0.0
    beyond = np.ones(drawn.shape, dtype=bool)
    for place in range(k):
        met = layer == drawn[:, place, None]
        beyond[:, place] = ~met.any(1)
        its = np.take_along_axis(away, met.argmax(1)[:, None], 1)
        ranks = 1 + (away < its).sum(1)
        penalty += float(np.maximum(ranks - k, 0)[~beyond[:, place]].sum())
    far = np.flatnonzero(beyond.any(1))
    for rows, squared in blocks(values, values[far]) if len(far) else ():
        images = far[rows]
        squared[np.arange(len(images)), images] = np.inf
        for place in range(k):
            where = np.flatnonzero(beyond[images, place])
            its = squared[where, drawn[images[where], place], None]
            penalty += float(np.maximum(1 + (squared[where] < its).sum(1) - k, 0).sum())
    return float(1 - 2 * penalty / (count * k * (2 * count - 3 * k - 1)))


def accuracy(neighbours: Indices, labels: Tensor | None) -> float | None:
    """Share of labelled images with the class of most of their labelled neighbours; None without labels of two classes.

    Ties are resolved by the nearest neighbour.
    """
    if labels is None or len(labels[labels >= 0].unique()) < 2:  # with one class every answer is right
        return None
    numbers, classes = np.unique(labels.cpu().numpy(), return_inverse=True)  # labels may be any numbers
    classes -= int((numbers < 0).sum())
    around = classes[neighbours]
    votes = np.zeros((len(classes), int(classes.max()) + 1))
    bonus = 0.5 ** np.arange(2, around.shape[1] + 2)  # less than a vote in sum; decides among equals
    for place in range(around.shape[1]):
        rows = np.flatnonzero(around[:, place] >= 0)
        votes[rows, around[rows, place]] += 1 + bonus[place]
    labelled = classes >= 0
    right = (votes.argmax(1) == classes) & (votes.max(1) > 0)
    return float(right[labelled].mean())
