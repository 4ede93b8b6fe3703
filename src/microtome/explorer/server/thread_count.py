"""The number of threads that runs one picture through a network fastest, measured."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import torch

from microtome.network import Network

__all__ = ["fastest_thread_count", "fastest_threads"]

_PASSES = 4  # timed passes for each number of threads, after a warm-up pass


def fastest_thread_count(net: Network) -> int:
    """The number of threads that passes one image through the network in the least time.

    More threads are not always faster: operations on one picture are short, and when other programs use the cores,
    waiting for each other at the end of each operation costs more than the threads gain. This tries 1, 2, 4, ... and
    the number that torch uses now; of nearly equal ones (within 5 %) it takes the smaller. Cost: about five passes for
    each.

    The passes run in a Python thread, as those of the server do. There OpenMP is slower than in the main
    thread: it keeps worker threads for each thread that has computed, and when they outnumber the cores it lets them
    sleep between operations (MobileNetV2 on two cores: 117 ms with two threads, 35 with one; in the main thread 29
    and 33).

    Examples
    --------
    >>> from microtome import zoo
    >>> 1 <= fastest_thread_count(zoo.network("fcnn1")) <= torch.get_num_threads()
    True
    """
    most: int = torch.get_num_threads()
    counts = sorted({most, *(2**power for power in range(most.bit_length()) if 2**power < most)})
    if len(counts) == 1 or net.device.type != "cpu":
        return most
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(_fastest, net, counts).result()


@contextlib.contextmanager
def fastest_threads(net: Network) -> Iterator[None]:
    """Compute with :func:`fastest_thread_count`; restores the previous number at the end."""
    before = torch.get_num_threads()
    torch.set_num_threads(fastest_thread_count(net))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _fastest(net: Network, counts: list[int]) -> int:
    before = torch.get_num_threads()
    best, least = counts[0], float("inf")
    try:
        for count in counts:
            torch.set_num_threads(count)
            seconds = _median_time(net)
            if seconds < 0.95 * least:
                best, least = count, seconds
    finally:
        torch.set_num_threads(before)
    return best


def _median_time(net: Network) -> float:
    seconds = []
    for _ in range(1 + _PASSES):
        began = time.perf_counter()
        net.run(net.probe)
        seconds.append(time.perf_counter() - began)
    return sorted(seconds[1:])[_PASSES // 2]
