"""Ablations: the accuracy of each class with one unit set to zero."""

from __future__ import annotations

from collections.abc import Sequence

from microtome import units as units_of
from microtome.atlas.album import Album
from microtome.atlas.planning.budget import affordable
from microtome.atlas.planning.plan import Plan, blocks
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.widgets import Absent, Amount, Amounts, Part, Section, to_class
from microtome.loading import Subject
from microtome.units import Ablation

__all__ = ["ABLATIONS"]

_BLOCK = 8  # units in one task
_CLASSES = 10  # classes that are shown


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    return [task for layer in plan.layers for task in _layer_tasks(plan, layer, chosen.units[layer])]


def _layer_tasks(plan: Plan, layer: str, shown: list[int]) -> list[Task]:
    total = sum(plan.unit_count(name) for name in plan.layers)
    images = plan.sample(plan.budget.ablation_seconds / (total * plan.seconds))
    after = max(plan.seconds - plan.seconds_up_to(layer), 0.3 * plan.seconds)  # the pass starts again at the layer
    each = len(images) * after
    units = affordable(shown, each, plan.budget.ablation_seconds / len(plan.layers))
    batch = 64 if plan.small else 8  # all values of a pass are kept, to start again at the layer
    return [
        plan.task("ablate", cost=len(block) * each, layer=layer, units=block, images=images, batch=batch)
        for block in blocks(sorted(units), _BLOCK)
    ]


def ablate(subject: Subject, *, layer: str, units: Sequence[int], images: Sequence[int], batch: int) -> Ablation:
    """The accuracy without each unit, on some images."""
    return units_of.ablate(subject.net, subject.subset(images), layer, units=units, batch=batch)


def _unit(album: Album, layer: str, unit: int) -> list[Section]:
    found = album.with_item(Ablation, "ablate", "units", unit, layer=layer)
    shown = _loss(album, *found) if isinstance(found, tuple) else found
    use = "It shows the accuracy of each class with the unit set to zero."
    return [Section("What is lost without it", (Part(shown, "the effect of ablating it", use),), half=True)]


def _loss(album: Album, found: Ablation, row: int) -> Amounts | Absent:
    drop = 100 * found.class_drop[row].double()
    order = (-drop.abs()).argsort(stable=True)[:_CLASSES].sort().values.tolist()
    rows = tuple(
        Amount(album.class_name(found.labels[i]), float(-drop[i]) or 0.0, to_class(found.labels[i])) for i in order
    )
    total = round(-100 * float(found.drop[row]), 2) or 0.0  # no "-0.00"
    against = "accuracy" if found.against == "labels" else "agreement with its own answers"
    caption = (
        f"Change of each class's {against} when the unit is set to zero, on {found.images} images; "
        f"over all classes {total:+.2f} points."
    )
    return Amounts(rows, "percentage points", caption, album.made(found))


ABLATIONS = Topic("ablations", tasks=_tasks, jobs={"ablate": ablate}, sections={"unit": _unit})
