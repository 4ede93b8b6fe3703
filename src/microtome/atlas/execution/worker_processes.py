"""Worker processes that run one call at a time; a dead process fails only its own call, and is replaced."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any, TypeVar

__all__ = ["Workers"]

T = TypeVar("T")
Call = tuple["Future[Any]", Callable[..., Any], tuple[Any, ...], dict[str, Any]]


class Workers(Executor):
    """A number of processes, each an executor of its own.

    A pool of several processes breaks as a whole when one of them dies, and the failed call is unknown.
    Here the future of that call gets ``BrokenProcessPool``, the others go on, and the next call gets a new process. A
    worker ends when the process that started it is gone.

    Parameters
    ----------
    count : int
        The number of processes.
    """

    def __init__(self, count: int) -> None:
        self._lock = threading.RLock()
        self._calls: deque[Call] = deque()
        self._idle: list[ProcessPoolExecutor | None] = [None] * count  # None: to be started
        self._pools: set[ProcessPoolExecutor] = set()
        self._ended = threading.Condition(self._lock)
        self._running = 0

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """Run the call as soon as a process is free."""
        future: Future[T] = Future()
        with self._lock:
            self._calls.append((future, fn, args, kwargs))
        self._begin()
        return future

    def _begin(self) -> None:
        """Give waiting calls to idle processes."""
        while True:
            with self._lock:
                if not self._idle or not self._calls:
                    return
                call = self._calls.popleft()
                if not call[0].set_running_or_notify_cancel():
                    continue
                pool = self._idle.pop() or self._started()
                self._running += 1
            try:
                inner = pool.submit(call[1], *call[2], **call[3])
            except BrokenProcessPool:  # it died while idle
                self._end(pool, alive=False)
                with self._lock:
                    self._calls.appendleft((_again(call[0]), *call[1:]))
                continue
            inner.add_done_callback(functools.partial(self._finish, call[0], pool))

    def _started(self) -> ProcessPoolExecutor:
        # Spawned, since a fork of a process in which torch has started threads may hang.
        pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"), initializer=_attend)
        self._pools.add(pool)
        return pool

    def _finish(self, future: Future[Any], pool: ProcessPoolExecutor, done: Future[Any]) -> None:
        error = done.exception()
        self._end(pool, alive=not isinstance(error, BrokenProcessPool))
        if error is None:
            future.set_result(done.result())
        else:
            future.set_exception(error)
        self._begin()

    def _end(self, pool: ProcessPoolExecutor, *, alive: bool) -> None:
        with self._lock:
            self._running -= 1
            self._idle.append(pool if alive else None)
            if not alive:
                self._pools.discard(pool)
                pool.shutdown(wait=False)
            self._ended.notify_all()

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """End the processes when their calls are done."""
        with self._lock:
            if cancel_futures:
                for call in self._calls:
                    call[0].cancel()
                self._calls.clear()
            if wait:
                self._ended.wait_for(lambda: not self._running and not self._calls)
            pools = list(self._pools)
        for pool in pools:
            pool.shutdown(wait=wait)

    def stop(self) -> None:
        """End the processes immediately."""
        with self._lock:
            running = [p for pool in self._pools for p in (getattr(pool, "_processes", None) or {}).values()]
        self.shutdown(wait=False, cancel_futures=True)
        for process in running:
            process.terminate()
        for process in running:
            process.join(5)


def _again(future: Future[Any]) -> Future[Any]:
    """The future of a call that did not start: it gets the outcome of another future."""
    other: Future[Any] = Future()

    def hand_over(done: Future[Any]) -> None:
        error = done.exception()
        if error is None:
            future.set_result(done.result())
        else:
            future.set_exception(error)

    other.add_done_callback(hand_over)
    return other


def _attend() -> None:
    """Leave interrupts to the main process, and end with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: Any) -> None:
    parent.join()
    os._exit(1)
