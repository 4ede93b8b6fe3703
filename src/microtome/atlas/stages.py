"""In which order is an atlas computed? A first look at all images, then what that has found worth asking."""

from __future__ import annotations

from collections.abc import Iterator

from microtome.atlas.choice import chosen_images
from microtome.atlas.findings import Predictions
from microtome.atlas.plan import Plan
from microtome.atlas.space_tasks import space_tasks
from microtome.atlas.store import Store
from microtome.atlas.task import Task
from microtome.units import TopPatches

__all__ = ["stages", "surveyed"]


def stages(plan: Plan, store: Store) -> Iterator[tuple[str, list[Task]]]:
    """The stages of a run; a later one is known when the one before is done."""
    yield "looking at the images", plan.survey()
    seen, tables = surveyed(plan, store)
    images = chosen_images(seen, plan.outline.images)
    yield "layers, units, images", [*plan.details(seen, tables, images), *space_tasks(plan, images)]


def surveyed(plan: Plan, store: Store) -> tuple[Predictions, TopPatches]:
    """What the first stage found."""
    seen, tables = store.load(plan.predictions().key), store.load(plan.patches().key)
    if not isinstance(seen, Predictions) or not isinstance(tables, TopPatches):
        raise TypeError("results of the first stage are of another kind.")  # cannot be: the key names the job
    return seen, tables.with_images(plan.subject.images)
