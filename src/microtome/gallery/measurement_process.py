"""Measurements in parallel, each in its own process, so that a failure affects no other."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.connection
import signal
import sys
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path

import torch
from threadpoolctl import threadpool_limits

from microtome.gallery.measurement_list import Measurement
from microtome.gallery.measurement_store import Outcome, measure, stored
from microtome.results import write_atomically

__all__ = ["side_by_side"]

_FAILED = "failed.txt"


def side_by_side(
    waiting: list[Measurement], folder: Path, quick: bool, photos: Path | None, count: int, tell: Callable[[str], None]
) -> Iterator[Outcome]:
    """Carry out measurements in the given order, ``count`` at a time.

    Yields
    ------
    Outcome
        In the order in which they end. A process that ends without an outcome has failed. If the caller stops, the
        processes end.
    """
    context = multiprocessing.get_context("spawn")  # a fork of a process in which torch has threads may hang
    queue, running = list(waiting), dict[str, tuple[Measurement, SpawnProcess]]()
    try:
        while queue or running:
            while queue and len(running) < count:
                one = queue.pop(0)
                tell(f"{one.name}: begins")
                process = context.Process(target=_work, args=(one, folder, quick, photos), name=one.name)
                process.start()
                running[one.name] = (one, process)
            multiprocessing.connection.wait([process.sentinel for _, process in running.values()], timeout=1.0)
            for name, (one, process) in [*running.items()]:
                if process.is_alive():
                    continue
                process.join()
                del running[name]
                yield _outcome(one, folder, quick, photos, process.exitcode)
    finally:
        for _, process in running.values():
            process.terminate()
        for _, process in running.values():
            process.join(5)


def _outcome(one: Measurement, folder: Path, quick: bool, photos: Path | None, code: int | None) -> Outcome:
    found = stored(one, folder, quick=quick, photos=photos)
    if found is not None:
        return found
    failed = folder / one.name / _FAILED
    if code == 0 and failed.is_file():
        return Outcome(one.name, error=failed.read_text(encoding="utf-8"))
    return Outcome(one.name, error=f"its process ended with code {code}, as where memory does not suffice")


def _work(one: Measurement, folder: Path, quick: bool, photos: Path | None) -> None:
    """Carry out one measurement in its own process; the process that planned the run handles interrupts."""
    with contextlib.suppress(ValueError):
        signal.signal(signal.SIGINT, signal.SIG_IGN)
    failed = folder / one.name / _FAILED
    failed.unlink(missing_ok=True)
    torch.set_num_threads(1)
    with threadpool_limits(1):  # the cores are used by several processes
        outcome = measure(
            one, folder, quick=quick, photos=photos, say=lambda line: _write_line(f"  {one.name}: {line}")
        )
    if outcome.error:
        write_atomically(failed, outcome.error.encode())


def _write_line(line: str) -> None:
    """One whole line at a time, since several processes write to one stream."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()
