"""Aligned maps through depth or time: t-SNE maps of successive layers or checkpoints on top of each other."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.registry import register
from microtome.representation.features import Features
from microtome.representation.neighbours import Points, one_thread
from microtome.representation.t_sne import NeighbourMap, embed
from microtome.results import Result

_ROUNDS = 200


@dataclass(frozen=True, eq=False, kw_only=True)
class AlignedMaps(Result, drawing="representation_figures:aligned_maps"):
    """Aligned maps of the same images.

    Attributes
    ----------
    maps : tuple of NeighbourMap
        One for each features, in their order; centred and aligned.
    moved : Tensor
        (maps - 1, N) distance of each image from its position on the map before, in the units of the maps.
    disparity : float
        Share of the maps' total squared size that is not common to them: 0 if all are equal.
    """

    maps: tuple[NeighbourMap, ...]
    moved: Tensor
    disparity: float


@register("aligned-maps", rows=("E1",), paper="gower1975generalized", needs="features", kind="representation")
def aligned(features: Sequence[Features], *, perplexity: float = 30, seed: int = 0) -> AlignedMaps:
    r"""Map successive layers or checkpoints, each from where the one before ended, then align all maps [1]_.

    .. math:: \min_{Z, R_1, \ldots, R_m} \sum_m \lVert Y_m R_m - Z \rVert_F^2, \qquad R_m^\top R_m = 1

    Rotation and reflection change no distance within a map; sizes are kept.

    Parameters
    ----------
    features : sequence of Features
        Features of the same images in the same order: of successive layers, or of a layer at successive checkpoints.
    perplexity : float
        As for ``tsne``.
    seed : int
        As for ``tsne``.

    Returns
    -------
    AlignedMaps
        ``.maps``, ``.moved`` (maps - 1, N), ``.disparity``.

    Raises
    ------
    InputError
        When there are fewer than two, or they belong to different images; and as ``tsne``.

    Notes
    -----
    Cost: one ``tsne`` for each. A map that starts at the one before takes 750 steps without early exaggeration; the
    maps of layers that differ clearly then have about a quarter of the disparity of maps made apart, and a KL that is
    at most a tenth higher (digits with noise). What it does not show: an image may move because its neighbours do, or
    because t-SNE found another optimum; compare ``.moved`` with a map of another seed.

    References
    ----------
    .. [1] J. C. Gower, Generalized Procrustes analysis, Psychometrika 40, 1975.

    Examples
    --------
    >>> from torch import nn
    >>> from microtome import Network
    >>> model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    >>> net = Network(model.eval(), input_shape=(1, 8, 8))
    >>> pictures = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> from microtome.data import Images
    >>> photos = Images.from_float(pictures, torch.arange(12) % 2)
    >>> from microtome.representation import features
    >>> maps = aligned([features(net, photos, "0"), features(net, photos, "2")], perplexity=3)
    >>> [tuple(each.points.shape) for each in maps.maps]
    [(12, 2), (12, 2)]
    """
    given = [] if isinstance(features, Features) else list(features)
    if len(given) < 2 or not all(isinstance(one, Features) for one in given):
        raise InputError("at least two Features were expected, of successive layers or checkpoints.")
    counts = sorted({len(one.values) for one in given})
    labels = [one.labels for one in given if one.labels is not None]
    if len(counts) > 1 or any(not torch.equal(labels[0], other) for other in labels[1:]):
        why = f"of {' and '.join(map(str, counts))} images" if len(counts) > 1 else "with different labels"
        raise InputError(f"the features must be of the same images in the same order; got some {why}.")
    found: list[NeighbourMap] = []
    for one in given:
        found.append(embed(one, perplexity, seed, found[-1].points.numpy() if found else None))
    with one_thread():
        turned, disparity = procrustes([one.points.numpy() for one in found])
    maps = tuple(
        dataclasses.replace(one, points=torch.from_numpy(points)) for one, points in zip(found, turned, strict=True)
    )
    steps = [(after.points - before.points).norm(dim=1) for before, after in itertools.pairwise(maps)]
    return AlignedMaps(maps=maps, moved=torch.stack(steps), disparity=disparity)


def procrustes(maps: Sequence[Points]) -> tuple[list[Points], float]:
    """Maps centred and rotated (or reflected) towards their common mean, and the remaining share of their size."""
    turned = [points - points.mean(0) for points in maps]
    for place in range(1, len(turned)):  # each towards the one before, where the common mean's search begins
        turned[place] = _turned(turned[place], turned[place - 1])
    size = sum(float(np.square(points).sum()) for points in turned)
    left = np.inf
    for _ in range(_ROUNDS):
        middle = np.mean(turned, axis=0)
        turned = [_turned(points, middle) for points in turned]
        now = sum(float(np.square(points - np.mean(turned, axis=0)).sum()) for points in turned) / size
        if left - now <= 1e-14:
            break
        left = now
    return turned, now


def _turned(points: Points, towards: Points) -> Points:
    """Points rotated and reflected to minimise the distance: the orthogonal Procrustes problem."""
    left, _, right = np.linalg.svd(points.T @ towards)
    turned: Points = points @ (left @ right)
    return turned
