"""Progress of long work: the one type that all long functions report, to their ``progress=`` or to ``listening``."""

from __future__ import annotations

import contextlib
import time
import weakref
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from contextvars import ContextVar
from dataclasses import dataclass, field
from typing import TypeVar

__all__ = ["Clock", "Listener", "Progress", "in_words", "listening", "reported"]

Item = TypeVar("Item")


@dataclass(frozen=True)
class Progress:
    """The state of a long computation.

    Attributes
    ----------
    stage : str
        The current step: ``"epoch 2 of 20"``, a layer's name.
    done, total : int
        Steps of the whole work, all of about the same cost.
    elapsed, remaining : float
        Seconds, the latter estimated from the steps so far; 0 at the end.
    numbers : dict of str to float
        Measured values, such as ``loss`` and ``accuracy``.

    Examples
    --------
    >>> print(Progress("epoch 2 of 4", 30, 60, 10.0, 10.0, {"loss": 0.25}))
    epoch 2 of 4: step 30 of 60, loss 0.25, about 10 s remain
    """

    stage: str
    done: int
    total: int
    elapsed: float = 0.0
    remaining: float = 0.0
    numbers: Mapping[str, float] = field(default_factory=dict)

    def __str__(self) -> str:
        """One line of text."""
        numbers = "".join(f", {name} {value:.4g}" for name, value in self.numbers.items())
        return f"{self.stage}: step {self.done} of {self.total}{numbers}, about {in_words(self.remaining)} remain"


Listener = Callable[[Progress], None]


@dataclass
class _Listening:
    """Who listens to all clocks of a block, and the clocks that run, from the outermost one inwards."""

    listener: Listener
    running: list[weakref.ref[Clock]] = field(default_factory=list)

    def enter(self, clock: Clock) -> Clock | None:
        """Note a new clock; returns the running clock inside whose step it runs."""
        while self.running and ((last := self.running[-1]()) is None or last.ended):
            self.running.pop()
        around = self.running[-1]() if self.running else None
        self.running.append(weakref.ref(clock))
        return around

    def back_to(self, clock: Clock) -> None:
        """Forget the clocks that ran inside a step of a clock, for the step has ended."""
        places = [place for place, one in enumerate(self.running) if one() is clock]
        if places:
            del self.running[places[0] + 1 :]


_LISTENING: ContextVar[_Listening | None] = ContextVar("listening", default=None)


@contextlib.contextmanager
def listening(listener: Listener | None) -> Iterator[None]:
    """Report the progress of all long work inside the block that no ``progress=`` listens to; None for silence.

    If long work consists of other long work, the steps of the outermost are reported, with the time that remains for
    all of it, at each step of the inner one.

    Examples
    --------
    >>> with listening(print):
    ...     clock = Clock(None, 2)
    ...     clock.step("conv1", 2)
    conv1: step 2 of 2, about 0 s remain
    """
    token = _LISTENING.set(None if listener is None else _Listening(listener))
    try:
        yield
    finally:
        _LISTENING.reset(token)


class Clock:
    """Times the steps of a computation and reports them to a listener.

    Parameters
    ----------
    listener : function or None
        Called with a :class:`Progress` after each step; None for the listener of :func:`listening`, if there is one.
    total : int
        Steps of the whole work.
    first : int
        Steps that were done in an earlier run.

    Examples
    --------
    >>> clock = Clock(print, 2)
    >>> clock.step("conv2", 2, change=0.5)
    conv2: step 2 of 2, change 0.5, about 0 s remain
    """

    def __init__(self, listener: Listener | None, total: int, *, first: int = 0) -> None:
        self._total, self._first, self._done = total, first, first
        self._started = time.monotonic()
        self._shared = _LISTENING.get() if listener is None else None
        self._around = None if self._shared is None else self._shared.enter(self)
        self._listener = listener if self._shared is None else self._shared.listener

    @property
    def heard(self) -> bool:
        """Whether anyone listens."""
        return self._listener is not None

    @property
    def ended(self) -> bool:
        """Whether all steps are done."""
        return self._done >= self._total

    def step(self, stage: str, done: int, **numbers: float) -> None:
        """Report the number of finished steps, including those of earlier runs."""
        self._done = done
        if self._shared is not None:
            self._shared.back_to(self)
        self._report(stage, 0.0, numbers)

    def _report(self, stage: str, share: float, numbers: Mapping[str, float]) -> None:
        """Report to the listener, or to the clock around; ``share`` of the next step is done."""
        if self._listener is None:
            return
        done = self._done + share
        if self._around is not None:
            self._around._report(stage, min(done / max(self._total, 1), 1.0), numbers)
            return
        elapsed = time.monotonic() - self._started
        each = elapsed / (done - self._first) if done > self._first else elapsed
        remaining = each * max(self._total - done, 0)
        self._listener(Progress(stage, self._done, self._total, elapsed, remaining, numbers))


def reported(
    items: Iterable[Item],
    stage: str | Callable[[Item], str],
    total: int | None = None,
    listener: Listener | None = None,
) -> Iterator[Item]:
    """The items, one after another; a step is reported after each.

    Parameters
    ----------
    items : iterable
        What a loop goes through.
    stage : str or function
        The name of the steps, or of the step of an item.
    total : int, optional
        Number of items; default their length.
    listener : function, optional
        As of :class:`Clock`.

    Examples
    --------
    >>> with listening(print):
    ...     for layer in reported(["conv1", "conv2"], str):
    ...         pass
    conv1: step 1 of 2, about 0 s remain
    conv2: step 2 of 2, about 0 s remain
    """
    if total is None:
        items = items if isinstance(items, Collection) else list(items)
        total = len(items)
    clock = Clock(listener, total)
    for done, item in enumerate(items, 1):
        yield item
        clock.step(stage if isinstance(stage, str) else stage(item), done)


def in_words(seconds: float) -> str:
    """A duration in words.

    Examples
    --------
    >>> in_words(7.2), in_words(95), in_words(3000), in_words(9000)
    ('7 s', '2 minutes', '50 minutes', '2.5 hours')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
