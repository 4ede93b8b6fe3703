"""t-SNE map: images in the plane such that neighbours in a layer stay neighbours."""

from __future__ import annotations

from dataclasses import dataclass
from types import ModuleType
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.progress import Clock
from microtome.registry import register
from microtome.representation.features import Features
from microtome.representation.image_map import ImageMap, measures, read_features, source, varying
from microtome.representation.map_quality import quality
from microtome.representation.neighbours import Indices, Points, blocks, nearest, one_thread
from microtome.representation.principal_components import principal_axes

if TYPE_CHECKING:
    from scipy.sparse import csr_matrix

_NEAR = 5  # perplexity for new images, openTSNE's default; three times as many neighbours


@dataclass(frozen=True, eq=False, kw_only=True)
class NeighbourMap(ImageMap):
    """A map by t-SNE.

    Attributes
    ----------
    kl : float
        Kullback-Leibler divergence of the map, in nats; exact.
    perplexity : float
        The perplexity.
    values : Tensor
        (N, F) the features of the mapped images, for placing new ones.
    """

    kl: float
    perplexity: float
    values: Tensor

    def place(self, new: Features | Tensor) -> Tensor:
        """Coordinates (M, 2) of new images on this map; the mapped images stay fixed.

        Each new image starts at the median of its 15 nearest neighbours and moves for 250 steps to match its
        similarities to the mapped images (perplexity 5); new images do not influence each other. This is
        openTSNE's ``transform`` with exact neighbours.
        """
        from openTSNE import affinity
        from openTSNE.tsne import PartialTSNEEmbedding, TSNEEmbedding
        from scipy.sparse import csr_matrix

        known = self.values.double().numpy()
        given = read_features(new, known.shape[1], self.layer)
        points = self.points.numpy()
        middle = (points.max(0) + points.min(0)) / 2
        # openTSNE's names for its defaults in `transform`
        steps = {"learning_rate": 0.1, "exaggeration": 1.5, "momentum": 0.8, "max_grad_norm": 0.25}
        with one_thread():
            near = min(len(known), 3 * _NEAR)
            found, away = nearest(known, near, given)
            likely = affinity.joint_probabilities_nn(
                found,
                away,
                [min(_NEAR, near / 3)],
                symmetrize=False,
                normalization="point-wise",
                n_reference_samples=len(known),
            )
            first = np.ascontiguousarray(np.median((points - middle)[found], axis=1))
            empty = affinity.PrecomputedAffinities(csr_matrix((len(known), len(known))), normalize=False)
            held = TSNEEmbedding(points - middle, affinities=empty, n_jobs=1)
            moved = PartialTSNEEmbedding(first, held, P=likely, n_jobs=1)
            moved.optimize(n_iter=250, inplace=True, max_step_norm=None, **steps)
        return torch.from_numpy(np.array(moved) + middle)


@register("tsne", rows=("E1",), paper="vandermaaten2008visualizing", needs="features", kind="representation")
def tsne(features: Features, *, perplexity: float = 30, seed: int = 0) -> NeighbourMap:
    r"""Map images such that similarities in the plane match those in the layer [1]_.

    .. math:: C = \sum_{i \ne j} p_{ij} \log \frac{p_{ij}}{q_{ij}}, \qquad
              q_{ij} \propto (1 + \lVert y_i - y_j \rVert^2)^{-1}

    :math:`p_{ij}` are Gaussian similarities of the features whose width at each image gives the perplexity. Computed by
    openTSNE [2]_ from exact neighbours, with 250 steps of early exaggeration and 500 after.

    Parameters
    ----------
    features : Features
        Of one layer, see ``representation.features``.
    perplexity : float
        The effective number of neighbours; at most a third of the number of other images.
    seed : int
        Seed of the small noise on the first positions, which are the principal components.

    Returns
    -------
    NeighbourMap
        ``.points`` (N, 2), ``.kl``, ``.trust`` (N,), ``.place(new)``, and the measures of ``ImageMap``.

    Raises
    ------
    InputError
        When the perplexity is too large for the number of images, the features do not vary or are not finite, or
        openTSNE is not installed.

    Notes
    -----
    The same seed gives the same bytes whatever the number of threads: all of it runs on one. Cost: N squared F
    multiplications for the neighbours, then 750 steps of N (Barnes and Hut; interpolation from 10,000 images on).
    Memory: the features in double precision. What it does not show: distances between groups, and their sizes; look at
    ``.trust``, which the figure draws as opacity.

    References
    ----------
    .. [1] L. van der Maaten and G. Hinton, Visualizing data using t-SNE, Journal of Machine Learning Research 9, 2008.
    .. [2] Poličar, Stražar and Zupan, openTSNE: a modular Python library for t-SNE dimensionality reduction and
       embedding, Journal of Statistical Software 109, 2024.

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
    >>> found = tsne(features(net, photos, "2"), perplexity=3)
    >>> tuple(found.points.shape)
    (12, 2)
    """
    return embed(features, perplexity, seed, None)


def embed(features: Features, perplexity: float, seed: int, before: Points | None) -> NeighbourMap:
    """The map that starts at the points (N, 2) of an earlier one, or at the principal components.

    An earlier map keeps its size and is not exaggerated again: either would lose its layout.
    """
    library = _open_tsne()
    values = read_features(features)
    varying(features.values)
    check_perplexity(perplexity, len(values))
    first_steps = 250 if before is None else 0
    last_steps = 500 if before is None else 750
    clock = Clock(None, first_steps + last_steps)

    def report(done: int, *_: Any) -> None:
        clock.step("steps of t-SNE", done)

    with one_thread():
        found, away = nearest(values, min(len(values) - 1, max(int(3 * perplexity), 10)))
        mean, components, _ = principal_axes(values)
        first = _small((values - mean) @ components.T, seed)
        optimizer = library.TSNE(n_jobs=1, random_state=seed)
        similar = affinities(library, found, away, perplexity)
        moving = optimizer.prepare_initial(affinities=similar, initialization=first)
        if before is None:
            moving.optimize(n_iter=first_steps, exaggeration=12, momentum=0.8, inplace=True, callbacks=report)
        else:
            moving[:] = before
        moving.optimize(
            n_iter=last_steps, momentum=0.8, inplace=True, callbacks=lambda done, *_: report(first_steps + done)
        )
        points = np.array(moving)
        kl = divergence(similar.P, points)
        measured = quality(values, points, features.labels, known=(found, away))
    return NeighbourMap(
        provenance=source(features),
        layer=features.layer,
        points=torch.from_numpy(points),
        labels=features.labels,
        kl=kl,
        perplexity=float(perplexity),
        values=features.values,
        **measures(measured),
    )


def affinities(library: ModuleType, found: Indices, away: Points, perplexity: float) -> Any:
    """Symmetric similarities of each image to its nearest neighbours, three times the perplexity of them."""
    from openTSNE.affinity import joint_probabilities_nn

    count = min(found.shape[1], int(3 * perplexity))
    likely = joint_probabilities_nn(found[:, :count], away[:, :count], [perplexity])
    return library.affinity.PrecomputedAffinities(likely, normalize=False)


def divergence(likely: csr_matrix, points: Points) -> float:
    """The Kullback-Leibler divergence (nats) of a map, exactly: openTSNE's own is that of its approximate gradient."""
    total = sum(float((1 / (1 + squared)).sum()) for _, squared in blocks(points))
    rows, columns = likely.nonzero()
    p = np.asarray(likely[rows, columns]).ravel()
    apart = np.square(points[rows] - points[columns]).sum(1)
    return float((p * (np.log(p) + np.log1p(apart) + np.log(total))).sum())


def check_perplexity(perplexity: float, count: int) -> None:
    """Check that a perplexity is positive and there are enough images.

    Raises
    ------
    InputError
        The check fails.
    """
    most = (count - 1) / 3
    if most < 1:
        raise InputError(f"t-SNE needs at least 4 images, got {count}. Give more images, or map them by PCA.")
    if not 1 <= perplexity <= most:
        raise InputError(
            f"the perplexity must be from 1 to a third of the number of other images, {most:.4g} for {count} "
            f"images; got {perplexity:g}. Give perplexity={max(1, int(most))} or more images."
        )


def _small(first: Points, seed: int) -> Points:
    """First positions scaled to a deviation of 1e-4 along the first axis, with noise a hundredth of it."""
    scaled = (first - first.mean(0)) * (1e-4 / np.std(first[:, 0]))
    noise = torch.randn(scaled.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64, device="cpu")
    return np.ascontiguousarray(scaled + 1e-6 * noise.numpy())


def _open_tsne() -> ModuleType:
    try:
        import openTSNE
        import openTSNE.affinity
    except ImportError as error:
        raise InputError("t-SNE needs openTSNE: pip install 'microtome[maps]'.") from error
    found: ModuleType = openTSNE
    return found
