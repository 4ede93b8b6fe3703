"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

if TYPE_CHECKING:
    from microtome.progress import Progress

__all__ = ["Bar", "in_words"]

_EVERY = 30.0  # seconds between two lines where there is no terminal


class Bar:
    """Draws the progress of a run in stages; its length follows the time, not the number of steps."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bars = Bars(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            TextColumn("{task.fields[done]}/{task.fields[all]}"),
            TimeElapsedColumn(),
            TextColumn("{task.fields[left]}"),
            console=console,
            transient=False,
            disable=not console.is_terminal,
        )
        self._bar: TaskID | None = None
        self._stage = ""
        self._told = 0.0

    def __enter__(self) -> Bar:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def __call__(self, at: Progress) -> None:
        """Show where the work stands."""
        now = time.monotonic()
        left = "" if at.done == at.total else f"about {in_words(at.remaining)} remain"
        if at.stage != self._stage:
            self._stage, self._told = at.stage, now
            self._bar = self._bars.add_task(at.stage, total=1.0, done=at.done, all=at.total, left=left)
            missing = at.total - at.done
            self._console.print(
                f"{at.stage}: {missing} of {at.total} results to make"
                + (f", about {in_words(at.remaining)}" if missing else "")
            )
        share = 1.0 if at.done == at.total else at.elapsed / max(at.elapsed + at.remaining, 1e-9)
        if self._bar is not None:
            self._bars.update(self._bar, completed=share, done=at.done, left=left)
        if not self._console.is_terminal and now - self._told >= _EVERY:
            self._told = now
            self._console.print(f"{at.done} of {at.total} results" + (f", {left}" if left else ""))


def in_words(seconds: float) -> str:
    """A span of time as one would say it.

    Examples
    --------
    >>> in_words(7.2), in_words(95), in_words(3000), in_words(9000)
    ('7 s', '2 minutes', '50 minutes', '2.5 hours')
    """
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
