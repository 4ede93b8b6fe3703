"""Criteria of importance: variation, structure and selectivity of each unit, one table for each layer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import torch

from microtome import units as units_of
from microtome.atlas.album import Album
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.units.unit_superstimuli import superstimulus_tasks
from microtome.atlas.widgets import Part, Section, UnitTable, UnitTableRow, to_unit
from microtome.loading import Subject
from microtome.results import Result
from microtome.synthesis import Superstimuli
from microtome.units import COLUMNS, Criteria

__all__ = ["UNIT_CRITERIA"]

_STIMULI = {False: 600, True: 1450}  # stimuli for small and for large inputs
_TITLES = {
    "variation": "variation",
    "kernel": "structure of the kernel",
    "superstimulus": "structure of the superstimulus",
    "class_selectivity": "selectivity to classes",
    "stimulus_selectivity": "selectivity to stimuli",
}


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    """One pass over a sample of the images, and one over synthetic stimuli if the budget has the time."""
    images = plan.sample(plan.budget.topic_seconds / plan.seconds)
    stimuli = _STIMULI[not plan.small] * plan.seconds
    columns = [name for name in COLUMNS if name != "stimulus_selectivity" or stimuli <= plan.budget.topic_seconds]
    made = [task for layer in plan.layers for task in superstimulus_tasks(plan, layer, chosen.units[layer])]
    cost = len(images) * plan.seconds + (stimuli if "stimulus_selectivity" in columns else 0.0)
    return [
        plan.task(
            "criteria", cost=cost, needs=tuple(task.key for task in made),
            layers=list(plan.layers), columns=columns, images=images, batch=plan.batch,
        )
    ]  # fmt: skip


def criteria(
    subject: Subject,
    *made: Result,
    layers: Sequence[str],
    columns: Sequence[str],
    images: Sequence[int],
    batch: int,
) -> Criteria:
    """The criteria of all units of some layers, on some images."""
    by_layer = {
        layer: [one for one in made if isinstance(one, Superstimuli) and one.layer == layer] for layer in layers
    }
    joined = {layer: _joined(parts) for layer, parts in by_layer.items() if parts}
    return units_of.criteria(
        subject.net, subject.subset(images), layers, columns=columns, superstimuli=joined, batch=batch
    )


def _joined(parts: Sequence[Superstimuli]) -> Superstimuli:
    """Superstimuli of several blocks of units; only the fields that the criteria read."""
    return dataclasses.replace(
        parts[0],
        images=torch.cat([part.images for part in parts]),
        channel=torch.cat([part.channel for part in parts]),
    )


def _layer(album: Album, layer: str) -> list[Section]:
    found = album.one(Criteria, "criteria")
    shown = _table(album, found, layer) if isinstance(found, Criteria) and layer in found.value else None
    use = "They show which units vary, have structure, and are selective."
    return [Section("Which units matter", (Part(shown, "the criteria of importance", use),))]


def _table(album: Album, found: Criteria, layer: str) -> UnitTable:
    value, error, p_value = found.value[layer], found.error[layer], found.p_value[layer]
    known = [place for place in range(len(found.columns)) if not bool(value[:, place].isnan().all())]
    rows = []
    for unit in album.paged(layer):
        numbers = tuple(_number(value[unit, place]) for place in known)
        errors = tuple(_number(error[unit, place]) for place in known)
        chances = tuple(_number(p_value[unit, place]) for place in known)
        rows.append(UnitTableRow(unit, to_unit(layer, unit), numbers, errors, chances))
    rows.sort(key=lambda row: -(row.values[0] or 0.0) if row.values else 0.0)
    first = _TITLES.get(found.columns[known[0]], found.columns[known[0]]) if known else ""
    caption = (
        f"Criteria of importance on {found.images:,} images, each with its standard error, and with its p-value where "
        "chance has a distribution (permuted weights, permuted labels). "
        f"The units with the largest {first} come first. "
        "The bars of a column share a scale, from its smallest number or 0 to its largest."
    )
    columns = tuple(_TITLES.get(found.columns[place], found.columns[place]) for place in known)
    command = album.commands.line("criteria", data=album.commands.data, layers=layer, to="criteria.png")
    return UnitTable(columns, tuple(rows), caption, album.made(found, command))


def _number(value: torch.Tensor) -> float | None:
    number = float(value)
    return None if math.isnan(number) else number


UNIT_CRITERIA = Topic("criteria", tasks=_tasks, jobs={"criteria": criteria}, sections={"layer": _layer})
