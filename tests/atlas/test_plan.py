"""Does what is planned fit what the budget lasts for?"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
import torch

from atlas import small
from microtome.atlas import BUDGETS
from microtome.atlas.outline import outline
from microtome.atlas.plan import Plan
from microtome.atlas.space_tasks import kept_layers, space_tasks
from microtome.atlas.task import Task
from microtome.loading import RunConfig


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    small.write(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("nets", None)
    torch.manual_seed(3)
    subject = RunConfig("nets:build", input_shape=(1, 12, 10), data=str(tmp_path / "images")).open()
    return Plan(outline(subject, BUDGETS["quick"], None, None), subject)


def reconstructed(plan: Plan, seconds: float) -> list[Task]:
    """The tasks for layer ``two`` (six units), when so many seconds are there for it."""
    layers = len(plan.outline.layers)
    size = dataclasses.replace(plan.outline.budget, reconstructions=seconds * layers)
    shorter = Plan(dataclasses.replace(plan.outline, budget=size), plan.subject)
    return shorter.reconstructions("two", [4, 2, 0, 5, 1, 3])


def test_with_time_enough_every_unit_has_all_its_patches_reconstructed(plan: Plan) -> None:
    (task,) = reconstructed(plan, 1e6)
    assert task.parameters["units"] == [0, 1, 2, 3, 4, 5]
    assert task.parameters["ranks"] == plan.outline.budget.patches


def test_with_less_time_first_patches_are_left_out_then_the_less_selective_units(plan: Plan) -> None:
    (whole,) = reconstructed(plan, 1e6)
    each = whole.cost / 6 / whole.parameters["ranks"]
    (fewer,) = reconstructed(plan, 12.5 * each)
    assert (fewer.parameters["units"], fewer.parameters["ranks"]) == ([0, 1, 2, 3, 4, 5], 2)
    (least,) = reconstructed(plan, 3.5 * each)
    assert (least.parameters["units"], least.parameters["ranks"]) == ([0, 2, 4], 1)
    assert least.cost <= 3.5 * each


def test_with_less_time_the_kept_parts_of_images_are_shown_at_the_first_layer(plan: Plan) -> None:
    def planned(seconds: float) -> list[Task]:
        size = dataclasses.replace(plan.outline.budget, spaces=seconds)
        shorter = Plan(dataclasses.replace(plan.outline, budget=size), plan.subject)
        return [task for task in space_tasks(shorter, range(6)) if task.job == "kept"]

    every = kept_layers(plan)
    assert len(every) > 1
    whole = planned(1e6)
    assert [task.parameters["images"] for task in whole] == [[0, 1, 2, 3], [4, 5]]
    assert all(task.parameters["layers"] == every for task in whole)
    each = whole[0].cost / 4
    (fewer,) = planned(4.5 * each)
    assert (fewer.parameters["images"], fewer.parameters["layers"]) == ([0, 1, 2, 3], every)
    first = planned(3.5 * each)
    assert all(task.parameters["layers"] == every[:1] for task in first)
    assert first[0].parameters["images"] == [0, 1, 2, 3]
    assert sum(task.cost for task in first) <= 3.5 * each
    assert planned(0.0) == []
