"""How does a run go? Plan, do what is missing on an engine, assemble the pages; again after any interruption."""

from __future__ import annotations

import concurrent.futures
import contextlib
import ctypes
import os
import sys
import time
from collections.abc import Iterable, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from typing import Any, Protocol

from microtome.atlas import assemble
from microtome.atlas.budget import Budget, budget
from microtome.atlas.engine import Inline, available_cores, executor
from microtome.atlas.findings import Refusal
from microtome.atlas.jobs import JOBS
from microtome.atlas.outline import outline
from microtome.atlas.plan import Plan
from microtome.atlas.stages import stages
from microtome.atlas.store import Store
from microtome.atlas.task import Task
from microtome.errors import InputError, LayerError, ModelError, OpaqueError
from microtome.loading import RunConfig, Subject

__all__ = ["Report", "Watch", "build"]


class Watch(Protocol):
    """Is told how a run goes: what a progress bar needs."""

    def stage(self, name: str, tasks: int, missing: int, cost: float) -> None:
        """A stage begins: of so many tasks so many are still to do, at this cost in all."""

    def done(self, task: Task, seconds: float) -> None:
        """A task has ended."""


class _Silent:
    def stage(self, name: str, tasks: int, missing: int, cost: float) -> None:
        """Say nothing."""

    def done(self, task: Task, seconds: float) -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes
    ----------
    index : str
        The page to open.
    tasks, made : int
        Tasks of the plan, and how many of them were not there before.
    pages : int
        Pages of the site.
    seconds : float
        Wall-clock time.
    """

    index: str
    tasks: int
    made: int
    pages: int
    seconds: float


def build(
    source: RunConfig | Subject,
    out: str | os.PathLike[str],
    *,
    size: str | Budget = "quick",
    layers: Sequence[str] | None = None,
    images: int | None = None,
    engine: str = "inline",
    workers: int | None = None,
    watch: Watch | None = None,
    command: str = "",
) -> Report:
    """Build the atlas of a network: results first, then pages.

    Killed at any moment, the same call goes on from there and ends with the same bytes.

    Parameters
    ----------
    source : RunConfig or Subject
        Which model and images; a subject (already opened) only for the engine in this process.
    out : str or Path
        The output folder, or an address that fsspec knows.
    size : str or Budget
        ``"quick"``, ``"standard"``, ``"full"``, or a budget of one's own.
    layers : sequence of str, optional
        Layers whose units get pages; by default every convolution, or the blocks' outputs of deep networks.
    images : int, optional
        How many images get pages; by default what the budget says.
    engine, workers
        See :func:`microtome.atlas.engine.executor`.
    watch : Watch, optional
        Is told the progress.
    command : str
        The command that makes this atlas, for the pages.

    Raises
    ------
    InputError, LayerError, ModelError
        The model, the images or an option cannot be used.
    StoreError
        The folder is another model's, or cannot be written.
    """
    began = time.monotonic()
    chosen = budget(size)
    subject = source.open() if isinstance(source, RunConfig) else source
    if isinstance(source, Subject) and engine != "inline":
        raise InputError(
            f'engine "{engine}" opens the model in other processes: give a RunConfig, not an opened Subject.'
        )
    plan = Plan(outline(subject, chosen, layers, images), subject)
    store = Store(out)
    store.claim(
        {"network": subject.net.name, "fingerprint": subject.net.fingerprint, "input_shape": subject.net.input_shape}
    )
    told = watch or _Silent()
    made = tasks = 0
    done: list[Task] = []
    with executor(engine, workers) as pool:
        for name, stage in stages(plan, store):
            made += _execute(stage, source, subject, store, pool, told, name, workers)
            tasks += len(stage)
            done += stage
    pages = assemble.site(plan, store, done, command)
    return Report(store.path("index.html"), tasks, made, pages, time.monotonic() - began)


def _execute(
    tasks: Sequence[Task],
    source: RunConfig | Subject,
    subject: Subject,
    store: Store,
    pool: Executor,
    watch: Watch,
    name: str,
    workers: int | None,
) -> int:
    """Do the tasks whose results are not there; a few more than workers are in flight at a time."""
    missing = [task for task in tasks if not store.done(task.key)]
    watch.stage(name, len(tasks), len(missing), sum(task.cost for task in missing))
    flying: dict[Future[float], Task] = {}
    limit = 1 if isinstance(pool, Inline) else 2 * (workers or available_cores())
    waiting = iter(missing)
    _OPENED[_token(source)] = subject
    while True:
        for task in _some(waiting, limit - len(flying)):
            future = pool.submit(
                perform, source if isinstance(source, RunConfig) else None, _token(source), subject.net.fingerprint,
                store.address, os.getcwd(), task,
            )  # fmt: skip
            flying[future] = task
        if not flying:
            return len(missing)
        ended, _ = concurrent.futures.wait(flying, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in ended:
            watch.done(flying.pop(future), future.result())


def _some(waiting: Iterable[Task], count: int) -> Iterable[Task]:
    for _, task in zip(range(count), waiting, strict=False):
        yield task


def _return_memory() -> None:
    """Give freed memory back to the system: glibc keeps gigabytes between blocks of many sizes."""
    if sys.platform == "linux":
        with contextlib.suppress(OSError, AttributeError):  # another C library needs no reminder
            ctypes.CDLL(None).malloc_trim(0)


_OPENED: dict[Any, Subject] = {}
_FIRST = ("predictions", "patches")


def _token(source: RunConfig | Subject) -> Any:
    return source if isinstance(source, RunConfig) else id(source)


def perform(recipe: RunConfig | None, token: Any, fingerprint: str, address: str, folder: str, task: Task) -> float:
    """Do one task wherever this runs, write its result, and tell how many seconds it took."""
    began = time.monotonic()
    subject = _OPENED.get(token)
    if subject is None:
        if recipe is None:
            raise InputError("the model was not opened in this process.")
        if folder not in sys.path:
            sys.path.insert(0, folder)
        subject = recipe.open()
        _OPENED.clear()
        _OPENED[token] = subject
    if subject.net.fingerprint != fingerprint:
        raise ModelError(
            "the factory gives another network at each call; fix its random state, or save its weights and "
            "give --weights."
        )
    store = Store(address)
    if not store.done(task.key):
        try:
            result = JOBS[task.job](subject, store, task)
        except (LayerError, OpaqueError, InputError) as error:
            if task.job in _FIRST:  # without these there is nothing to show
                raise
            result = Refusal.of(subject.net, task, str(error))
        store.save(task.key, result)
        _return_memory()
    return time.monotonic() - began
