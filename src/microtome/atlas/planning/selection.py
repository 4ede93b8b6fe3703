"""Selection: the images, classes and units that get pages, and the two classes that each image is explained for.

Made once, from the first look at all images; tasks and pages read it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.atlas.planning.budget import affordable
from microtome.atlas.planning.first_look import Predictions, first_look
from microtome.atlas.planning.plan import Plan
from microtome.atlas.store import Store
from microtome.units import LayerPatches, TopPatches

__all__ = ["Selection", "chosen_classes", "chosen_images", "select", "selection_of", "spread", "targets"]


@dataclass(frozen=True)
class Selection:
    """The content of a run.

    Attributes
    ----------
    seen : Predictions
        Class scores and labels of all images.
    tables : TopPatches
        The strongest patches of every unit.
    images, classes : list of int
        Images and classes that get pages.
    units : dict of str to list of int
        By layer the units that get pages, the most selective first.
    predicted, other : dict of int to int
        For each image with a page its predicted class, and the class to compare it with.
    """

    seen: Predictions
    tables: TopPatches
    images: list[int]
    classes: list[int]
    units: dict[str, list[int]]
    predicted: dict[int, int]
    other: dict[int, int]


def select(plan: Plan, store: Store) -> Selection:
    """Select from the results of the first look."""
    return selection_of(plan, *first_look(plan, store))


def selection_of(plan: Plan, seen: Predictions, tables: TopPatches) -> Selection:
    """Select by class scores and strongest patches."""
    images = chosen_images(seen, plan.summary.images)
    predicted, other = targets(seen, images)
    return Selection(
        seen=seen,
        tables=tables,
        images=images,
        classes=chosen_classes(seen, _class_count(plan)),
        units={layer: _chosen_units(plan, tables[layer]) for layer in plan.layers},
        predicted=dict(zip(images, predicted, strict=True)),
        other=dict(zip(images, other, strict=True)),
    )


def chosen_images(seen: Predictions, count: int) -> list[int]:
    """Images that get pages: up to half of them mistakes, the most confident first; the others spread over the classes.

    Examples
    --------
    >>> from microtome.results import Provenance
    >>> scores, labels = torch.tensor([[3.0, 0], [0, 1], [0, 2], [4, 0]]), torch.tensor([0, 1, 0, 0])
    >>> seen = Predictions(provenance=Provenance(method=""), logits=scores, labels=labels)
    >>> chosen_images(seen, 2)
    [0, 2]
    """
    mistakes = seen.mistakes[: count // 2]
    taken, wrong = set(mistakes), set(seen.mistakes)
    rest = [index for index in spread(seen.labels if bool(seen.known.any()) else seen.predicted) if index not in taken]
    ordered = [index for index in rest if index not in wrong] + [index for index in rest if index in wrong]
    return sorted([*mistakes, *ordered[: min(count, len(seen.logits)) - len(mistakes)]])


def spread(classes: Tensor) -> list[int]:
    """Indices in an order that takes one image of each class in turn.

    Examples
    --------
    >>> spread(torch.tensor([5, 5, 5, 7, 7]))
    [0, 3, 1, 4, 2]
    """
    turns: dict[int, int] = {}
    keyed = []
    for index, label in enumerate(classes.tolist()):
        turns[label] = turns.get(label, -1) + 1
        keyed.append((turns[label], label, index))
    return [index for _, _, index in sorted(keyed)]


def chosen_classes(seen: Predictions, count: int) -> list[int]:
    """Classes that get pages: all if there are few, otherwise the most frequent ones."""
    total = seen.logits.shape[1]
    if total <= count:
        return list(range(total))
    shown = torch.cat([seen.predicted, seen.labels[seen.known]])
    counts = torch.bincount(shown, minlength=total)
    return sorted((-counts).argsort(stable=True)[:count].tolist())


def targets(seen: Predictions, images: Sequence[int]) -> tuple[list[int], list[int]]:
    """For each image the predicted class, and the class to compare it with: the true one, or the runner-up."""
    scores = seen.logits[list(images)]
    order = scores.argsort(dim=1, descending=True, stable=True)
    predicted = order[:, 0]
    truth = seen.labels[list(images)]
    second = order[:, min(1, order.shape[1] - 1)]
    other = torch.where((truth >= 0) & (truth != predicted), truth, second)
    return predicted.tolist(), other.tolist()


def _class_count(plan: Plan) -> int:
    """Number of classes with a page: a third of the time for superstimuli is for those of classes."""
    each = plan.budget.class_steps * plan.step_seconds
    return len(affordable(range(plan.budget.classes), each, plan.budget.superstimulus_seconds / 3, least=1))


def _chosen_units(plan: Plan, table: LayerPatches) -> list[int]:
    """The units of a layer that get pages, the most selective first."""
    order = (-table.selectivity).argsort(stable=True)
    ranked: list[int] = order[torch.argsort(table.dead[order].int(), stable=True)].tolist()
    return ranked if plan.all_units else ranked[: plan.budget.units_per_layer]
