"""How is a batch of any size worked through with bounded memory? Images and their targets, a few at a time."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from microtome.errors import InputError
from microtome.inputs import Target
from microtome.network import Network

_MOST = 64
_PIXELS = 8 * 224 * 224  # of a forward pass
_LARGEST, _KEPT = 2**25, 3 * 2**27  # bytes of a pass with its way back: of one layer's value, of all that is kept


def chunks(net: Network, images: Any, target: Target, batch: int | None) -> Iterator[tuple[Tensor, Target]]:
    """Validated images with the targets that belong to them, at most ``batch`` at a time.

    Parameters
    ----------
    net : Network
        The network the images are for.
    images : Tensor or array
        (N, C, H, W) or one image (C, H, W), in the network's pixel range.
    target : int, str, sequence, Tensor or None
        One class for all images, one for each, or None for the predicted ones.
    batch : int, optional
        How many images go through the network at once; default see ``fitting``.

    Raises
    ------
    InputError
        When images, number of targets or batch do not fit.
    """
    batch = fitting(net, batch)
    given = net.images(images)
    each = per_image(target, len(given))
    for start in range(0, len(given), batch):
        part = given[start : start + batch]
        yield part, (each[start : start + batch] if each is not None else target)


def per_image(target: Target, count: int) -> list[int | str] | None:
    """The targets as a list with one entry per image; None when one target serves all.

    Raises
    ------
    InputError
        When there are not as many targets as images.

    Examples
    --------
    >>> per_image([3, 8], 2), per_image(3, 2), per_image(None, 2)
    ([3, 8], None, None)
    """
    if isinstance(target, Tensor | np.ndarray):
        listed: Any = target.tolist()
    else:
        listed = target
    if isinstance(listed, str) or not isinstance(listed, Sequence):
        return None
    if len(listed) != count:
        raise InputError(f"{count} targets were expected, one per image, got {len(listed)}; one integer serves all.")
    return list(listed)


def fitting(net: Network, batch: int | None, *, backwards: bool = False) -> int:
    """How many images go through at once: as asked, else as many as the processor's caches and memory hold well.

    Forwards eight images of 224 x 224 pixels, or 64 small ones: larger batches were measured to be slower, not
    faster, on a CPU (EfficientNet-Lite0: 64 at once take 2.7 times as long per image as 8). Where a signal goes
    back to the pixels, as many as keep each layer's value under 32 MiB, from which on the system hands out fresh
    memory for every value (VGG16: 2, MobileNetV2: 5, ResNet18: 10), and all values under 384 MiB.

    Raises
    ------
    InputError
        When the batch is no whole number of at least 1.
    """
    if batch is not None:
        return check_count(batch, "batch")
    _, height, width = net.input_shape
    fits = _PIXELS // (height * width)
    if backwards:
        values = [net.dtype.itemsize * math.prod(layer.shape) for layer in net.layers.values() if layer.leaf]
        fits = min(_LARGEST // max(values, default=1), _KEPT // max(sum(values), 1))
    return min(_MOST, max(1, fits))


def check_count(value: Any, what: str) -> int:
    """A whole number of at least one.

    Raises
    ------
    InputError
        When it is not.
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise InputError(f"{what} must be a whole number of at least 1, got {value!r}.")
    return int(value)
