"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars

from microtome.progress import Progress, in_words

__all__ = ["Bar"]

_EVERY = 30.0  # seconds between two lines where there is no terminal


class Bar:
    """Draws the progress of a run in stages; the length of the bar follows the time, not the number of steps."""

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
        self._printed = 0.0

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
            self._stage, self._printed = at.stage, now
            self._bar = self._bars.add_task(at.stage, total=1.0, done=at.done, all=at.total, left=left)
            missing = at.total - at.done
            self._console.print(
                f"{at.stage}: {missing} of {at.total} results to make"
                + (f", about {in_words(at.remaining)}" if missing else "")
                + (
                    f"; the folder will hold about {at.numbers['megabytes']:.0f} MB"
                    if "megabytes" in at.numbers
                    else ""
                )
            )
        share = 1.0 if at.done == at.total else at.elapsed / max(at.elapsed + at.remaining, 1e-9)
        if self._bar is not None:
            self._bars.update(self._bar, completed=share, done=at.done, left=left)
        if not self._console.is_terminal and now - self._printed >= _EVERY:
            self._printed = now
            self._console.print(f"{at.done} of {at.total} results" + (f", {left}" if left else ""))
