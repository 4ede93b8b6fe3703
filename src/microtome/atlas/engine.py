"""Engines run tasks in this process, in several processes, or on a Dask cluster; the bytes are the same."""

from __future__ import annotations

import contextlib
import functools
import importlib
import os
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Executor, Future
from typing import Any, TypeVar

import torch
from threadpoolctl import ThreadpoolController

from microtome.atlas.execution.worker_processes import Workers
from microtome.errors import InputError

__all__ = ["ENGINES", "Inline", "available_cores", "executor", "one_thread"]

ENGINES = ("inline", "processes", "dask")

_ENVIRONMENT = "distributed.nanny.pre-spawn-environ"  # of the workers, in the settings of Dask

T = TypeVar("T")


class Inline(Executor):
    """Runs each call immediately, in this process and thread: the engine for one core and for debugging.

    Examples
    --------
    >>> with Inline() as engine:
    ...     engine.submit(sum, [1, 2, 3]).result()
    6
    """

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run the call; an interrupt is not caught and ends the run."""
        future: Future[T] = Future()
        try:
            future.set_result(fn(*args, **kwargs))
        except Exception as error:
            future.set_exception(error)
        return future


@contextlib.contextmanager
def executor(name: str, workers: int | None = None) -> Iterator[Executor]:
    """Open an engine by name and close it at the end; tasks that have not begun are dropped if the block raises.

    Parameters
    ----------
    name : str
        ``inline``; ``processes``, one thread each; ``dask`` for a cluster of processes on this machine;
        ``tcp://host:port`` for the scheduler of a cluster that sees the same output folder.
    workers : int, optional
        How many processes; by default one for each core.

    Raises
    ------
    InputError
        The engine does not exist, the number of workers is zero, Dask is not installed, or the scheduler does not
        answer.
    """
    if workers is not None and workers < 1:
        raise InputError(f"at least one process is needed, got --workers {workers}.")
    count = workers or available_cores()
    if name == "inline":
        yield Inline()
    elif name == "processes":
        with _processes(count) as pool:
            yield pool
    elif name == "dask" or "://" in name:
        with _dask(name, count) as pool:
            yield pool
    else:
        raise InputError(f'there is no engine "{name}". Known: {", ".join(ENGINES)}, or tcp://host:port of Dask.')


def available_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@functools.cache
def _libraries() -> ThreadpoolController:
    """The libraries for linear algebra of NumPy and SciPy; both must be loaded to be found."""
    importlib.import_module("scipy.linalg")
    return ThreadpoolController()


@contextlib.contextmanager
def one_thread() -> Iterator[None]:
    """Compute with one thread; restores the previous number at the end.

    Sums over several threads are rounded in another order than sums in one. A task therefore computes with one thread
    on every engine, and so does the assembling of pages: the same bytes with 1, 2 or 4 workers. Several cores are
    used by several processes.

    Examples
    --------
    >>> with one_thread():
    ...     torch.get_num_threads()
    1
    """
    before = torch.get_num_threads()
    with _libraries().limit(limits=1):
        torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextlib.contextmanager
def _processes(count: int) -> Iterator[Executor]:
    workers = Workers(count)
    try:
        yield workers
    except BaseException:
        workers.stop()
        raise
    workers.shutdown()


def _without_trimming(environment: Mapping[str, Any]) -> dict[str, Any]:
    """The environment of Dask's workers without its malloc setting.

    With that setting the C library maps and unmaps memory for each large tensor, so every pass pays for fresh pages.
    """
    return {name: value for name, value in environment.items() if name != "MALLOC_TRIM_THRESHOLD_"}


@contextlib.contextmanager
def _dask(name: str, count: int) -> Iterator[Executor]:
    try:
        import dask
        from distributed import Client, LocalCluster
    except ImportError as error:
        raise InputError(f"--engine {name} needs Dask: pip install 'microtome[scale]'.") from error
    cluster = None
    try:
        if name == "dask":
            with dask.config.set({_ENVIRONMENT: _without_trimming(dask.config.get(_ENVIRONMENT))}):
                cluster = LocalCluster(n_workers=count, threads_per_worker=1, dashboard_address=None)
            client = Client(cluster)
        else:
            client = Client(name, timeout=10)
    except (OSError, ValueError) as error:
        if cluster is not None:
            cluster.close()
        raise InputError(f"the Dask scheduler {name} does not answer: {error}.") from error
    try:
        yield client.get_executor(pure=False)
    finally:
        client.close()
        if cluster is not None:
            cluster.close()
