"""The first look in shards: what it stores, what it goes on with, and what stays behind."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from atlas import small
from microtome import units
from microtome.atlas.engine import Inline
from microtome.atlas.planning import first_look
from microtome.atlas.planning.network_summary import network_summary
from microtome.atlas.planning.plan import Plan
from microtome.atlas.store import Store
from microtome.atlas.task_execution import Execution
from microtome.loading import RunConfig

BATCH = 2


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    small.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("nets", None)
    monkeypatch.setattr(Plan, "batch", BATCH)
    monkeypatch.setattr(Plan, "shards", lambda self, seconds: [(number, 4) for number in range(3)])  # of 9 images
    subject = RunConfig("nets:build", input_shape=(1, 12, 10), data=str(tmp_path / "images")).open()
    return Plan(network_summary(subject, small.TINY), subject)


def execution(plan: Plan, store: Store) -> Execution:
    return Execution(plan.subject, plan.subject, store, Inline(), None, None, first_look.JOBS)


def test_scores_and_patches_are_those_of_one_pass_and_shards_are_gone(plan: Plan, tmp_path: Path) -> None:
    store, tasks = Store(tmp_path / "out"), first_look.first_tasks(plan)
    assert [task.job for task in tasks] == ["look"] * 3 + ["predictions", "patches"]
    assert execution(plan, store).execute("", tasks) == 5
    seen, tables = first_look.first_look(plan, store)
    every = plan.subject.pictures(range(9))
    torch.testing.assert_close(seen.logits, plan.net.logits(every, batch=BATCH), rtol=0, atol=0)
    assert torch.equal(seen.labels, plan.subject.labels)
    plain = units.top_patches(plan.net, plan.subject.images, plan.summary.surveyed, k=3, bins=2, batch=BATCH)
    for name in plan.layers:
        assert torch.equal(tables[name].image, plain[name].image)
        assert torch.equal(tables[name].histogram, plain[name].histogram.int())
        torch.testing.assert_close(tables[name].mean, plain[name].mean, rtol=1e-12, atol=0)
    assert [store.done(task.key) for task in tasks] == [False] * 3 + [True] * 2
    assert execution(plan, store).execute("", tasks) == 0


def test_it_goes_on_with_the_shards_that_are_there_and_their_order_changes_no_byte(plan: Plan, tmp_path: Path) -> None:
    tasks = first_look.first_tasks(plan)
    whole = Store(tmp_path / "whole")
    execution(plan, whole).execute("", tasks)
    other = Store(tmp_path / "other")
    execution(plan, other).execute("", [dataclasses.replace(task, interim=False) for task in (tasks[2], tasks[1])])
    assert execution(plan, other).execute("", tasks) == 3
    assert small.contents(tmp_path / "other") == small.contents(tmp_path / "whole")


def test_shards_hold_all_images_in_whole_batches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, plan: Plan) -> None:
    monkeypatch.undo()
    for count, seconds in ((9, 0.001), (50_000, 3e-4), (250, 0.042), (1_281_167, 0.4)):
        monkeypatch.setattr(plan.subject.images.__class__, "__len__", lambda self, count=count: count)
        found = plan.shards(seconds)
        size = found[0][1]
        assert [number for number, _ in found] == list(range(len(found)))
        assert (len(found) - 1) * size < count <= len(found) * size
        assert size % plan.batch == 0
        assert len(found) <= 1024
