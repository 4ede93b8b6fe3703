"""The information plane: each layer's information about image and class at the stored epochs of a training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from microtome.atlas.album import Album
from microtome.atlas.pictures.figure_drawing import drawn_figure
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.training.kept_run import chosen_epochs, labelled, run_of
from microtome.atlas.widgets import Absent, DrawnFigure, Part, Section
from microtome.loading import Subject
from microtome.training.information import InformationPlane, plane

__all__ = ["INFORMATION_IN_TRAINING"]

_IMAGES = (1000, 500, 250)
_CHECKPOINTS, _FEW = 12, 3  # maximum and minimum number of checkpoints shown
_LAYERS = 8  # the last layers; more paths cannot be distinguished
_WIDEST = 30_000  # numbers of a layer for one image: above, no estimator is admitted and memory is short
_TRIALS = 10  # of each planting, of which there are up to eight
_RATE = 4e9  # multiply-adds a second of the distances between states


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    """A plane by bins and one by kernels, for the last layers; each has half of the time."""
    total, labels = labelled(plan), plan.subject.labels
    if plan.subject.run is None or labels is None or not total or len(labels[labels >= 0].unique()) < 2:
        return []
    widths = {layer: math.prod(plan.net.layer(layer).shape) for layer in plan.layers}
    layers = [layer for layer in plan.layers if widths[layer] <= _WIDEST][-_LAYERS:]
    epochs = chosen_epochs(plan, _CHECKPOINTS)
    least = min(len(epochs), _FEW)
    if not layers or least < 2:
        return []
    for count in sorted({min(n, total) for n in _IMAGES}, reverse=True):
        reading = 2 * count * plan.seconds  # once for the ranges of the bins
        distances = 2 * count**2 * sum(widths[layer] for layer in layers) / _RATE
        admission, each = 8 * _TRIALS * distances, reading + distances
        affordable = int(min((plan.budget.topic_seconds / 2 - admission) / each, len(epochs)))
        if affordable < least:
            continue
        drawn = torch.randperm(total, generator=torch.Generator().manual_seed(0), device="cpu")[:count].sort().values
        places = (labels >= 0).nonzero()[:, 0].cpu()[drawn]
        if len(labels.cpu()[places].unique()) < 2:
            return []
        kept = chosen_epochs(plan, affordable)
        options: dict[str, Any] = {"layers": layers, "epochs": kept, "images": places.tolist()}
        cost = admission + each * affordable
        jobs = "information-bins", "information-kernels"
        return [plan.task(job, cost=cost, of_run=True, **options) for job in jobs]
    return []


def information_bins(
    subject: Subject, *, layers: Sequence[str], epochs: Sequence[int], images: Sequence[int]
) -> InformationPlane:  # fmt: skip
    """The plane by counting binned states."""
    return _plane(subject, "binning", layers, epochs, images)


def information_kernels(
    subject: Subject, *, layers: Sequence[str], epochs: Sequence[int], images: Sequence[int]
) -> InformationPlane:  # fmt: skip
    """The plane by the bounds of Gaussian kernels."""
    return _plane(subject, "kde", layers, epochs, images)


def _plane(
    subject: Subject, estimator: str, layers: Sequence[str], epochs: Sequence[int], images: Sequence[int]
) -> InformationPlane:
    return plane(
        run_of(subject), subject.net, subject.subset(images), layers=layers, epochs=epochs, estimator=estimator,
        trials=_TRIALS,
    )  # fmt: skip


# -- pages ---------------------------------------------------------------------------------------------------------


def _overview(album: Album) -> list[Section]:
    if album.subject.run is None or not labelled(album.plan):
        return []
    use = "It shows the layers' information about image and class, where the estimator is reliable."
    parts = (
        Part(_shown(album, "information-bins", "binning"), "the information plane by bins", use),
        Part(_shown(album, "information-kernels", "kde"), "the information plane by kernels", use),
    )
    return [Section("What the layers know of image and class", parts)]


def _shown(album: Album, job: str, estimator: str) -> DrawnFigure | Absent | None:
    found = album.one(InformationPlane, job)
    if not isinstance(found, InformationPlane):
        return found
    how = {
        "binning": "Each unit's range is cut into bins, and the vectors of bins are counted.",
        "kde": "Gaussian noise is added to each layer's values; the value of I(X;T) is an upper bound.",
    }[estimator]
    caption = (
        f"{how} Each mark is a layer at a stored epoch: further right it distinguishes more of the {found.samples:,} "
        f"images, further up it holds more about their class. {_verdict(found)}"
    )
    options = {"run": album.commands.run, "data": album.commands.data, "layers": ",".join(found.layers)}
    command = album.commands.without("weights").line("information", to="plane.png", estimator=estimator, **options)
    return drawn_figure(found, "Paths of the layers in the information plane", caption, album.made(found, command))


def _verdict(found: InformationPlane) -> str:
    """The number of reliable layers, in words."""
    good, all_ = int(found.admitted.sum()), len(found.layers)
    if good == all_:
        return "The estimator recovers planted information for every layer."
    if not good:
        return (
            "All marks are hollow: the estimator recovers planted information of this size for no layer, so their "
            "positions say nothing about the network. The reasons are below the figure."
        )
    return (
        f"The estimator recovers planted information for {good} of {all_} layers; the others are hollow, and "
        "their positions say nothing about the network. The reasons are below the figure."
    )


INFORMATION_IN_TRAINING = Topic(
    "information in training",
    tasks=_tasks,
    jobs={"information-bins": information_bins, "information-kernels": information_kernels},
    sections={"overview": _overview},
)
