"""Batch sizes: how many images run at once, by the caches of a processor or the free memory of a GPU."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np
import torch

from microtome.errors import InputError
from microtome.progress import Clock

if TYPE_CHECKING:
    from microtome.network import Network

Result = TypeVar("Result")

_MOST = 64
_PIXELS = 8 * 224 * 224  # of a forward pass
# Memory limits in bytes of a forward and backward pass: the largest activation, all saved activations.
_LARGEST, _KEPT = 2**25, 3 * 2**28
# On a GPU the first pass takes an estimate: values times this, of a quarter of what is free. Then it is measured.
_BESIDE_VALUES = 3.0
_FIRST_SHARE, _NEXT_SHARE = 0.25, 0.5
_READ = 256  # images of a pass whose values are read, at most
_INDEXED = 2**31 - 1  # numbers of one tensor, from which on convolutions split their work or refuse it


def in_passes(
    net: Network,
    count: int,
    run: Callable[[int, int], Result],
    batch: int | None = None,
    *,
    backwards: bool = False,
    usual: int | None = None,
    memory: Memory | None = None,
) -> list[Result]:
    """Call ``run`` for images ``start`` to ``stop``, pass by pass, and return its results in order.

    On a processor every pass but the last is of the same size, see ``fitting``. On a GPU the first pass takes an
    estimate from the layers' sizes; it shows how many bytes an image needs, and the next ones fill half of what is
    free. A pass that runs out of memory is halved and run again.

    Parameters
    ----------
    net : Network
        The network.
    count : int
        The number of images, points or windows.
    run : callable
        Maps (start, stop) to a result. Images must not mix, so that every split gives
        the same. It may be called again for a part of the same images.
    batch : int, optional
        Number of images in a pass: no other number is tried.
    backwards : bool
        Whether ``run`` takes a backward pass.
    usual : int, optional
        The size of a pass on a processor, where it is not that of ``fitting``.
    memory : Memory, optional
        The device's memory; default that of the network's device, None for a processor.

    Raises
    ------
    InputError
        When the batch is no whole number of at least 1.
    torch.cuda.OutOfMemoryError
        When one image alone, or the given batch, needs more memory than the device has.
    """
    clock = Clock(None, count)
    memory = memory_of(net) if memory is None else memory
    if batch is not None:
        first = check_count(batch, "batch")
    elif memory is None and usual is not None:
        first = usual
    else:
        first = fitting(net, None, backwards=backwards)
    if net.graph.note:
        first = net.admitted(first)
    if batch is not None or memory is None or net.graph.note or net.graph.mixes:
        return [run(start, min(start + first, count)) for start in range(0, count, first)]
    results: list[Result] = []
    start, size, most = 0, first, min(count, _indexed(net))
    while start < count:
        stop = min(start + min(size, most), count)
        if stop < count:  # after the last pass the memory is not measured
            memory.begin()
        try:
            parts = [run(start, stop)]
        except torch.cuda.OutOfMemoryError:
            if stop - start == 1:
                raise
            parts = []
        if not parts:  # outside the handler, which would keep the failed pass's tensors alive
            memory.release()
            most = (stop - start) // 2
            continue
        results += parts
        if stop < count:
            size = max(1, int(memory.free() * _NEXT_SHARE / max(memory.used() / (stop - start), 1)))
        start = stop
        clock.step("images, points or windows", start)
    return results


def fitting(net: Network, batch: int | None, *, backwards: bool = False) -> int:
    """Number of images in one pass: the given number, else one that suits the caches and the memory.

    On a processor a forward pass takes eight images of 224 x 224 pixels, or 64 small ones: larger batches were slower
    (EfficientNet-Lite0: 64 images take 2.7 times as long per image as 8). With a backward pass the largest activation
    stays under 32 MiB, since larger ones get fresh memory from the system each time (VGG16: 2 images, MobileNetV2: 6,
    ResNet18: 10), and all activations under 768 MiB (ResNet50 and ViT-B/16: 5). On a GPU a pass fills an estimated
    quarter of the free memory.

    Raises
    ------
    InputError
        When the batch is no whole number of at least 1.
    """
    if batch is not None:
        return check_count(batch, "batch")
    memory = memory_of(net)
    values = _values(net)
    if memory is not None:
        each = values_at_once(net, backwards=backwards)
        return max(1, min(int(memory.free() * _FIRST_SHARE / each), _indexed(net)))
    _, height, width = net.input_shape
    fits = _PIXELS // (height * width)
    if backwards:
        fits = min(_LARGEST // max(values, default=1), _KEPT // max(sum(values), 1))
    return min(_MOST, max(1, fits))


def values_at_once(net: Network, *, backwards: bool = False) -> int:
    """An estimate of the bytes that a pass of one image holds at its peak."""
    values = _values(net)
    held = sum(values) if backwards else min(2 * max(values, default=1), sum(values))
    return int(_BESIDE_VALUES * max(held, math.prod(net.input_shape) * net.dtype.itemsize))


def read_at_once(net: Network, batch: int | None, usual: int) -> int:
    """Number of images in a forward pass whose values are read: the given number, else one chosen by device.

    On a processor that is ``usual``; on a GPU as many as would fit with a backward pass, at most 256.

    Raises
    ------
    InputError
        When the batch is no whole number of at least 1.
    """
    if batch is not None:
        return check_count(batch, "batch")
    return usual if memory_of(net) is None else min(fitting(net, None, backwards=True), _READ)


def _values(net: Network) -> list[int]:
    """Bytes of each layer's value for one image."""
    return [net.dtype.itemsize * math.prod(layer.shape) for layer in net.layers.values() if layer.leaf]


def _indexed(net: Network) -> int:
    """The number of images whose largest value can still be counted in 32 bits."""
    largest = max((math.prod(layer.shape) for layer in net.layers.values() if layer.leaf), default=1)
    return max(1, _INDEXED // max(largest, math.prod(net.input_shape)))


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


def machine_memory() -> int | None:
    """Bytes of memory that this machine, or the container around the process, has; None if it does not say."""
    try:
        limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    except (AttributeError, ValueError, OSError):  # not on Windows
        return None
    with contextlib.suppress(OSError, ValueError):  # without a limit the file holds "max"
        limits.append(int(Path("/sys/fs/cgroup/memory.max").read_text(encoding="ascii")))
    return min(limits)


class Memory(Protocol):
    """The memory of a device, for the choice of batch sizes."""

    def begin(self) -> None:
        """A pass begins."""

    def used(self) -> int:
        """Bytes that the pass took at its peak."""

    def free(self) -> int:
        """Bytes that are free now."""

    def release(self) -> None:
        """Return the reserve to the device."""


def memory_of(net: Network) -> Memory | None:
    """The memory of the network's device; None for a processor, whose caches decide."""
    return CudaMemory(net.device) if net.device.type == "cuda" else None


class CudaMemory:
    """The memory of a CUDA device, by torch's own count."""

    def __init__(self, device: torch.device) -> None:
        self._device, self._before = device, 0

    def begin(self) -> None:
        """Start a pass: the peak is measured from here."""
        torch.cuda.reset_peak_memory_stats(self._device)
        self._before = self._bytes("allocated_bytes", "current")

    def used(self) -> int:
        """Bytes that the pass took at its peak."""
        return self._bytes("allocated_bytes", "peak") - self._before

    def free(self) -> int:
        """Free bytes of the device, and bytes that torch holds in reserve."""
        free, _ = torch.cuda.mem_get_info(self._device)
        return free + self._bytes("reserved_bytes", "current") - self._bytes("allocated_bytes", "current")

    def _bytes(self, what: str, which: str) -> int:
        # As torch.cuda.memory_allocated counts them, without its sorted table of 150 lines, which takes a millisecond.
        counted = torch.cuda.memory_stats_as_nested_dict(self._device)
        return int(counted[what]["all"][which]) if counted else 0

    def release(self) -> None:
        """Give the reserve back to the device."""
        torch.cuda.empty_cache()
