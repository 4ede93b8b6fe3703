"""Plans fit the budget."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from torch import nn

from atlas import small
from microtome import Network
from microtome.atlas import BUDGETS
from microtome.atlas.album import Album
from microtome.atlas.planning.expected_size import expected_megabytes
from microtome.atlas.planning.network_summary import network_summary
from microtome.atlas.planning.plan import Plan
from microtome.atlas.task import Task
from microtome.atlas.topics.images import kept_and_lost
from microtome.atlas.topics.images.attribution_maps import _options, explain_tasks, passes
from microtome.atlas.topics.images.kept_and_lost import kept_layers, kept_tasks
from microtome.atlas.topics.units import unit_superstimuli, what_and_place
from microtome.atlas.topics.units.strongest_patches import reconstruction_tasks
from microtome.data import Images
from microtome.loading import RunConfig, Subject


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    small.write(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.chdir(tmp_path)
    sys.modules.pop("nets", None)
    torch.manual_seed(3)
    subject = RunConfig("nets:build", input_shape=(1, 12, 10), data=str(tmp_path / "images")).open()
    return Plan(network_summary(subject, BUDGETS["quick"]), subject)


def reconstructed(plan: Plan, seconds: float) -> list[Task]:
    """The tasks for layer ``two`` (six units), when so many seconds are there for it."""
    return reconstruction_tasks(with_budget(plan, reconstruction_seconds=seconds * len(plan.layers)), "two",
                                [4, 2, 0, 5, 1, 3])  # fmt: skip


def with_budget(plan: Plan, **changed: float) -> Plan:
    size = dataclasses.replace(plan.budget, **changed)
    return Plan(dataclasses.replace(plan.summary, budget=size), plan.subject)


def test_with_time_enough_every_unit_has_all_its_patches_reconstructed(plan: Plan) -> None:
    (task,) = reconstructed(plan, 1e6)
    assert task.parameters["units"] == [0, 1, 2, 3, 4, 5]
    assert task.parameters["k"] == plan.budget.patches


def test_with_less_time_first_patches_are_left_out_then_the_less_selective_units(plan: Plan) -> None:
    (whole,) = reconstructed(plan, 1e6)
    each = whole.cost / 6 / whole.parameters["k"]
    (fewer,) = reconstructed(plan, 12.5 * each)
    assert (fewer.parameters["units"], fewer.parameters["k"]) == ([0, 1, 2, 3, 4, 5], 2)
    (least,) = reconstructed(plan, 3.5 * each)
    assert (least.parameters["units"], least.parameters["k"]) == ([0, 2, 4], 1)
    assert least.cost <= 3.5 * each


def test_with_less_time_the_kept_parts_of_images_are_shown_at_the_first_layer(plan: Plan) -> None:
    def planned(seconds: float) -> list[Task]:
        return kept_tasks(with_budget(plan, space_seconds=seconds), range(6))

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


def superstimuli(plan: Plan, seconds: float) -> dict[tuple[str, int], int]:
    """By layer and sign, how many units get superstimuli in so many seconds."""
    limited = with_budget(plan, superstimulus_seconds=seconds)
    found: dict[tuple[str, int], int] = {}
    for layer in limited.layers:
        for task in unit_superstimuli._unit_tasks(limited, layer, [*range(limited.unit_count(layer))]):
            key = (layer, task.parameters["sign"])
            found[key] = max(found.get(key, 0), len(task.parameters["channels"]))
    return found


def test_time_that_first_layers_do_not_need_goes_to_deep_ones_and_images_that_lower_units_come_last(plan: Plan) -> None:
    whole = superstimuli(plan, 1e6)
    assert all(whole[layer, sign] == plan.unit_count(layer) for layer in plan.layers for sign in (1, -1))
    raised, _ = unit_superstimuli._times(with_budget(plan, superstimulus_seconds=1e6))
    costs = {layer: raised[layer].each * plan.unit_count(layer) for layer in plan.layers}
    deep, cheap = max(costs, key=lambda name: costs[name]), min(costs, key=lambda name: costs[name])
    assert costs[deep] > 1.2 * costs[cheap]
    exact = superstimuli(plan, 1.0001 * sum(costs.values()))  # equal shares would not reach for the deep layer
    assert all(exact[layer, 1] == plan.unit_count(layer) for layer in plan.layers)
    assert sum(count for (_, sign), count in exact.items() if sign < 0) < sum(
        count for (_, sign), count in exact.items() if sign > 0
    )


def test_with_less_time_fewer_images_then_fewer_steps_tell_what_layers_reject(plan: Plan) -> None:
    names = ["one", "two"]
    each = {steps: kept_and_lost._rejected_seconds(plan, names, steps) for steps in kept_and_lost._STEPS_ALONE}
    assert each[300] > each[80] > each[40]

    def planned(seconds: float) -> list[tuple[int, int]]:
        tasks = kept_and_lost._rejected_tasks(with_budget(plan, space_seconds=seconds), names)
        assert all(task.cost <= seconds for task in tasks)
        return [(task.parameters["steps"], len(task.parameters["images"])) for task in tasks]

    ((steps, images),) = planned(1e6)
    assert (steps, images) == (300, min(32, len(plan.subject.images)))
    assert planned(2.5 * each[300]) == [(300, 2)]
    assert planned(1.01 * each[80]) == [(80, 1)]
    assert planned(0.99 * each[40]) == []


def test_integrated_gradients_are_refined_twice_where_the_time_is_there(plan: Plan) -> None:
    for seconds, points in ((1e6, 450), (1e-9, 150)):
        limited = with_budget(plan, attribution_seconds=seconds)
        assert [one["max_steps"] for one in _options(limited, "integrated-gradients", 3)] == [points]


@pytest.mark.parametrize(("side", "pages"), [(64, 12), (65, 8)])
def test_fewer_photos_than_small_images_have_pages_and_a_number_of_ones_own_holds(side: int, pages: int) -> None:
    net = Network(
        nn.Sequential(nn.Conv2d(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)), (1, side, side)
    )
    subject = Subject(net, Images.from_float(torch.rand(20, 1, side, side)))
    assert network_summary(subject, BUDGETS["quick"]).images == pages
    assert network_summary(subject, BUDGETS["quick"], images=15).images == 15
    assert network_summary(subject, dataclasses.replace(BUDGETS["quick"], images=3)).images == 3


def test_placed_stimuli_get_fewer_positions_before_layers_are_left_out(plan: Plan) -> None:
    def planned(seconds: float) -> list[tuple[int, int]]:
        tasks = what_and_place._tasks(with_budget(plan, topic_seconds=seconds), None)  # type: ignore[arg-type]  # not read
        return [(task.parameters["grid"], len(task.parameters["layers"])) for task in tasks]

    names = list(plan.layers)
    costs = {grid: what_and_place._cost(plan, names, grid) for grid in (5, 4, 3)}
    assert planned(1.01 * costs[5]) == [(5, len(names))]
    assert planned(0.99 * costs[5]) == [(4, len(names))]
    assert planned(1.01 * costs[3]) == [(3, len(names))]
    assert planned(0.99 * costs[3]) == [(3, len(names) - 1)]
    assert planned(1e-9) == []


def test_every_unit_with_a_page_has_a_superstimulus_and_only_small_images_have_restarts(
    plan: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    def planned() -> dict[str, tuple[list[int], int]]:
        found = {}
        for layer in plan.layers:
            (task,) = unit_superstimuli.superstimulus_tasks(plan, layer, list(range(plan.unit_count(layer))))
            found[layer] = task.parameters["channels"], task.parameters["restarts"]
        return found

    every = {layer: list(range(plan.unit_count(layer))) for layer in plan.layers}
    assert planned() == {layer: (units, 1) for layer, units in every.items()}
    monkeypatch.setattr(Plan, "small", False)
    unit_superstimuli._times.cache_clear()
    assert planned() == {layer: (units, 0) for layer, units in every.items()}


def test_a_slow_method_explains_a_second_class_where_the_time_suffices_for_both(plan: Plan) -> None:
    chosen = SimpleNamespace(images=[0, 1], predicted={0: 0, 1: 1}, other={0: 2, 1: 2})
    each = passes(plan, "smooth-grad", {}) * plan.seconds

    def classes(seconds: float) -> int:
        tasks = explain_tasks(with_budget(plan, attribution_seconds=seconds), chosen)
        return len({tuple(task.parameters["target"]) for task in tasks if task.parameters["method"] == "smooth-grad"})

    assert classes(4.01 * each) == 2  # two images, two classes
    assert classes(3.99 * each) == 1


def test_the_expected_size_is_that_of_the_folder_within_a_factor_of_two(album: Album) -> None:
    folder = Path(album.store.address)
    held = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6
    expected = expected_megabytes(album.plan, album.chosen)
    assert 0.5 < expected / held < 2, (expected, held)
