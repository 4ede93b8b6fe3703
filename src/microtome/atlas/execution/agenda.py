"""Agenda: which tasks remain, which of them can start, and which results are no longer needed."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence

from microtome.atlas.task import Task

__all__ = ["Agenda"]


class Agenda:
    """Tasks, the longest first, so that no worker waits for one long task at the end; each after those that it needs.

    Parameters
    ----------
    tasks : sequence of Task
        All tasks of a stage. An interim task counts as done if all tasks that need it are done.
    done : function
        Whether the result of a key is stored.

    Examples
    --------
    >>> from microtome.atlas.task import task
    >>> one = task("one", "", "")
    >>> two = task("two", "", "", needs=(one.key,))
    >>> agenda = Agenda([two, one], {"": True}.get)
    >>> [task.job for task in agenda.take(5)], [task.job for task in agenda.take(5)]
    (['one'], [])
    >>> [task.job for task in agenda.finish(one)], [task.job for task in agenda.take(5)]
    (['one'], ['two'])
    """

    def __init__(self, tasks: Sequence[Task], done: Callable[[str], object]) -> None:
        tasks = list({task.key: task for task in tasks}.values())  # two tasks of one key have one result
        there = {task.key for task in tasks if done(task.key)}
        wanted = {need for task in tasks if task.key not in there for need in task.needs}
        self._interim = [task for task in tasks if task.interim]
        missing = [task for task in tasks if task.key not in there and (not task.interim or task.key in wanted)]
        missing.sort(key=lambda task: -task.cost)
        self._open = {task.key: task for task in missing}
        self._unmet = {task.key: {need for need in task.needs if need in self._open} for task in missing}
        self._readers: dict[str, list[Task]] = {}
        for task in missing:
            for need in self._unmet[task.key]:
                self._readers.setdefault(need, []).append(task)
        self._needed = {task.key: set(task.needs) for task in tasks if not task.interim}
        self._ready = deque(task for task in missing if not self._unmet[task.key])
        self.count = len(missing)

    @property
    def open(self) -> Collection[Task]:
        """The tasks that have not ended."""
        return self._open.values()

    def take(self, count: int) -> Iterator[Task]:
        """The next tasks that can start, at most ``count``."""
        for _ in range(min(count, len(self._ready))):
            yield self._ready.popleft()

    def put_back(self, task: Task) -> None:
        """Put a task back, after all that can start now."""
        self._ready.append(task)

    def finish(self, task: Task) -> list[Task]:
        """A task is done: tasks that need no other can start. Returns the task."""
        del self._open[task.key]
        for reader in self._readers.get(task.key, ()):
            self._unmet[reader.key].discard(task.key)
            if not self._unmet[reader.key] and reader.key in self._open:
                self._ready.append(reader)
        return [task]

    def drop(self, task: Task) -> list[Task]:
        """A task failed, and so do all that need it. Returns them, the task first."""
        dropped = [self._open.pop(task.key)]
        for one in dropped:
            dropped += [self._open.pop(r.key) for r in self._readers.get(one.key, ()) if r.key in self._open]
        return dropped

    def unneeded(self) -> list[Task]:
        """Interim tasks whose results are no longer needed."""
        needed = {need for key, needs in self._needed.items() if key in self._open for need in needs}
        return [task for task in self._interim if task.key not in needed]
