"""Execution of tasks: what is missing is computed on an engine, each task in whatever process it lands."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any

from microtome.atlas.engine import Inline, available_cores, one_thread
from microtome.atlas.planning import first_look
from microtome.atlas.store import Store, recall
from microtome.atlas.task import Job, Refusal, Task
from microtome.errors import InputError, LayerError, ModelError, OpaqueError
from microtome.loading import RunConfig, Subject
from microtome.progress import Listener, Progress

__all__ = ["Execution", "perform"]

_TRUSTED = 30.0  # planned seconds whose measured time counts as much as the plan


@dataclass(frozen=True)
class Execution:
    """Executes tasks on an engine."""

    source: RunConfig | Subject
    subject: Subject
    store: Store
    pool: Executor
    progress: Listener | None
    workers: int | None
    jobs: Mapping[str, Job]

    def execute(self, stage: str, tasks: Sequence[Task], **numbers: float) -> int:
        """Do the tasks whose results are missing; a few more than there are workers are submitted at a time."""
        missing = [task for task in tasks if not self.store.done(task.key)]
        there, left, began = len(tasks) - len(missing), sum(task.cost for task in missing), time.monotonic()
        cores = 1 if isinstance(self.pool, Inline) else self.workers or available_cores()
        numbers["seconds"] = left
        self._tell(Progress(stage, there, len(tasks), 0.0, left / cores, numbers))
        running: dict[Future[float], Task] = {}
        limit = 1 if isinstance(self.pool, Inline) else 2 * cores
        waiting, worked = iter(missing), 0.0
        _OPENED[_token(self.source)] = self.subject
        while True:
            for task in _some(waiting, limit - len(running)):
                running[self._submit(task)] = task
            if not running:
                return len(missing)
            ended, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
            for future in ended:
                future.result()  # raises what the task raised
                there, worked = there + 1, worked + running.pop(future).cost
                elapsed = time.monotonic() - began
                # What a second of the plan takes: as planned at first, as measured once much is done.
                each = (elapsed + _TRUSTED / cores) / (worked + _TRUSTED)
                remaining = each * (left - worked)
                self._tell(Progress(stage, there, len(tasks), elapsed, max(remaining, 0.0), numbers))

    def _tell(self, at: Progress) -> None:
        if self.progress is not None:
            self.progress(at)

    def _submit(self, task: Task) -> Future[float]:
        recipe = self.source if isinstance(self.source, RunConfig) else None
        return self.pool.submit(
            perform, recipe, _token(self.source), self.subject.net.fingerprint, self.store.address, os.getcwd(),
            task, self.jobs[task.job],
        )  # fmt: skip


def _some(waiting: Iterable[Task], count: int) -> Iterator[Task]:
    for _, task in zip(range(count), waiting, strict=False):
        yield task


def _return_memory() -> None:
    """Give freed memory back to the system: glibc keeps gigabytes between blocks of many sizes."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library needs no reminder
            ctypes.CDLL(None).malloc_trim(0)


_OPENED: dict[Any, Subject] = {}


def _token(source: RunConfig | Subject) -> Any:
    return source if isinstance(source, RunConfig) else id(source)


def perform(
    recipe: RunConfig | None, token: Any, fingerprint: str, address: str, folder: str, task: Task, job: Job
) -> float:
    """Do one task in whatever process this runs, store its result, and return how many seconds it took."""
    began = time.monotonic()
    with one_thread():
        subject = _opened(recipe, token, folder)
        if subject.net.fingerprint != fingerprint:
            raise ModelError(
                "the factory gives another network at each call; fix its random state, or save its weights and "
                "give --weights."
            )
        store = Store(address)
        if not store.done(task.key):
            try:
                result = job(subject, *(recall(address, key) for key in task.needs), **task.parameters)
            except (LayerError, OpaqueError, InputError) as error:
                if task.job in first_look.JOBS:  # without these there is nothing to show
                    raise
                result = Refusal.of(subject.net, task, str(error))
            store.save(task.key, result)
            _return_memory()
    return time.monotonic() - began


def _opened(recipe: RunConfig | None, token: Any, folder: str) -> Subject:
    """The network and images, opened once in each process."""
    subject = _OPENED.get(token)
    if subject is None:
        if recipe is None:
            raise InputError("the model was not opened in this process.")
        if folder not in sys.path:
            sys.path.insert(0, folder)
        subject = recipe.open()
        _OPENED.clear()
        _OPENED[token] = subject
    return subject
