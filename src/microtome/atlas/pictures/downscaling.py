"""Downscaling of pictures and maps to the size at which pages show them."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional

__all__ = ["CELL", "downscaled", "downscaled_signal"]

CELL = 112  # pixels a side of a patch and of its reconstruction


def downscaled(pictures: Tensor, side: int) -> Tensor:
    """Pictures (n, C, h, w) with the longer side at most ``side`` pixels; smaller ones are returned unchanged."""
    longest = max(pictures.shape[-2:])
    if longest <= side:
        return pictures
    size = [max(1, round(length * side / longest)) for length in pictures.shape[-2:]]
    return functional.interpolate(pictures, size=size, mode="bilinear", antialias=True, align_corners=False).clamp(0, 1)


def downscaled_signal(maps: Tensor, side: int) -> Tensor:
    """Signed maps (n, h, w), averaged so that the longer side is at most ``side`` pixels."""
    longest = max(maps.shape[-2:])
    if longest <= side:
        return maps.float()
    height, width = maps.shape[-2:]
    size = (max(1, round(height * side / longest)), max(1, round(width * side / longest)))
    return functional.adaptive_avg_pool2d(maps[:, None].float(), size)[:, 0]
