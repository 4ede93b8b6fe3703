"""Ablations: the change of the class scores with one unit set to zero."""

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

_BLOCK = 8  # number of units in one task
_CLASSES = 10  # classes that are shown


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    return [task for layer in plan.layers for task in _layer_tasks(plan, layer, chosen.units[layer])]


def _layer_tasks(plan: Plan, layer: str, shown: list[int]) -> list[Task]:
    total = sum(plan.unit_count(name) for name in plan.layers)
    images = plan.sample(plan.budget.ablation_seconds / (total * plan.seconds))
    after = max(plan.seconds - plan.seconds_up_to(layer), 0.3 * plan.seconds)  # the pass starts again at the layer
    each = len(images) * after
    units = affordable(shown, each, plan.budget.ablation_seconds / len(plan.layers))
    batch = plan.batch if plan.small else min(plan.batch, 8)  # values of a pass stay in memory for the restart
    before = len(images) * plan.seconds
    return [
        plan.task("ablate", cost=before + len(block) * each, layer=layer, units=block, images=images, batch=batch)
        for block in blocks(sorted(units), _BLOCK)
    ]


def ablate(subject: Subject, *, layer: str, units: Sequence[int], images: Sequence[int], batch: int) -> Ablation:
    """The accuracy without each unit, on some images."""
    return units_of.ablate(subject.net, subject.subset(images), layer, units=units, batch=batch)


def _unit(album: Album, layer: str, unit: int) -> list[Section]:
    found = album.with_item(Ablation, "ablate", "units", unit, layer=layer)
    shown = _change(album, *found) if isinstance(found, tuple) else found
    use = "It shows how the class scores change with the unit set to zero."
    return [Section("What changes without it", (Part(shown, "the effect of ablating it", use),), half=True)]


def _change(album: Album, found: Ablation, row: int) -> Amounts | Absent:
    """The class scores that change most when the unit is set to zero."""
    change = found.logit_change[row].double()
    if not bool(change.any()):
        return Absent(f"No class score changes when the unit is set to zero, on {found.images} images.")
    order = (-change.abs()).argsort(stable=True)[:_CLASSES].tolist()
    order.sort(key=lambda index: float(change[index]))
    rows = tuple(Amount(album.class_name(i), float(change[i]), to_class(i)) for i in order)
    caption = (
        f"Change of the class scores when the unit is set to zero, mean over {found.images} images; the scores that "
        f"change most. {_predictions(found, row)}"
    )
    return Amounts(rows, "units of the score", caption, album.made(found), signed=True)


def _predictions(found: Ablation, row: int) -> str:
    """The change of the predicted classes, in words."""
    changed = float(found.changed[row])
    if changed != changed:
        return ""
    total = round(-100 * float(found.drop[row]), 2) or 0.0  # no "-0.00"
    against = "accuracy" if found.against == "labels" else "agreement with its own answers"
    if not changed:
        return "No predicted class changes."
    many = round(changed * found.images)
    classes = "1 predicted class changes" if many == 1 else f"{many} predicted classes change"
    return f"{classes}, and the {against} by {total:+.2f} points."


ABLATIONS = Topic("ablations", tasks=_tasks, jobs={"ablate": ablate}, sections={"unit": _unit})
