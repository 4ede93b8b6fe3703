"""Regularisation between steps of ascent: Gaussian blur, and clipping of pixels with small norm or contribution."""

from __future__ import annotations

import torch
from torch import Tensor

from microtome.errors import InputError


def blurred(images: Tensor, sigma: float) -> Tensor:
    """Gaussian blur with standard deviation ``sigma`` in pixels; the border is mirrored."""
    if sigma <= 0:
        return images
    radius = min(max(1, round(3 * sigma)), images.shape[-1] - 1, images.shape[-2] - 1)
    if radius < 1:
        return images
    steps = torch.arange(-radius, radius + 1, device=images.device, dtype=images.dtype)
    kernel = torch.exp(-0.5 * (steps / sigma).square())
    kernel = kernel / kernel.sum()
    n, channels, height, width = images.shape
    flat = images.reshape(n * channels, 1, height, width)
    flat = torch.nn.functional.pad(flat, (radius, radius, radius, radius), mode="reflect")
    flat = torch.nn.functional.conv2d(flat, kernel[None, None, :, None])
    flat = torch.nn.functional.conv2d(flat, kernel[None, None, None, :])
    return flat.reshape(n, channels, height, width)


def without_small(images: Tensor, centre: Tensor, importance: Tensor, percentile: float) -> Tensor:
    """Set the least important pixels of each image to the centre.

    Parameters
    ----------
    images : Tensor
        (n, C, H, W).
    centre : Tensor
        The value for clipped pixels, (C, 1, 1).
    importance : Tensor
        (n, H, W): the norm of each pixel (small-norm clipping), or its contribution |gradient times
        value| (small-contribution clipping) [1]_.
    percentile : float
        Share of pixels to clip, 0 to 100.

    References
    ----------
    .. [1] Yosinski, Clune, Nguyen, Fuchs, Lipson: Understanding Neural Networks Through Deep
       Visualization, 2015.

    Examples
    --------
    >>> x = torch.tensor([[[[0.1, 0.9], [0.2, 0.8]]]])
    >>> without_small(x, torch.zeros(1, 1, 1), x[:, 0], 50)
    tensor([[[[0.0000, 0.9000],
              [0.0000, 0.8000]]]])
    """
    if not 0 <= percentile <= 100:
        raise InputError(f"a percentile lies between 0 and 100, got {percentile}.")
    if percentile == 0:
        return images
    bar = torch.quantile(importance.flatten(1), percentile / 100, dim=1)
    return torch.where((importance < bar[:, None, None])[:, None], centre, images)


def pixel_norm(images: Tensor, centre: Tensor) -> Tensor:
    """The norm of each pixel over channels, (n, H, W)."""
    return (images - centre).square().sum(1).sqrt()


def pixel_contribution(images: Tensor, centre: Tensor, gradient: Tensor) -> Tensor:
    """|sum over channels of gradient times value|: to first order, the loss when a pixel is set to the centre."""
    return ((images - centre) * gradient).sum(1).abs()
