"""Similarity of two maps: rank correlation and structural similarity."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def rank_correlation(a: Tensor, b: Tensor) -> Tensor:
    """Spearman's rank correlation of maps (N, H, W), equal values sharing their mean rank; (N,).

    Zero if a map is the same everywhere: it has no order.

    Examples
    --------
    >>> one = torch.tensor([[[1.0, 2.0], [3.0, 4.0]]])
    >>> [round(float(rank_correlation(one, other)), 9) for other in (one**3, -one)]
    [1.0, -1.0]
    """
    x, y = (_ranks(maps.flatten(1)) for maps in (a, b))
    x, y = x - x.mean(1, keepdim=True), y - y.mean(1, keepdim=True)
    size = x.norm(dim=1) * y.norm(dim=1)
    return torch.where(size > 0, (x * y).sum(1) / size.clamp(min=1e-300), torch.zeros_like(size))


def structural_similarity(a: Tensor, b: Tensor, *, window: int = 7) -> Tensor:
    """Mean SSIM of maps (N, H, W), each divided by its largest absolute value; (N,).

    Wang et al. 2004 with a flat window, its sample covariance and a range of 2, over the positions
    where the window fits; smaller maps take the largest odd window that fits.

    Examples
    --------
    >>> one = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> round(float(structural_similarity(one, 3 * one)), 6)
    1.0
    """
    window = min(window, *(size - 1 + size % 2 for size in a.shape[-2:]))
    x, y = (_at_unit_size(maps) for maps in (a, b))
    count = window * window
    mean_x, mean_y = _local(x, window), _local(y, window)
    unbiased = count / max(count - 1, 1)
    var_x = unbiased * (_local(x * x, window) - mean_x**2)
    var_y = unbiased * (_local(y * y, window) - mean_y**2)
    both = unbiased * (_local(x * y, window) - mean_x * mean_y)
    c1, c2 = (0.01 * 2) ** 2, (0.03 * 2) ** 2
    value = (2 * mean_x * mean_y + c1) * (2 * both + c2) / ((mean_x**2 + mean_y**2 + c1) * (var_x + var_y + c2))
    return value.flatten(1).mean(1)


def _at_unit_size(maps: Tensor) -> Tensor:
    top = maps.abs().amax((1, 2), keepdim=True)
    return maps.double() / torch.where(top > 0, top, torch.ones_like(top)).double()


def _local(x: Tensor, window: int) -> Tensor:
    return functional.avg_pool2d(x[:, None], window, stride=1)[:, 0]


def _ranks(values: Tensor) -> Tensor:
    rows = []
    for row in values:
        _, inverse, counts = row.unique(return_inverse=True, return_counts=True)
        rows.append((counts.cumsum(0).double() - (counts.double() - 1) / 2)[inverse])
    return torch.stack(rows)
