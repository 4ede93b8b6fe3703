"""Measures the order of the images of a batch along an axis, and whether they influence each other."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from microtome.trace.axes.axis_labels import Labels
from microtome.trace.axes.followed_pass import Seen
from microtome.trace.axes.value_axes import IMAGE, PLACE, UNIT, Axis, Factor
from microtome.trace.rectifiers.value_function import version

_LAST_DIGITS = 4  # a change of this size is rounding, too: images without any remaining signal may differ by no more
_RELATIVE = 1e-4  # changes of an image below this share of the difference between images are rounding


class BesideOthers:
    """Compares the values of one image in a batch with its values alone, which it releases.

    Parameters
    ----------
    alone : mapping of str to Seen
        The values of the image alone.
    count, which : int
        Number of images in the batch, and the index of this image.
    """

    def __init__(self, alone: Mapping[str, Seen], count: int, which: int) -> None:
        self._alone, self._count, self._which = alone, count, which
        self._unlike = False
        # Values that were overwritten after they were kept: they are compared in their final state.
        self._later: list[tuple[Seen, Seen, Tensor]] = []

    def look(self, name: str, seen: Seen, value: Tensor) -> None:
        """Compare one value."""
        single = self._alone[name]
        if (
            seen.handed_on
            or self._unlike
            or seen.axis is None
            or seen.labels is None
            or (seen.apart and seen.axis == 0)
        ):
            single.value = None
        elif single.value is None:
            return
        elif version(single.value) == single.version:
            self._unlike = not self._same(seen, value, single.value)
            single.value = None  # its memory is taken by the values that follow
        else:
            self._later.append((seen, single, value))

    def alike(self) -> bool:
        """Whether all values of the image equal those that it has alone, at the position that the operators predict."""
        return not self._unlike and all(
            single.value is not None and self._same(seen, value, single.value) for seen, single, value in self._later
        )

    def _same(self, seen: Seen, value: Tensor, alone: Tensor) -> bool:
        place, labels = seen.axis, seen.labels
        if place is None or labels is None or value.is_sparse or value.is_quantized or not value.numel():
            return True
        order = outer, inner = _around(labels.axes[place])
        shape = list(seen.shape)
        shape[place] = outer * inner
        if list(value.shape) != list(seen.shape) or list(alone.shape) != shape:  # an axis was inserted in place
            return False
        if order == (1, 1) and torch.equal(value.narrow(place, self._which, 1), alone):  # mostly
            return True
        images = value.unflatten(place, (outer, self._count, inner)).movedim(place + 1, 0)
        alone = alone.unflatten(place, order)
        return torch.equal(images[self._which], alone) or _by_rounding(images, alone, self._which)


def _by_rounding(images: Tensor, alone: Tensor, which: int) -> bool:
    """Whether the values of one image in a batch differ from those alone only by rounding."""
    images, alone = images.detach(), alone.detach()  # a model that differentiates itself gives values with a graph
    eps = torch.finfo(images.dtype).eps if images.is_floating_point() else 0.0
    if not images.is_complex() and images.dtype not in (torch.float32, torch.float64):
        images, alone = images.double(), alone.double()
    away, apart = float((images[which] - alone).abs().max()), float((images - alone).abs().max())
    return away <= max(_RELATIVE * apart, _LAST_DIGITS * eps * float(alone.abs().max()))


def resolve(plain: Mapping[str, Seen], changed: Mapping[str, Seen], count: int, which: int) -> frozenset[str]:
    """Set the order of the factors that are folded together with the images, by replacing one image.

    Returns the names of the values in which other images change, too.
    """
    return frozenset(name for name, seen in plain.items() if _resolved(seen, changed.get(name), count, which))


def _resolved(seen: Seen, after: Seen | None, count: int, which: int) -> bool:
    """Set the order of the factors from the entries that a changed image changes; return whether images mix."""
    if after is None or seen.digest is None or after.digest is None or seen.digest.shape != after.digest.shape:
        return False
    if seen.axis is None or seen.labels is None:
        return False
    moved = np.abs(after.digest - seen.digest)
    largest = float(moved.max())
    if largest == 0:
        return False
    rest = seen.shape[seen.axis] // count
    given = best = _around(seen.labels.axes[seen.axis])
    outside = _share_outside(moved, given, count, which)
    if outside > _RELATIVE and rest > 1:  # not at the predicted position
        orders = [(outer, rest // outer) for outer in range(1, rest + 1) if rest % outer == 0]
        least, order = min((_share_outside(moved, order, count, which), order) for order in orders)
        outside, best = (least, order) if least <= _RELATIVE else (outside, given)
    if best != given:
        axes = list(seen.labels.axes)
        roles = {f.role for f in axes[seen.axis] if f.role != IMAGE}
        role = UNIT if roles == {UNIT} else PLACE
        outer, inner = best
        ends = [Factor(role, size) if size > 1 else None for size in (outer, inner)]
        axes[seen.axis] = tuple(f for f in (ends[0], Factor(IMAGE, count), ends[1]) if f is not None)
        seen.labels = Labels(tuple(axes), seen.labels.since)
    return outside > _RELATIVE


def _share_outside(moved: NDArray[np.float64], order: tuple[int, int], count: int, which: int) -> float:
    """The largest change outside the changed image, as a share of the largest of all."""
    by_image = moved.reshape(order[0], count, order[1])
    others = [part.max() for part in (by_image[:, :which], by_image[:, which + 1 :]) if part.size]
    return float(max(others) / moved.max())


def _around(axis: Axis) -> tuple[int, int]:
    at = next(k for k, f in enumerate(axis) if f.role == IMAGE)
    return math.prod(f.size for f in axis[:at]), math.prod(f.size for f in axis[at + 1 :])
