"""Test images for reading a network: gray, and noise in its pixel range; drawn on the CPU."""

from __future__ import annotations

import torch
from torch import Tensor

Range = tuple[float, float] | None  # of the pixels; None admits any


def gray(shape: tuple[int, ...], pixels: Range, device: torch.device) -> Tensor:
    """Images in the middle of the pixel range."""
    low, high = pixels if pixels is not None else (0.0, 1.0)
    return torch.full(shape, (low + high) / 2, dtype=torch.float32, device=device)


def faint_noise(
    shape: tuple[int, int, int, int], pixels: Range, device: torch.device, *, changed: int | None
) -> Tensor:
    """The first image is gray, the others noise of half the contrast.

    The image of the index ``changed`` has the full contrast, so that it holds the extremes of the batch.
    """
    low, high = pixels if pixels is not None else (0.0, 1.0)
    images, count = gray(shape, pixels, device), shape[0]
    if count == 1:
        return images
    noise = (
        torch.rand(
            (count + 1, *shape[1:]), generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu"
        )
        - 0.5
    )
    contrast = torch.full((count,), 0.5, dtype=torch.float32, device="cpu")
    contrast[0] = 0.0
    if changed is not None:
        noise[changed], contrast[changed] = noise[count], 1.0
    return images + ((high - low) * contrast[:, None, None, None] * noise[:count]).to(images)


def full_noise(shape: tuple[int, int, int, int], pixels: Range, device: torch.device) -> Tensor:
    """The first image is gray, the others are noise over the whole range."""
    low, high = pixels if pixels is not None else (0.0, 1.0)
    drawn = torch.rand(
        (shape[0] - 1, *shape[1:]), generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu"
    )
    noise = low + (high - low) * drawn
    return torch.cat([torch.full_like(noise[:1], (low + high) / 2), noise]).to(device)
