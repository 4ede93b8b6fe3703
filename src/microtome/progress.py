"""Progress of long work: the one type that every function with ``progress=`` reports."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

__all__ = ["Clock", "Listener", "Progress", "in_words"]


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
        return f"{self.stage}: step {self.done} of {self.total}{numbers}, about {self.remaining:.0f} s remain"


Listener = Callable[[Progress], None]


class Clock:
    """Times the steps of a computation and reports them to a listener.

    Parameters
    ----------
    listener : function or None
        Called with a :class:`Progress` after each step; None for no reports.
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
        self._listener, self._total, self._first = listener, total, first
        self._started = time.monotonic()

    def step(self, stage: str, done: int, **numbers: float) -> None:
        """Report the number of finished steps, including those of earlier runs."""
        if self._listener is None:
            return
        elapsed = time.monotonic() - self._started
        each = elapsed / max(done - self._first, 1)
        self._listener(Progress(stage, done, self._total, elapsed, each * (self._total - done), numbers))


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
