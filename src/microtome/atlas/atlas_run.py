"""Build an atlas: plan the tasks, compute what is missing on an engine, write the pages."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from microtome.atlas import pages
from microtome.atlas.album import Album
from microtome.atlas.commands import Commands, options_of
from microtome.atlas.engine import available_cores, executor, one_thread
from microtome.atlas.execution.folder_owner import owned
from microtome.atlas.planning import first_look
from microtome.atlas.planning.budget import BUDGETS, LARGER, Budget, budget
from microtome.atlas.planning.expected_size import expected_megabytes
from microtome.atlas.planning.network_summary import network_summary
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection, select, selection_of
from microtome.atlas.store import OPTIONS, Store
from microtome.atlas.task import Job, Task
from microtome.atlas.task_execution import Execution
from microtome.atlas.topic import Topic
from microtome.atlas.topics import TOPICS
from microtome.atlas.topics.training.kept_run import check_run
from microtome.errors import InputError
from microtome.loading import RunConfig, Subject
from microtome.loading.own_functions import in_a_file, is_own, own_function
from microtome.progress import Listener, in_words

__all__ = ["Report", "build"]


@dataclass(frozen=True)
class Report:
    """What a run did.

    Attributes
    ----------
    index : str
        The page to open.
    tasks, made : int
        Tasks of the plan, and how many of them this run computed.
    pages : int
        Pages of the site.
    seconds : float
        Wall-clock time.
    failed : tuple of str
        Failed tasks with their cause; pages show it instead of the result, and the next run tries again.
    """

    index: str
    tasks: int
    made: int
    pages: int
    seconds: float
    failed: tuple[str, ...] = ()


def build(
    source: RunConfig | Subject,
    out: str | os.PathLike[str],
    *,
    size: str | Budget = "quick",
    layers: Sequence[str] | None = None,
    images: int | None = None,
    engine: str | None = None,
    workers: int | None = None,
    progress: Listener | None = None,
    options: Mapping[str, str] | None = None,
    topics: Sequence[Topic] = TOPICS,
    methods: Sequence[str] = (),
) -> Report:
    """Build the atlas of a network: results first, then pages.

    If the run is killed at any moment, the same call resumes and ends with the same bytes. Every engine and every
    number of workers gives the same bytes.

    Parameters
    ----------
    source : RunConfig or Subject
        Which model and images; a subject (already opened) only for the engine in this process.
    out : str or Path
        The output folder, or an address that fsspec knows.
    size : str or Budget
        ``"quick"``, ``"standard"``, ``"full"``, or your own budget.
    layers : sequence of str, optional
        Layers whose units get pages; by default every convolution, or the outputs of the blocks of deep networks.
    images : int, optional
        How many images get pages; by default what the budget says.
    engine, workers
        See :func:`microtome.atlas.engine.executor`. By default several processes on several cores, for
        a recipe that does not name a GPU; otherwise this process.
    progress : function, optional
        Called with a :class:`~microtome.progress.Progress` when a stage begins and after results. The remaining
        time is that of the plan, corrected by kind of result by the times measured so far; ``numbers`` holds the
        ``seconds`` expected at the start of the stage on one core and, after the selection, the expected
        ``megabytes`` of the folder.
    options : mapping of str to str, optional
        The options of the command line as typed, for the commands on pages; by default those that the
        recipe represents.
    topics : sequence of Topic
        The topics of the atlas: the built-in topics, fewer, or additional ones.
    methods : sequence of str
        Your own attribution methods in addition to the registered ones, by name, since other processes call them, too:
        ``"path/to/file.py:function"`` or ``"package.module:function"``; see ``attribution.own_method``.

    Raises
    ------
    InputError, LayerError, ModelError
        The model, the images or an option cannot be used.
    StoreError
        The folder belongs to another model, another run works in it, or it cannot be written.
    EngineError
        The scheduler is gone, or the first look at the images fails three times.

    Notes
    -----
    A task that raises, or whose process dies, is tried three times. After that the run continues without it:
    ``Report.failed`` and the pages give the reason.
    """
    began = time.monotonic()
    chosen = budget(size)
    if isinstance(source, Subject) and engine not in (None, "inline"):
        raise InputError(
            f'engine "{engine}" opens the model in other processes: give a RunConfig, not an opened Subject.'
        )
    with one_thread():
        subject = source.open() if isinstance(source, RunConfig) else source
        check_run(subject)
        plan = Plan(network_summary(subject, chosen, layers, images), subject, _own(methods))
        store = Store(out)
        net = subject.net
        store.claim({"network": net.name, "fingerprint": net.fingerprint, "input_shape": net.input_shape})
        with owned(store):
            with executor(engine or _usual_engine(source), workers) as pool:
                run = Execution(_absolute(source), subject, store, pool, progress, workers, _jobs(topics))
                survey = first_look.first_tasks(plan)
                made = run.execute("looking at the images", survey)
                selected = select(plan, store)
                # By key: with one output, the predicted class and the other class have the same maps.
                tasks = list({task.key: task for topic in topics for task in topic.tasks(plan, selected)}.values())
                made += run.execute("layers, units, images", tasks, megabytes=expected_megabytes(plan, selected))
            commands = _commands(source, options, layers, images, chosen, methods)
            if commands.options:
                store.write_if_changed(OPTIONS, (json.dumps(commands.options, indent=1) + "\n").encode())
            failed = {one.task.key: one.cause for one in run.failures}
            album = Album(plan, selected, store, [*survey, *tasks], commands, failed)
            count = pages.site(album, topics, larger=_larger(plan, selected, topics, tasks, layers, images))
    return Report(
        store.path("index.html"), len(survey) + len(tasks), made, count, time.monotonic() - began,
        tuple(map(str, run.failures)),
    )  # fmt: skip


def _own(methods: Sequence[str]) -> tuple[str, ...]:
    """Names of the user's own functions, each checked before anything runs."""
    for name in methods:
        if not is_own(name):
            raise InputError(
                f'"file.py:function" was expected, got "{name}"; registered methods are always in the atlas.'
            )
        own_function(name)
    return tuple(methods)


def _larger(
    plan: Plan,
    selected: Selection,
    topics: Sequence[Topic],
    tasks: Sequence[Task],
    layers: Sequence[str] | None,
    images: int | None,
) -> str:
    """The additional time of the next larger budget, in words; empty if there is none."""
    name = LARGER.get(plan.budget.name)
    if name is None:
        return ""
    wider = Plan(network_summary(plan.subject, budget(name), layers, images), plan.subject, plan.methods)
    chosen = selection_of(wider, selected.seen, selected.tables)
    done = {task.key for task in tasks}
    more = [task for topic in topics for task in topic.tasks(wider, chosen) if task.key not in done]
    return f"about {in_words(sum(task.cost for task in more))} on one core"


def _usual_engine(source: RunConfig | Subject) -> str:
    several = isinstance(source, RunConfig) and (source.device or "cpu") == "cpu" and available_cores() > 1
    return "processes" if several else "inline"


def _jobs(topics: Sequence[Topic]) -> dict[str, Job]:
    """All jobs by name."""
    found = dict(first_look.JOBS)
    for topic in topics:
        for name, job in topic.jobs.items():
            if found.setdefault(name, job) is not job:
                raise InputError(f'topic "{topic.name}" has a job "{name}", which another topic has, too; rename it.')
    return found


def _commands(
    source: RunConfig | Subject,
    typed: Mapping[str, str] | None,
    layers: Sequence[str] | None,
    images: int | None,
    size: Budget,
    methods: Sequence[str],
) -> Commands:
    """Command lines for the pages. The output folder is a fixed word, so that pages do not depend on it."""
    if typed is not None:
        options = dict(typed)
    elif isinstance(source, RunConfig):
        options = options_of(source)
    else:
        return Commands({})
    options["out"] = "FOLDER"
    if layers is not None:
        options["layers"] = ",".join(layers)
    if images is not None:
        options["images"] = str(images)
    if methods:
        options["methods"] = ",".join(methods)
    if size.name in BUDGETS and size.name != "quick":
        options["budget"] = size.name
    return Commands(options)


def _absolute(source: RunConfig | Subject) -> RunConfig | Subject:
    """A recipe that is valid in any working folder."""
    if not isinstance(source, RunConfig):
        return source
    place, colon, factory = source.model.rpartition(":")
    model = f"{_absolute_path(place)}{colon}{factory}" if in_a_file(place) else source.model
    return dataclasses.replace(
        source,
        model=model,
        data=_absolute_path(source.data),
        weights=_absolute_path(source.weights),
        run=_absolute_path(source.run),
    )


def _absolute_path(path: str | None) -> str | None:
    return str(Path(path).absolute()) if path is not None and Path(path).exists() else path
