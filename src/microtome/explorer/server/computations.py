"""The queue of computations: one per core at a time, urgent ones first, each can be cancelled."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from microtome.explorer.server.request_limits import Limits

__all__ = ["BusyError", "Cancelled", "Computations", "Turn"]

T = TypeVar("T")

_PATIENCE = 0.25  # seconds that long work waits for urgent work between two of its passes


class BusyError(Exception):
    """The queue is full, so a computation is refused."""


class Cancelled(BaseException):
    """Ends a computation whose client has left; not an Exception, so that no model and no method catches it."""


class Turn:
    """The turn of one computation.

    Attributes
    ----------
    urgent : bool
        Whether a user waits for it now; long work lets urgent work go first.
    """

    def __init__(self, *, urgent: bool = True) -> None:
        self.urgent = urgent
        self._ended = threading.Event()
        self._computations: Computations | None = None

    def cancel(self) -> None:
        """Ask the computation to end; it does so before its next pass."""
        self._ended.set()

    def pause(self) -> None:
        """Between two passes: end if cancelled, and let urgent work go first.

        Raises
        ------
        Cancelled
            When no client waits for the result any more.
        """
        if self._ended.is_set():
            raise Cancelled
        if not self.urgent and self._computations is not None:
            self._computations.give_way()
            if self._ended.is_set():
                raise Cancelled

    def _belongs_to(self, computations: Computations) -> None:
        self._computations = computations


class Computations:
    """Runs computations in threads: urgent ones on all cores, long ones on one core fewer; the queue is bounded.

    The network's own passes take turns (a pass sets flags of the model), and each uses all cores.
    """

    def __init__(self, limits: Limits) -> None:
        self._limit = limits.waiting + limits.computations
        self._urgent = ThreadPoolExecutor(limits.computations, "urgent")
        self._long = ThreadPoolExecutor(max(1, limits.computations - 1), "long")
        self._count, self._urgent_count = 0, 0
        self._free = threading.Condition()

    @property
    def count(self) -> int:
        """Number of computations that run or wait."""
        return self._count

    async def run(self, function: Callable[[Turn], T], turn: Turn) -> T:
        """Wait for a thread, compute there, and return the result; cancelling the caller cancels the work.

        Raises
        ------
        BusyError
            When the queue is full.
        Cancelled
            When the turn was cancelled.
        """
        if self._count >= self._limit:
            raise BusyError
        turn._belongs_to(self)
        with self._free:
            self._count += 1
            self._urgent_count += turn.urgent
        future = (self._urgent if turn.urgent else self._long).submit(self._work, function, turn)
        future.add_done_callback(lambda _: self._end(turn))  # also of one that was cancelled before it began
        try:
            return await asyncio.wrap_future(future)
        except asyncio.CancelledError:
            turn.cancel()
            raise

    @staticmethod
    def _work(function: Callable[[Turn], T], turn: Turn) -> T:
        turn.pause()
        return function(turn)

    def _end(self, turn: Turn) -> None:
        with self._free:
            self._count -= 1
            self._urgent_count -= turn.urgent
            self._free.notify_all()

    def give_way(self) -> None:
        """Wait until no urgent computation runs or waits, but only briefly: long work must progress, too."""
        until = time.monotonic() + _PATIENCE
        with self._free:
            while self._urgent_count and (left := until - time.monotonic()) > 0:
                self._free.wait(left)

    def close(self) -> None:
        """Drop what waits."""
        for pool in (self._urgent, self._long):
            pool.shutdown(wait=False, cancel_futures=True)
