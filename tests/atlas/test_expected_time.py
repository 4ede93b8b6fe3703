"""Does the expected time of an atlas follow what its tasks take, kind by kind?"""

from __future__ import annotations

from pathlib import Path

import pytest
from torch import nn

from microtome import Network
from microtome.atlas import task_execution
from microtome.atlas.engine import Inline
from microtome.atlas.execution.expected_time import ExpectedTime
from microtome.atlas.store import Store
from microtome.atlas.task import Task, task
from microtome.data import Images
from microtome.loading import Subject
from microtome.progress import Progress

SLOWER = {"tuning": 12.0, "maps": 1.5}  # than planned, by kind


def _tasks(count: int) -> list[Task]:
    return [task(job, "", "", number=number, cost=2.0) for job in SLOWER for number in range(count)]


def _seconds(one: Task) -> float:
    return SLOWER[one.job] * one.cost


def test_one_finished_task_of_each_kind_makes_the_estimate_exact() -> None:
    """Oracle: the true time of the tasks that are left."""
    tasks = _tasks(20)
    expected = ExpectedTime()
    expected.begin(tasks)
    assert expected.remaining == sum(one.cost for one in tasks)
    for one in (tasks[0], tasks[-1]):
        expected.finish(one, _seconds(one))
    left = tasks[1:-1]
    assert expected.remaining == pytest.approx(sum(map(_seconds, left)), rel=1e-12)  # one rounding per kind
    for one in left:
        expected.finish(one, _seconds(one))
    assert expected.remaining == 0


def test_a_kind_that_has_not_run_is_expected_to_be_as_slow_as_the_others_and_failures_measure_nothing() -> None:
    tasks = _tasks(200)
    expected = ExpectedTime()
    expected.begin(tasks)
    for one in tasks[:200]:
        expected.finish(one, _seconds(one))
    assert expected.remaining == pytest.approx(200 * 2.0 * SLOWER["tuning"], rel=0.1)  # 30 s of the plan still count
    before = expected.remaining
    expected.finish(tasks[-1], None)
    assert expected.remaining == pytest.approx(before * 199 / 200)


def test_methods_of_one_job_are_kinds_of_their_own() -> None:
    tasks = [task("maps", "", "", method=name, image=image) for name in ("gradient", "occlusion") for image in range(2)]
    expected = ExpectedTime()
    expected.begin(tasks)
    expected.finish(tasks[0], 1.0)
    expected.finish(tasks[2], 50.0)
    assert expected.remaining == 51.0


def test_a_run_tells_the_measured_time_and_the_next_stage_begins_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(task_execution, "perform", lambda *given: _seconds(given[5]))
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), input_shape=(1, 2, 2))
    images = Images.from_float(net.probe, None)
    told: list[Progress] = []
    subject = Subject(net, images)
    jobs = dict.fromkeys(SLOWER, lambda *_: None)
    run = task_execution.Execution(subject, subject, Store(tmp_path), Inline(), told.append, None, jobs)
    tasks = _tasks(10)
    run.execute("first", tasks)
    true = sum(map(_seconds, tasks))
    assert told[0].remaining == 40.0  # the plan
    assert told[11].remaining == pytest.approx(9 * 2.0 * SLOWER["maps"], rel=1e-9)
    assert told[-1].remaining == 0
    told.clear()
    run.execute("second", [task(one.job, "2", "", **one.parameters, cost=one.cost) for one in tasks])
    assert told[0].remaining == pytest.approx(true, rel=1e-9)
