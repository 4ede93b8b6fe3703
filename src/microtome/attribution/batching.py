"""Batches of checked images with their targets, of a size that fits caches and memory."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from microtome.attribution.result import wide
from microtome.errors import InputError
from microtome.inputs import Target, per_image
from microtome.network import Network

Result = TypeVar("Result")

_MOST = 64
_PIXELS = 8 * 224 * 224  # of a forward pass
# Memory limits in bytes of a forward and backward pass: the largest activation, all saved activations.
_LARGEST, _KEPT = 2**25, 3 * 2**27


def chunks(net: Network, images: Any, target: Target, batch: int | None) -> Iterator[tuple[Tensor, Target]]:
    """Checked images with their targets, at most ``batch`` at a time; they need no further check.

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


def by_batch(
    net: Network,
    images: Any,
    target: Target,
    run: Callable[[Tensor, Target], Result],
    batch: int | None,
    *,
    backwards: bool = False,
    memory: Memory | None = None,
) -> list[Result]:
    """What ``run`` gives for the images, batch by batch; on a GPU as many at once as its memory takes.

    On a processor the batches are those of ``chunks``. On a GPU the first batch is, too; it shows how many bytes an
    image needs, and the next ones fill half of what is free. A batch that runs out of memory is halved and run again.

    Parameters
    ----------
    net, images, target : Network, Tensor or array, Target
        As in ``chunks``.
    run : callable
        From a batch and its targets to a result; images must not mix, so that every split gives the same.
    batch : int, optional
        How many images go through at once: no other number is tried.
    backwards : bool
        Whether ``run`` sends a signal back.
    memory : Memory, optional
        The device's memory; default that of the network's device, None for a processor.

    Raises
    ------
    InputError
        When images, number of targets or batch do not fit.
    torch.cuda.OutOfMemoryError
        When one image alone, or the batch asked for, needs more than the device has.
    """
    first = fitting(net, batch, backwards=backwards)
    if memory is None and net.device.type == "cuda":
        memory = CudaMemory(net.device)
    if batch is not None or memory is None:
        return [run(part, asked) for part, asked in chunks(net, images, target, first)]
    given = net.images(images)
    each = per_image(target, len(given))
    results: list[Result] = []
    start, count, most = 0, first, len(given)
    while start < len(given):
        stop = min(start + min(count, most), len(given))
        memory.begin()
        try:
            made = run(given[start:stop], each[start:stop] if each is not None else target)
        except torch.cuda.OutOfMemoryError:
            if stop - start == 1:
                raise
            made = None
        if made is None:  # outside the handler, which would keep the failed pass's tensors alive
            memory.release()
            most = (stop - start) // 2
            continue
        results.append(made)
        count = max(1, int(memory.free() / 2 / max(memory.used() / (stop - start), 1)))
        start = stop
    return results


class Memory(Protocol):
    """The memory of a device, as far as the choice of a batch needs it."""

    def begin(self) -> None:
        """A pass begins."""

    def used(self) -> int:
        """Bytes that the pass took at its peak."""

    def free(self) -> int:
        """Bytes that are free now."""

    def release(self) -> None:
        """Give back what is held in reserve."""


class CudaMemory:
    """The memory of a CUDA device, by torch's own count."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._before = device, 0

    def begin(self) -> None:
        """A pass begins: the peak counts from here."""
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = torch.cuda.memory_allocated(self._device)

    def used(self) -> int:
        """Bytes that the pass took at its peak."""
        return torch.cuda.max_memory_allocated(self._device) - self._before

    def free(self) -> int:
        """Bytes of the device that nobody holds, and those that torch holds in reserve."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return free + torch.cuda.memory_reserved(self._device) - torch.cuda.memory_allocated(self._device)

    def release(self) -> None:
        """Give the reserve back to the device."""
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class Scored:
    """Checked images with their class scores and the class of each.

    Attributes
    ----------
    images, logits : Tensor
        (N, C, H, W) and (N, K).
    target : Tensor
        (N,), the class that the target names, else the predicted one.
    """

    images: Tensor
    logits: Tensor
    target: Tensor

    @property
    def score(self) -> Tensor:
        """The score of each image's class, (N,)."""
        return wide(self.logits.gather(1, self.target[:, None])[:, 0])


def scored(net: Network, images: Any, target: Target, batch: int) -> Scored:
    """Check images and targets, once, and run the network.

    Raises
    ------
    InputError
        When images or targets do not fit.
    """
    given = net.images(images).detach()
    per_image(target, len(given))  # refuse a wrong number before the network runs
    logits = net.logits(given, batch=batch, check=False)
    return Scored(given, logits, net.targets(target, logits))


def fitting(net: Network, batch: int | None, *, backwards: bool = False) -> int:
    """How many images run in one pass: the number given, else one that suits the caches and the memory.

    A forward pass takes eight images of 224 x 224 pixels, or 64 small ones: larger batches were slower on a CPU
    (EfficientNet-Lite0: 64 images take 2.7 times as long per image as 8). With a backward pass the largest activation
    stays under 32 MiB, since larger ones get fresh memory from the system each time (VGG16: 2 images, MobileNetV2: 5,
    ResNet18: 10), and all activations under 384 MiB.

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
