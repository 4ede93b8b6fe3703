"""Sums per image: which elements of a value belong to which image of a batch, measured, and added up by image."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from microtome.trace.operators import Call, tensors
from microtome.trace.tracer import Tracer


@dataclass(frozen=True)
class ImageAxis:
    """Where the images of a batch lie in a value.

    Attributes
    ----------
    axis : int
        The axis that grows with the batch.
    inner : int
        How many neighbours on it belong to one image: position p is of image (p // inner) modulo the batch size.
        1 where the axis holds the images alone, or each image's windows apart from each other.
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
        Where they lie; None where no axis holds them, so that every image gets the same part of the sum.
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
            # Sums over places first: one number for each image and channel is multiplied, not one for each place.
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


class _Shapes:
    """Observer that keeps the shape of every operation's result, by name."""

    def __init__(self, keep: Callable[[str, Tensor], None]) -> None:
        self._keep = keep

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts: nothing to do."""

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        for value in tensors(output)[:1] or [call.input]:
            self._keep(call.name, value)

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned: nothing to do."""


def image_axes(model: nn.Module, images: Tensor) -> dict[str, ImageAxis]:
    """Where the images lie in the result of every operation, by the operation's name.

    Passes with two and with three images show which axis grows with the batch. Where the axis holds more than the
    images (windows, groups, tokens folded into it), two more passes, one image of which differs, show which
    positions belong to which image. Operations whose result holds images on no axis, or mixes them, are left out.

    Parameters
    ----------
    model : nn.Module
        Any module; it is run as written and left as found.
    images : Tensor
        Three different images, already normalised, (3, C, H, W).
    """
    shapes: list[dict[str, torch.Size]] = [{}, {}]
    for found, count in zip(shapes, (2, 3), strict=True):
        Tracer(model, observer=_Shapes(lambda name, value, found=found: found.setdefault(name, value.shape)))(  # type: ignore[misc]
            images[:count]
        )
    axes: dict[str, ImageAxis] = {}
    folded: dict[str, int] = {}
    for name, two in shapes[0].items():
        three = shapes[1].get(name, two)
        grows = [axis for axis, size in enumerate(two) if len(three) == len(two) and 3 * size == 2 * three[axis] > 0]
        if len(grows) == 1 and two[grows[0]] == 2:
            axes[name] = ImageAxis(grows[0])
        elif len(grows) == 1:
            folded[name] = grows[0]
    if folded:
        axes |= _unfolded(model, images, folded)
    return axes


def _unfolded(model: nn.Module, images: Tensor, folded: dict[str, int]) -> dict[str, ImageAxis]:
    """How images lie on axes that hold more than them, from what changes with the second of two images."""
    before: dict[str, Tensor] = {}
    axes: dict[str, ImageAxis] = {}

    def keep(name: str, value: Tensor) -> None:
        if name in folded and name not in before:
            before[name] = value.detach().clone()

    def compare(name: str, value: Tensor) -> None:
        old = before.pop(name, None)
        if old is None or old.shape != value.shape:
            return
        axis = folded[name]
        changed = (old != value).movedim(axis, 0).flatten(1).any(1)
        size = changed.shape[0]
        second = [
            (torch.arange(size) // inner % 2 == 1, inner)
            for inner in range(1, size // 2 + 1)
            if size % (2 * inner) == 0
        ]
        fits = [
            (int((slots & changed.cpu()).sum()), inner)
            for slots, inner in second
            if not bool((changed.cpu() & ~slots).any())
        ]
        if fits and bool(changed.any()):
            axes[name] = ImageAxis(axis, max(fits)[1])

    Tracer(model, observer=_Shapes(keep))(images[:2])
    Tracer(model, observer=_Shapes(compare))(images[[0, 2]])
    return axes
