"""PCA map: images by the two directions along which a layer's features vary most."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from microtome.registry import register
from microtome.representation.features import Features
from microtome.representation.image_map import ImageMap, measures, read_features, source, varying
from microtome.representation.map_quality import quality
from microtome.representation.neighbours import Points, one_thread

_DENSE = 2000  # up to this size a full decomposition; above, iteration of the largest pairs


@dataclass(frozen=True, eq=False, kw_only=True)
class PrincipalMap(ImageMap):
    """A map by principal components.

    Attributes
    ----------
    explained : Tensor
        (2,) share of the variance along each axis.
    mean : Tensor
        (F,) mean of the features.
    components : Tensor
        (2, F) orthonormal directions; the largest entry of each is positive.
    """

    explained: Tensor
    mean: Tensor
    components: Tensor

    def place(self, new: Features | Tensor) -> Tensor:
        """Coordinates (M, 2) of new images: their features, centred, along the components."""
        values = read_features(new, len(self.mean), self.layer)
        return torch.from_numpy((values - self.mean.numpy()) @ self.components.numpy().T)


@register("pca", rows=("E1",), paper="hotelling1933analysis", needs="features", kind="representation")
def pca(features: Features) -> PrincipalMap:
    r"""Map images by the first two principal components of their features [1]_.

    .. math:: y_n = V^\top (x_n - \bar{x}), \qquad \tfrac{1}{N} \sum_n (x_n - \bar{x})(x_n - \bar{x})^\top V = V \Lambda

    Parameters
    ----------
    features : Features
        Of one layer, see ``representation.features``.

    Returns
    -------
    PrincipalMap
        ``.points`` (N, 2), ``.explained`` (2,), ``.place(new)``, and the measures of ``ImageMap``.

    Raises
    ------
    InputError
        When there are fewer than four images, or the features do not vary or are not finite.

    Notes
    -----
    Cost: N F min(N, F) multiplications, and N squared F for the measures. What it does not show: everything outside the
    plane, whose share of the variance is one minus the sum of ``.explained``.

    References
    ----------
    .. [1] H. Hotelling, Analysis of a complex of statistical variables into principal components, Journal of
       Educational Psychology 24, 1933.

    Examples
    --------
    >>> corners = torch.tensor([[0.0, 0.0], [4.0, 0.0], [0.0, 1.0], [4.0, 1.0]])
    >>> pca(Features(layer="fc", reduce="mean", values=corners)).points[:, 0].tolist()
    [-2.0, 2.0, -2.0, 2.0]
    """
    values = read_features(features)
    varying(features.values)
    with one_thread():
        mean, components, explained = principal_axes(values)
        points = (values - mean) @ components.T
        found = quality(values, points, features.labels)
    return PrincipalMap(
        provenance=source(features),
        layer=features.layer,
        points=torch.from_numpy(points),
        labels=features.labels,
        explained=torch.from_numpy(explained),
        mean=torch.from_numpy(mean),
        components=torch.from_numpy(components),
        **measures(found),
    )


def principal_axes(values: Points) -> tuple[Points, Points, Points]:
    """Mean (F,), two orthonormal directions (2, F) and their shares of the variance (2,); zero if there is none."""
    from scipy.linalg import eigh
    from scipy.sparse.linalg import svds

    mean = values.mean(0)
    centred = values - mean
    centred = centred / max(float(np.abs(centred).max(initial=0)), 1e-300)  # so that squares stay in range
    total = float(np.einsum("nf,nf->", centred, centred))
    count, width = centred.shape
    size = min(count, width)
    if size > _DENSE:
        start = np.random.default_rng(0).standard_normal(size)
        right = svds(centred, k=2, v0=start, return_singular_vectors="vh")[2][::-1]
    elif width <= count:
        top = eigh(centred.T @ centred, subset_by_index=[max(width - 2, 0), width - 1])[1]
        right = top[:, ::-1].T
    else:
        top = eigh(centred @ centred.T, subset_by_index=[count - 2, count - 1])[1]
        right = (centred.T @ top[:, ::-1]).T
    components = np.zeros((2, width))
    explained = np.zeros(2)
    for place, direction in enumerate(right):
        direction = direction - components[:place].T @ (components[:place] @ direction)
        length = np.linalg.norm(direction)
        if length <= 1e-12 * np.sqrt(total):
            continue
        direction = direction / length
        components[place] = direction * np.sign(direction[np.abs(direction).argmax()])
        explained[place] = np.square(centred @ components[place]).sum() / total
    return mean, components, explained
