"""Augmentation during ascent: at each step all images are moved by one small random shift, rotation and scaling."""

from __future__ import annotations

import math

import torch
from torch import Tensor


class Moves:
    """The random moves of all steps of an ascent.

    Parameters
    ----------
    generator : torch.Generator
        Source of the random numbers: four per step, whatever the options.
    steps : int
        Number of steps.
    size : (int, int)
        Height and width of the images.
    jitter : float
        Largest shift in pixels along each axis.
    rotate : float
        Largest angle in degrees, in both directions.
    scale : float
        Largest relative change of size: 0.1 allows factors from 0.9 to 1.1.
    like : Tensor
        Device and type of the images.
    """

    def __init__(
        self,
        generator: torch.Generator,
        steps: int,
        size: tuple[int, int],
        *,
        jitter: float,
        rotate: float,
        scale: float,
        like: Tensor,
    ) -> None:
        draws = [
            (2 * torch.rand(4, generator=generator, dtype=torch.float32, device="cpu") - 1).tolist()
            for _ in range(steps)
        ]
        self._still = jitter == 0 and rotate == 0 and scale == 0
        self._shifts = rotate == 0 and scale == 0
        if self._shifts:
            self._moves = [torch.tensor([round(x * jitter), round(y * jitter)], device="cpu") for x, y, *_ in draws]
        else:  # all in one tensor, since a copy to a GPU waits for running work
            maps = [_affine(draw, size, jitter, rotate, scale) for draw in draws]
            self._moves = list(torch.tensor(maps, device=like.device, dtype=like.dtype))

    @property
    def of_one_shape(self) -> bool:
        """Whether all moves are the same operations on other numbers; a shift by whole pixels is not."""
        return self._still or not self._shifts

    def __getitem__(self, step: int) -> Tensor:
        """The move of one step: an affine map (2, 3), or the shift to the right and down in pixels (2,)."""
        return self._moves[step]

    def apply(self, images: Tensor, move: Tensor, background: Tensor) -> Tensor:
        """Images (n, C, H, W) after a move; the outside has the colour ``background`` (C, 1, 1)."""
        if self._still:
            return images
        if self._shifts:
            right, down = move.tolist()
            return _shifted(images, right, down, background)
        height, width = images.shape[-2:]
        grid = torch.nn.functional.affine_grid(move[None], [1, 1, height, width], align_corners=False)
        # All images' channels go into one batch entry, so that the grid is read once for all images.
        centred = (images - background).reshape(1, -1, height, width)
        turned = torch.nn.functional.grid_sample(centred, grid, padding_mode="zeros", align_corners=False)
        return turned.reshape(images.shape) + background


def _affine(draw: list[float], size: tuple[int, int], jitter: float, rotate: float, scale: float) -> list[list[float]]:
    """The affine map (2, 3) of one step, from its four random numbers in [-1, 1]."""
    height, width = size
    angle, factor = math.radians(draw[2] * rotate), 1 + draw[3] * scale
    cosine, sine = math.cos(angle) / factor, math.sin(angle) / factor
    return [
        [cosine, -sine * height / width, 2 * draw[0] * jitter / width],
        [sine * width / height, cosine, 2 * draw[1] * jitter / height],
    ]


def _shifted(images: Tensor, right: int, down: int, background: Tensor) -> Tensor:
    height, width = images.shape[-2:]
    pad = (max(right, 0), max(-right, 0), max(down, 0), max(-down, 0))
    padded = torch.nn.functional.pad(images - background, pad) + background
    return padded[..., max(-down, 0) : max(-down, 0) + height, max(-right, 0) : max(-right, 0) + width]
