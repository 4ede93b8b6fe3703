"""Sums per image: which elements of a value belong to which image of a batch, and their sums."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.trace.axes.value_axes import Axes


@dataclass(frozen=True)
class ImageAxis:
    """The image axis of a value.

    Attributes
    ----------
    axis : int
        The axis that grows with the batch.
    inner : int
        Number of adjacent positions that belong to one image: position p belongs to image (p // inner) modulo the batch
        size. 1 if the axis holds only the images, or the windows of an image are not adjacent.
    """

    axis: int = 0
    inner: int = 1


@dataclass(frozen=True)
class ImageSums:
    """Adds up values by image, for values of one shape.

    Attributes
    ----------
    count : int
        The number of images.
    where : ImageAxis or None
        Their axis; None if there is none, so that every image gets the same part of the sum.
    """

    count: int
    where: ImageAxis | None = ImageAxis()

    def total(self, amount: Tensor) -> Tensor:
        """The sum of a value by image, (count,)."""
        if self.count == 1:
            return amount.sum().reshape(1)
        if self.where is None:
            return (amount.sum() / self.count).expand(self.count)
        axis = self.where.axis
        others = [dim for dim in range(amount.dim()) if dim != axis]
        return self._folded(amount.sum(others) if others else amount)

    def product(self, a: Tensor, b: Tensor) -> Tensor:
        """The sum of a * b by image; b has the shape of a, or one number for each channel of it."""
        if a.shape != b.shape:
            return self._by_channel(a, b)
        if self.count == 1:
            return torch.dot(a.flatten(), b.flatten())[None]
        if self.where is None:
            return self.total(a * b)
        axis = self.where.axis
        a, b = (a, b) if axis == 0 else (a.movedim(axis, 0), b.movedim(axis, 0))
        return self._folded(torch.linalg.vecdot(a.flatten(1), b.flatten(1)) if a.dim() > 1 else a * b)

    def _by_channel(self, a: Tensor, b: Tensor) -> Tensor:
        channels = a.dim() - b.dim()  # the axis of a that b's first axis stands for
        first = self.where is not None and self.where.axis == 0
        if b.numel() == b.shape[0] == a.shape[channels] and (self.count == 1 or first) and channels > 0:
            # Sum over positions first: then only one number per image and channel is multiplied.
            by_channel = a.flatten(channels + 1).sum(-1) if b.dim() > 1 else a
            return self._folded(
                (by_channel @ b.flatten()).flatten(1).sum(1) if channels > 1 else by_channel @ b.flatten()
            )
        return self.total(a * b)

    def _folded(self, amount: Tensor) -> Tensor:
        """From positions of the image axis to images."""
        if amount.shape[0] == self.count:
            return amount
        inner = self.where.inner if self.where is not None else 1
        return amount.reshape(-1, self.count, inner).sum((0, 2)) if self.count > 1 else amount.sum()[None]


def image_axis(axes: Mapping[str, Axes], operation: str) -> ImageAxis | None:
    """The image axis in the result of an operation, from the axes measured when the model was read.

    None if the result belongs to no single image.
    """
    found = axes.get(operation)
    return None if found is None or found.image_axis is None else ImageAxis(found.image_axis, found.around[1])
