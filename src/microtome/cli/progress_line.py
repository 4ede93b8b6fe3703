"""Progress of long work: a bar on a terminal, a line now and then elsewhere."""

from __future__ import annotations

import time
from types import TracebackType
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn, TimeRemainingColumn

if TYPE_CHECKING:
    from microtome.atlas.task import Task

__all__ = ["Bar"]

_EVERY = 30.0  # seconds between two lines where there is no terminal


class Bar:
    """Draws the progress of a run; the remaining time is weighed by what tasks are expected to cost."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description:<24}"),
            BarColumn(),
            TextColumn("{task.fields[done]}/{task.fields[all]}"),
            TimeElapsedColumn(),
            TextColumn("remaining"),
            TimeRemainingColumn(),
            console=console,
            transient=False,
            disable=not console.is_terminal,
        )
        self._bar: TaskID | None = None
        self._done = self._all = 0
        self._cost = self._worked = 0.0
        self._started = self._told = 0.0

    def __enter__(self) -> Bar:
        self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._progress.stop()

    def stage(self, name: str, tasks: int, missing: int, cost: float) -> None:
        """A stage begins."""
        self._done, self._all = tasks - missing, tasks
        total = self._cost = max(cost, 1e-9)
        self._worked, self._started = 0.0, time.monotonic()
        self._told = self._started
        self._bar = self._progress.add_task(name, total=total, done=self._done, all=tasks)
        if not missing:
            self._progress.update(self._bar, completed=total)
        if not self._console.is_terminal:
            self._console.print(f"{name}: {missing} of {tasks} results to make")

    def done(self, task: Task, seconds: float) -> None:
        """A task has ended."""
        self._done += 1
        self._worked += task.cost
        if self._bar is not None:
            self._progress.update(self._bar, advance=task.cost, done=self._done)
        now = time.monotonic()
        if not self._console.is_terminal and now - self._told >= _EVERY:
            self._told = now
            left = (now - self._started) / max(self._worked, 1e-9) * max(self._cost - self._worked, 0.0)
            self._console.print(f"{self._done} of {self._all} results, about {left:.0f} s remain")
