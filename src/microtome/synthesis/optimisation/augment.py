"""Augmentation during ascent: a small random shift, rotation and scaling at each step."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def transformed(
    images: Tensor, generator: torch.Generator, *, jitter: float, rotate: float, scale: float, background: Tensor
) -> Tensor:
    """Transform all images by one random shift, rotation and scaling (bilinear); fill the outside with background.

    Parameters
    ----------
    images : Tensor
        (n, C, H, W).
    generator : torch.Generator
        Source of the random numbers: four per call, whatever the options.
    jitter : float
        Largest shift in pixels along each axis.
    rotate : float
        Largest angle in degrees, in both directions.
    scale : float
        Largest relative change of size: 0.1 allows factors from 0.9 to 1.1.
    background : Tensor
        Colour outside, (C, 1, 1).
    """
    draw = (2 * torch.rand(4, generator=generator, device="cpu") - 1).tolist()
    if jitter == 0 and rotate == 0 and scale == 0:
        return images
    if rotate == 0 and scale == 0:
        return _shifted(images, round(draw[0] * jitter), round(draw[1] * jitter), background)
    height, width = images.shape[-2:]
    angle, size = math.radians(draw[2] * rotate), 1 + draw[3] * scale
    cosine, sine = math.cos(angle) / size, math.sin(angle) / size
    theta = [
        [cosine, -sine * height / width, 2 * draw[0] * jitter / width],
        [sine * width / height, cosine, 2 * draw[1] * jitter / height],
    ]
    matrix = torch.tensor([theta], device=images.device, dtype=images.dtype)
    grid = torch.nn.functional.affine_grid(matrix, [1, 1, height, width], align_corners=False)
    # All images' channels go into one batch entry, so that the grid is read once for all images.
    centred = (images - background).reshape(1, -1, height, width)
    turned = torch.nn.functional.grid_sample(centred, grid, padding_mode="zeros", align_corners=False)
    return turned.reshape(images.shape) + background


def _shifted(images: Tensor, right: int, down: int, background: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    pad = (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0))
    padded = torch.nn.functional.pad(images - background, pad) + background
    return padded[..., max(-down, 0) : max(-down, 0) + height, max(-right, 0) : max(-right, 0) + width]
