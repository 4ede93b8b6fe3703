"""Bits about the class that a linear classifier extracts from each layer, with the share of the image that is kept."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from microtome.atlas.album import Album
from microtome.atlas.pictures.figure_drawing import drawn_figure
from microtome.atlas.planning.budget import affordable
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.training.kept_run import labelled
from microtome.atlas.widgets import Absent, DrawnFigure, Part, Section
from microtome.loading import Subject
from microtome.training.information import UsableInformation, usable_information

__all__ = ["READABLE_CLASS"]

_IMAGES = 500
_FOLDS = 5
_FLAT = 30_000  # layers with more numbers per image are averaged over positions
_RATE = 2e9  # multiply-adds per second of the classifiers' linear algebra


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    """As many layers as the budget allows, the last ones first."""
    labels = plan.subject.labels
    if plan.subject.run is None or labels is None or not labelled(plan):
        return []
    count = min(_IMAGES, labelled(plan))
    if int(torch.bincount(labels[labels >= 0]).min()) * count < 2 * _FOLDS * labelled(plan):
        return []  # a class would have too few images
    widest = max(math.prod(plan.net.layer(layer).shape) for layer in plan.layers)
    reduce = "flat" if widest <= _FLAT else "mean"
    numbers = widest if reduce == "flat" else max(plan.net.layer(layer).units for layer in plan.layers)
    cost = count * plan.seconds + _FOLDS * (2 * count * count * numbers + 30 * count**2 * min(count, numbers)) / _RATE
    layers = affordable([*reversed(plan.layers)], cost, plan.budget.topic_seconds, least=1)[::-1]
    options: dict[str, Any] = {"layers": layers, "count": count, "reduce": reduce, "seed": 0}
    return [plan.task("readable-class", cost=cost * (2 + len(layers)), **options)]


def readable_class(
    subject: Subject, *, layers: Sequence[str], count: int, reduce: str, seed: int
) -> UsableInformation:  # fmt: skip
    """Usable information of the layers."""
    return usable_information(
        subject.net, subject.images, layers, reduce=reduce, folds=_FOLDS, images=count, seed=seed
    )  # fmt: skip


def _overview(album: Album) -> list[Section]:
    if album.subject.run is None or not labelled(album.plan):
        return []
    use = "It shows in which layer the class becomes linearly decodable."
    return [
        Section(
            "Where the class becomes readable",
            (Part(_shown(album), "the information of each layer about the class", use),),
        )
    ]


def _shown(album: Album) -> DrawnFigure | Absent | None:
    found = album.one(UsableInformation, "readable-class")
    if not isinstance(found, UsableInformation):
        return found
    read = "all positions of each layer" if found.provenance.parameters.get("reduce") == "flat" else "mean responses"
    caption = (
        f"Bits about the class that a linear classifier extracts from {read} on held-out images; from the "
        "pixels (left) to the class scores (right). A later layer may have more: the network makes information "
        "decodable that is hidden in the pixels."
    )
    command = album.commands.line("usable-information", data=album.commands.data, to="readable.png")
    return drawn_figure(found, "Bits about the class by layer", caption, album.made(found, command))


READABLE_CLASS = Topic(
    "readable class",
    tasks=_tasks,
    jobs={"readable-class": readable_class},
    sections={"overview": _overview},
)
