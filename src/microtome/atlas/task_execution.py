"""Execution of tasks: missing results are computed on an engine."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import os
import sys
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from concurrent.futures import Executor, Future
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from typing import Any

from microtome.atlas.engine import Inline, available_cores, one_thread
from microtome.atlas.execution.agenda import Agenda
from microtome.atlas.execution.expected_time import ExpectedTime
from microtome.atlas.planning import first_look
from microtome.atlas.store import Store, recall
from microtome.atlas.task import Job, Refusal, Task
from microtome.errors import EngineError, InputError, LayerError, MicrotomeError, ModelError, OpaqueError, StoreError
from microtome.loading import RunConfig, Subject
from microtome.progress import Listener, Progress

__all__ = ["Execution", "Failure", "perform"]

_TELLING = ("layer", "method", "image", "unit", "shard")  # options that identify a task in messages


_TELLING_EVERY = 10.0  # seconds between two reports while no task ends
_TRIES = 3  # of a task, before the run continues without it


@dataclass(frozen=True)
class Failure:
    """A failed task.

    Attributes
    ----------
    task : Task
        The task.
    cause : str
        The error of the last try, or the failed task that it needs.
    """

    task: Task
    cause: str

    def __str__(self) -> str:
        about = ", ".join(f"{name} {value}" for name, value in self.task.parameters.items() if name in _TELLING)
        return f"{self.task.job}{f' ({about})' if about else ''}: {self.cause}"


@dataclass(frozen=True)
class Execution:
    """Executes tasks on an engine.

    A task that raises, or whose process dies, is tried again after the others. It fails after the third time:
    ``failures`` names it with its cause, and all tasks that do not need it are done.
    """

    source: RunConfig | Subject
    subject: Subject
    store: Store
    pool: Executor
    progress: Listener | None
    workers: int | None
    jobs: Mapping[str, Job]
    failures: list[Failure] = field(default_factory=list)
    expected: ExpectedTime = field(default_factory=ExpectedTime)

    def execute(self, stage: str, tasks: Sequence[Task], **numbers: float) -> int:
        """Run the tasks whose results are missing; at a time one more than the number of workers is submitted.

        Raises
        ------
        MicrotomeError
            A task of the first look, which everything needs, failed; the store cannot be
            written; the engine is lost.
        """
        failed = {one.task.key: one.task.job for one in self.failures}
        useless = [task for task in tasks if failed.keys() & set(task.needs)]
        for task in useless:
            self.failures.append(_follows(task, next(failed[key] for key in task.needs if key in failed)))
        tasks = [task for task in tasks if task not in useless] if useless else tasks
        agenda = Agenda(tasks, self.store.whole)
        missing = agenda.count
        self.expected.begin(agenda.open)
        there, began = len(tasks) - missing, time.monotonic()
        cores = 1 if isinstance(self.pool, Inline) else self.workers or available_cores()
        numbers["seconds"] = self.expected.remaining
        self._tell(Progress(stage, there, len(tasks), 0.0, self.expected.remaining / cores, numbers))
        running: dict[Future[float], Task] = {}
        limit = 1 if isinstance(self.pool, Inline) else 2 * cores
        tries = Counter[str]()
        _OPENED[_token(self.source)] = self.subject
        while True:
            for task in agenda.take(limit - len(running)):
                running[self._submit(task)] = task
            if not running:
                break
            ended, _ = concurrent.futures.wait(
                running, timeout=_TELLING_EVERY, return_when=concurrent.futures.FIRST_COMPLETED
            )
            for future in ended:
                task, seconds = running.pop(future), None
                try:
                    seconds = future.result()
                    closed = agenda.finish(task)
                except concurrent.futures.CancelledError as error:
                    raise EngineError(
                        "the scheduler is gone. Finished results are stored: the same command resumes."
                    ) from error
                except Exception as error:
                    tries[task.key] += _TRIES if type(error).__name__ == "KilledWorker" else 1
                    if self._ends_the_run(task, error):
                        raise
                    if tries[task.key] < _TRIES:
                        agenda.put_back(task)
                        continue
                    closed = self._give_up(agenda, task, error)
                there += len(closed)
                for one in closed:
                    self.expected.finish(one, seconds)
            remaining = self.expected.remaining / cores if agenda.open else 0.0
            self._tell(Progress(stage, there, len(tasks), time.monotonic() - began, remaining, numbers))
        for task in agenda.unneeded():
            self.store.remove(task.key)
        return missing - (len(self.failures) - len(failed) - len(useless))

    @staticmethod
    def _ends_the_run(task: Task, error: Exception) -> bool:
        """Whether another try is useless: the disk is full, or the user must fix an error of the first look."""
        return isinstance(error, StoreError) or (task.job in first_look.JOBS and isinstance(error, MicrotomeError))

    def _give_up(self, agenda: Agenda, task: Task, error: Exception) -> list[Task]:
        """Continue without a task and all that need it; returns them."""
        cause = _cause(error)
        if task.job in first_look.JOBS:
            raise EngineError(f"the first look at the images failed {_TRIES} times: {cause}") from error
        closed = agenda.drop(task)
        self.failures.append(Failure(task, cause))
        self.failures.extend(_follows(one, task.job) for one in closed[1:])
        return closed

    def _tell(self, at: Progress) -> None:
        if self.progress is not None:
            self.progress(at)

    def _submit(self, task: Task) -> Future[float]:
        recipe = self.source if isinstance(self.source, RunConfig) else None
        return self.pool.submit(
            perform, recipe, _token(self.source), self.subject.net.fingerprint, self.store.address, os.getcwd(),
            task, self.jobs[task.job],
        )  # fmt: skip


def _follows(task: Task, failed: str) -> Failure:
    return Failure(task, f"it needs the result of {failed}, which failed.")


def _cause(error: Exception) -> str:
    """The error of a task, in one line."""
    if isinstance(error, BrokenProcessPool) or type(error).__name__ == "KilledWorker":
        return "its process was killed or crashed each time; it may need more memory than available."
    return f"{type(error).__name__}: {error}"


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
    """Run one task in the current process, store its result, and return the seconds."""
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
                if task.gathers:  # load one at a time, without caching
                    result = job(subject, (store.load(key) for key in task.needs), **task.parameters)
                else:
                    result = job(subject, *(recall(address, key) for key in task.needs), **task.parameters)
            except (LayerError, OpaqueError, InputError) as error:
                if task.job in first_look.JOBS:  # all other tasks need these
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
