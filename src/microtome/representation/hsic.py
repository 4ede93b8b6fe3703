"""HSIC and linear CKA of two layers from their features, with every leave-one-out value, in closed form."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.representation.features import vary

_ROWS = 1024  # images of a block of Gram matrices


@dataclass(frozen=True)
class Sums:
    r"""Sums over the Gram matrices K and L of two layers, without their diagonals, for HSIC.

    Attributes
    ----------
    product : Tensor
        (n,) :math:`m_i = \sum_{j \ne i} K_{ij} L_{ij}`.
    k, l : Tensor
        (n,) row sums of K and of L.
    across_k, across_l : Tensor
        (n,) :math:`(K l)_i` and :math:`(L k)_i`.
    """

    product: Tensor
    k: Tensor
    l: Tensor  # noqa: E741 - the row sums of L, as in the paper
    across_k: Tensor
    across_l: Tensor


def normalised(values: Tensor) -> Tensor | None:
    """Features in double precision, centred and scaled to a mean square length of 1; None if they do not vary.

    A feature that varies by its rounding only counts as constant, whatever the others are.
    """
    varies = vary(values)
    if not bool(varies.any()):
        return None
    wide = values.double()
    centred = torch.where(varies, wide - wide.mean(0), 0.0)
    centred = centred / centred.abs().max()  # squares of tiny or huge features would leave the range
    return centred / centred.square().sum(1).mean().sqrt()


def sums(x: Tensor, y: Tensor) -> Sums:
    """The sums for two layers' centred features (n, F) and (n, G), by the cheaper of two ways.

    By the covariance X'Y (F, G), or by blocks of both Gram matrices (n, n): equal up to rounding.
    """
    n, d, e = len(x), x.square().sum(1), y.square().sum(1)
    if n * (x.shape[1] + y.shape[1]) < 2 * x.shape[1] * y.shape[1]:
        rows = [
            ((part @ x.T) * (other @ y.T)).sum(1) for part, other in zip(x.split(_ROWS), y.split(_ROWS), strict=True)
        ]
        product = torch.cat(rows)
    else:
        product = ((x @ (x.T @ y)) * y).sum(1)
    # The features are centred: a whole row of K sums to 0, so that without its diagonal it sums to -d.
    return Sums(product - d * e, -d, -e, d * e - x @ (x.T @ e), d * e - y @ (y.T @ d))


def hsic(found: Sums, debiased: bool) -> tuple[Tensor, Tensor]:
    r"""HSIC of all images, and (n,) of all but each one.

    Debiased (Song et al. 2012, equation 5):

    .. math:: \frac{1}{n(n-3)} \Big[ \mathrm{tr}(KL) + \frac{1^\top K 1\, 1^\top L 1}{(n-1)(n-2)}
              - \frac{2}{n-2} 1^\top K L 1 \Big]

    where K and L have no diagonal; else :math:`\mathrm{tr}(K_c L_c) / (n-1)^2` with centred K and L.
    """
    n = len(found.k)
    total, k, l = found.product.sum(), found.k.sum(), found.l.sum()  # noqa: E741
    both = found.k @ found.l
    if debiased:
        without = _debiased(
            total - 2 * found.product,
            k - 2 * found.k,
            l - 2 * found.l,
            both - found.k * found.l - found.across_k - found.across_l + found.product,
            n - 1,
        )
        return _debiased(total, k, l, both, n), without
    # Without an image the mean moves: X'Y loses n / (n - 1) times the image's own product.
    own, share = found.k * found.l, n / (n - 1)
    whole = total + both
    without = whole - 2 * share * (found.product + own) + share**2 * own
    return whole / (n - 1) ** 2, without / (n - 2) ** 2


def _debiased(trace: Tensor, k: Tensor, l: Tensor, both: Tensor, n: int) -> Tensor:  # noqa: E741
    return (trace + k * l / ((n - 1) * (n - 2)) - 2 * both / (n - 2)) / (n * (n - 3))


def ratio(across: Tensor, x: Tensor, y: Tensor, floor: float) -> Tensor:
    """CKA from three values of HSIC; 0 if that of one layer is only rounding."""
    known = (x > floor) & (y > floor)
    safe = torch.where(known, x * y, torch.ones_like(x))
    return torch.where(known, across / safe.sqrt(), torch.zeros_like(across))


def u_centred(x: Tensor) -> Tensor:
    r"""The Gram matrix with rows and columns that sum to 0 and no diagonal; its products sum to the debiased HSIC.

    .. math:: \tilde U_{ij} = K_{ij} - \frac{r_i + r_j}{n-2} + \frac{s}{(n-1)(n-2)}, \quad i \ne j
    """
    n = len(x)
    gram = (x @ x.T).fill_diagonal_(0)
    rows = gram.sum(1) / (n - 2)
    centred = gram - rows[:, None] - rows[None, :] + gram.sum() / ((n - 1) * (n - 2))
    return centred.fill_diagonal_(0)
