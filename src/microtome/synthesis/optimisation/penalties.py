"""Penalties that are low for natural images: squared norm, alpha norm and total variation per image."""

from __future__ import annotations

import torch
from torch import Tensor


def l2(images: Tensor, centre: Tensor | float = 0.0) -> Tensor:
    r"""Squared distance from a flat image, :math:`\sum_p (x_p - c)^2`: eq. 12 of the lectures.

    Examples
    --------
    >>> l2(torch.full((1, 1, 2, 2), 3.0), 1.0)
    tensor([16.])
    """
    return (images - centre).square().flatten(1).sum(1)


def alpha_norm(images: Tensor, centre: Tensor | float = 0.0, alpha: float = 6.0) -> Tensor:
    r""":math:`\sum_p |x_p - c|^\alpha`, which is small unless values are extreme [1]_.

    References
    ----------
    .. [1] Mahendran, Vedaldi: Understanding Deep Image Representations by Inverting Them, CVPR 2015.
    """
    return (images - centre).abs().pow(alpha).flatten(1).sum(1)


def total_variation(images: Tensor, beta: float = 2.0) -> Tensor:
    r""":math:`\sum_{i,j} \big((x_{i,j+1} - x_{ij})^2 + (x_{i+1,j} - x_{ij})^2\big)^{\beta/2}`, channels added [1]_.

    ``beta`` 1 permits sharp edges; 2 spreads edges and avoids spikes. Differences across the border
    are zero.

    Examples
    --------
    >>> total_variation(torch.tensor([[[[0.0, 3.0], [0.0, 4.0]]]]))
    tensor([26.])

    References
    ----------
    .. [1] Mahendran, Vedaldi: Understanding Deep Image Representations by Inverting Them, CVPR 2015.
    """
    right = torch.nn.functional.pad(images[..., :, 1:] - images[..., :, :-1], (0, 1))
    down = torch.nn.functional.pad(images[..., 1:, :] - images[..., :-1, :], (0, 0, 0, 1))
    squares = right.square() + down.square()
    if beta != 2.0:
        squares = (squares + 1e-12).pow(beta / 2)  # the root has no derivative at zero
    return squares.flatten(1).sum(1)
