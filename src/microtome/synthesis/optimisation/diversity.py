"""Similarity of the textures of several images: the cosine between Gram matrices."""

from __future__ import annotations

import torch
from torch import Tensor


def similarity(value: Tensor, group: int) -> Tensor:
    r"""Cosine between the Gram matrices of an image and of the others in its group, averaged, in [0, 1].

    .. math:: s_a = \frac{1}{k - 1} \sum_{b \ne a} \frac{\langle F_a F_a^T, F_b F_b^T \rangle}
                    {\|F_a F_a^T\| \, \|F_b F_b^T\|}

    with F (channels x positions) the maps of a layer. If there are fewer positions than channels, the
    equal :math:`\|F_a^T F_b\|^2 = \langle F_a F_a^T, F_b F_b^T\rangle` is cheaper [1]_.

    Parameters
    ----------
    value : Tensor
        (n, C, ...). Images of a group follow each other.
    group : int
        Number of images in a group.

    References
    ----------
    .. [1] Olah, Mordvintsev, Schubert: Feature Visualization, Distill 2017.

    Examples
    --------
    >>> similarity(torch.eye(2), 2), similarity(torch.ones(2, 2), 2)
    (tensor([0., 0.]), tensor([1., 1.]))
    """
    flat = value.reshape(value.shape[0] // group, group, value.shape[1], -1)
    flat = flat / flat.flatten(2).norm(dim=2).clamp(min=1e-12)[:, :, None, None]
    if flat.shape[3] < flat.shape[2]:
        inner = torch.einsum("gacp,gbcq->gabpq", flat, flat).square().sum((3, 4))
    else:
        gram = torch.einsum("gacp,gadp->gacd", flat, flat).flatten(2)
        inner = gram @ gram.transpose(1, 2)
    own = inner.diagonal(dim1=1, dim2=2).clamp(min=1e-24).sqrt()
    alike = inner / (own[:, :, None] * own[:, None, :])
    others = (alike.sum(2) - alike.diagonal(dim1=1, dim2=2)) / max(group - 1, 1)
    return others.flatten()
