"""The expected time of the tasks that remain, by kind of task, corrected by the tasks that are done."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

from microtome.atlas.task import Task

__all__ = ["ExpectedTime"]

_TRUSTED = 30.0  # planned seconds after which measured times weigh as much as the plan, for kinds not yet measured

_Kind = tuple[str, str]


class ExpectedTime:
    """Expected seconds of the remaining tasks, on one core.

    The plan states the cost of each task. Real times differ by kind of task, by machine and by what else runs there. So
    the planned cost of a kind is multiplied by the ratio of measured and planned seconds of its finished tasks. A kind
    of which no task is finished has the ratio of all finished tasks. Ratios hold in later stages too. A kind is a job,
    and for maps of pictures a job with one method.

    Examples
    --------
    >>> from microtome.atlas.task import task
    >>> tasks = [task("tuning", "", "", layer=name, cost=2.0) for name in ("a", "b", "c")]
    >>> expected = ExpectedTime()
    >>> expected.begin(tasks)
    >>> expected.remaining
    6.0
    >>> expected.finish(tasks[0], 10.0)
    >>> expected.remaining
    20.0
    """

    def __init__(self) -> None:
        self._planned: defaultdict[_Kind, float] = defaultdict(float)  # seconds of finished tasks, by kind
        self._measured: defaultdict[_Kind, float] = defaultdict(float)
        self._left: defaultdict[_Kind, float] = defaultdict(float)  # planned seconds of the tasks that remain

    def begin(self, tasks: Iterable[Task]) -> None:
        """Start a stage with these tasks."""
        self._left.clear()
        for task in tasks:
            self._left[_kind(task)] += task.cost

    def finish(self, task: Task, seconds: float | None) -> None:
        """A task has ended: its measured seconds, or None if it has failed."""
        kind = _kind(task)
        self._left[kind] -= task.cost
        if seconds is not None:
            self._planned[kind] += task.cost
            self._measured[kind] += seconds

    @property
    def remaining(self) -> float:
        """Expected seconds of the remaining tasks, on one core."""
        every = (sum(self._measured.values()) + _TRUSTED) / (sum(self._planned.values()) + _TRUSTED)
        return sum(
            max(left, 0.0) * (self._measured[kind] / self._planned[kind] if self._planned.get(kind) else every)
            for kind, left in self._left.items()
        )


def _kind(task: Task) -> _Kind:
    return task.job, str(task.parameters.get("method", ""))
