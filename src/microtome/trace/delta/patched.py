"""Values that differ from a shared base inside one rectangle each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass
class Patched:
    """A batch of values that differ from one shared base inside one rectangle each.

    Attributes
    ----------
    base : Tensor
        (1, C, H, W), the value for the untouched image.
    patch : Tensor
        (B, C, h, w), the value inside rectangles of one size that hold all that differs.
    corner : Tensor
        (2, B), row and column where these rectangles begin.
    first, last : Tensor
        (2, B), first and last row and column that may differ: patches near an edge are cut off there
        and hold less than h x w of them.
    """

    base: Tensor
    patch: Tensor
    corner: Tensor
    first: Tensor
    last: Tensor

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of the whole value."""
        return int(self.base.shape[2]), int(self.base.shape[3])

    def like(self, base: Tensor, patch: Tensor) -> Patched:
        """Other values at the same places."""
        return Patched(base, patch, self.corner, self.first, self.last)

    def dense(self) -> Tensor:
        """All values in full, (B, C, H, W), with the memory layout of the base, since the model may take a view."""
        values = self.region(torch.zeros_like(self.corner), self.size)
        return values.contiguous() if self.base.is_contiguous() else values

    def region(
        self, corner: Tensor, size: tuple[int, int], ground: Tensor | None = None, border: tuple[int, int] = (0, 0)
    ) -> Tensor:
        """Values in other rectangles, (B, C, height, width).

        Parameters
        ----------
        corner : Tensor
            (2, B), where they begin, counted from the corner of ``ground``.
        size : (int, int)
            Their height and width.
        ground : Tensor, optional
            The base with a border around it; default the base.
        border : (int, int)
            The border's height and width.
        """
        ground = self.base if ground is None else ground
        (height, width), channels = size, int(ground.shape[1])
        flat = ground.permute(0, 2, 3, 1).reshape(-1, channels)
        out = flat.index_select(0, positions(corner, size, int(ground.shape[3])).flatten())
        h, w = self.patch.shape[2:]
        shift = self.corner - corner
        row = (shift[0] + border[0])[:, None, None] + _count(h, corner)[None, :, None]
        column = (shift[1] + border[1])[:, None, None] + _count(w, corner)[None, None, :]
        start = (_count(corner.shape[1], corner) * (height * width))[:, None, None]
        goal = (start + row * width + column).flatten()
        values = self.patch.permute(0, 2, 3, 1).reshape(-1, channels)
        inside = ((row >= 0) & (row < height) & (column >= 0) & (column < width)).flatten()
        if not bool(inside.all()):
            goal, values = goal[inside], values[inside]
        out.index_copy_(0, goal, values)
        return out.reshape(-1, height, width, channels).permute(0, 3, 1, 2)


def positions(corner: Tensor, size: tuple[int, int], pitch: int) -> Tensor:
    """Indices of the positions of rectangles in a flattened map, (B, height, width)."""
    row = corner[0][:, None, None] + _count(size[0], corner)[None, :, None]
    return row * pitch + (corner[1][:, None, None] + _count(size[1], corner)[None, None, :])


def _count(number: int, like: Tensor) -> Tensor:
    return torch.arange(number, device=like.device)


def column(numbers: Sequence[int], like: Tensor) -> Tensor:
    """One number for rows and one for columns, broadcast against places (2, B)."""
    return torch.tensor(numbers, device=like.device)[:, None]


def rectangles(first: Tensor, last: Tensor, whole: tuple[int, int]) -> tuple[Tensor, tuple[int, int]]:
    """Corners and common size of rectangles that contain rows and columns first to last of each."""
    height, width = (last - first + 1).amax(1).tolist()
    return torch.minimum(first, column((whole[0] - height, whole[1] - width), first)), (height, width)
