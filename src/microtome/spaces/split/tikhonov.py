"""Tikhonov regularisation by the discrepancy principle: the smallest vector with nearly the same output.

For a map A, a vector x, its output y = A x and a threshold t, the problem is

    minimise |k|^2  subject to  |A k - y| <= t |y|.

It is convex and has one solution, k = (A^T A + lambda I)^-1 A^T y with the lambda for which equality holds. In the
singular basis of A every coefficient of x is multiplied by s^2 / (s^2 + lambda).

Source: V. A. Morozov. On the solution of functional equations by the method of regularization. Soviet Mathematics
Doklady 7, 1966; P. C. Hansen. Rank-Deficient and Discrete Ill-Posed Problems. SIAM, 1998, chapter 7.
"""

from __future__ import annotations

import torch
from torch import Tensor

_ROUNDS = 200  # maximum number of Newton steps; about ten suffice
_EXACT = 1e-15


def regularisation(squares: Tensor, outputs: Tensor, rest: Tensor, threshold: Tensor) -> Tensor:
    r"""The :math:`\lambda` at which the residual is ``threshold`` of the output, for each vector (N,).

    .. math:: \sum_i \Big(\frac{\lambda}{s_i^2 + \lambda}\Big)^2 d_i^2 + d_\perp^2 = t^2 \|y\|^2

    Parameters
    ----------
    squares : Tensor
        (N, r) or (1, r): squared singular values.
    outputs : Tensor
        (N, r): d, coefficients of y on the left singular vectors.
    rest : Tensor
        (N,): squared norm of the part of y outside all left singular vectors.
    threshold : Tensor
        (N,): t, between 0 and 1.

    Returns
    -------
    Tensor
        (N,); 0 if ``rest`` alone is above the threshold, so that no lambda reaches it.

    Examples
    --------
    For one singular value 2 and a threshold of one half, lambda = s^2:

    >>> one = torch.ones(1, 1, dtype=torch.float64)
    >>> round(regularisation(4 * one, 2 * one, 0 * one[0], 0.5 * one[0]).item(), 12)
    4.0
    """
    energy = outputs.square()
    wanted = threshold * (energy.sum(1) + rest).sqrt()
    reachable = wanted.square() > rest + torch.where(squares > 0, 0.0, energy).sum(1)
    inverse = torch.zeros_like(wanted)  # 1 / lambda: the inverse length of the residual is concave in it
    for _ in range(_ROUNDS):
        shrink = 1 / (1 + inverse[:, None] * squares)
        left = energy * shrink.square()
        square = left.sum(1) + rest
        slope = (left * squares * shrink).sum(1) / square**1.5
        step = torch.where(reachable & (slope > 0), (1 / wanted - square.rsqrt()) / slope, 0.0).clamp(min=0)
        inverse = inverse + step
        if not bool((step > _EXACT * inverse).any()):
            break
    return torch.where(reachable, 1 / inverse, 0.0)


def residual_factor(squares: Tensor, regularisation: Tensor) -> Tensor:
    """(N, r): lambda / (s^2 + lambda), the removed share of each coefficient; 1 where s is 0."""
    strength = regularisation[:, None]
    total = squares + strength
    return torch.where(total > 0, strength / torch.where(total > 0, total, 1.0), (squares == 0).to(total.dtype))


def lower_bound(output: Tensor, length: Tensor, pulled: Tensor, threshold: Tensor, whole: Tensor) -> Tensor:
    r"""A lower bound of the smallest squared norm, from any residual r: the dual problem with r as direction.

    .. math:: \min \|k\|^2 \ge \Big(\frac{\langle r, y\rangle - t\,\|y\|\,\|r\|}{\|A^T r\|}\Big)_+^2

    Equality holds at the solution. A vector k that meets the constraint is then within
    :math:`\sqrt{\|k\|^2 - \mathrm{bound}}` of the solution, as the constraint set is convex.

    Parameters
    ----------
    output, length, pulled, whole : Tensor
        (N,): <r, y>, |r|, |A^T r| and |y|.
    threshold : Tensor
        (N,): t.
    """
    gain = (output - threshold * whole * length).clamp(min=0)
    return (gain / torch.where(pulled > 0, pulled, 1.0)).square()
