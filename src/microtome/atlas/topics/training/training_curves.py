"""Curves of the training: loss, accuracy, and mean and standard deviation of the gradients."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from microtome.atlas.album import Album
from microtome.atlas.pictures.figure_drawing import drawn_figure
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.training.kept_run import run_of
from microtome.atlas.widgets import Absent, Curve, Curves, DrawnFigure, Part, Section
from microtome.loading import Subject
from microtome.results import Result, provenance
from microtome.training.information import GradientPhases, gradient_phases

__all__ = ["TRAINING_CURVES", "TrainingCurves"]

_NAMES = {
    "loss": "training loss",
    "validation_loss": "validation loss",
    "accuracy": "training accuracy",
    "validation_accuracy": "validation accuracy",
}


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingCurves(Result):
    """Numbers of a training by epoch.

    Attributes
    ----------
    epochs : Tensor
        (E,).
    curves : dict of str to Tensor
        (E,) by name.
    """

    epochs: Tensor
    curves: dict[str, Tensor]


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    if plan.subject.run is None:
        return []
    return [plan.task(job, cost=0.1, sees=False, of_run=True) for job in ("training-curves", "training-gradients")]


def training_curves(subject: Subject) -> TrainingCurves:
    """The curves that the training recorded."""
    run = run_of(subject)
    kept = [name for name in _NAMES if run.records and all(name in record for record in run.records)]
    found = {name: run.curve(name) for name in kept}
    return TrainingCurves(provenance=provenance(subject.net, "training-curves"), epochs=run.epochs, curves=found)


def training_gradients(subject: Subject) -> GradientPhases:
    """Mean and deviation of the gradients by layer."""
    return gradient_phases(run_of(subject))


# -- pages ---------------------------------------------------------------------------------------------------------


def _overview(album: Album) -> list[Section]:
    if album.subject.run is None:
        return []
    found = album.one(TrainingCurves, "training-curves")
    curves = _curves(found) if isinstance(found, TrainingCurves) else found
    phases = album.one(GradientPhases, "training-gradients")
    shown: DrawnFigure | Absent | None = phases if isinstance(phases, Absent) else None
    if isinstance(phases, GradientPhases):
        caption = (
            "The gradients of each layer over the steps of an epoch: solid their mean, dashed their standard "
            "deviation, both divided by the norm of the weights. Where the mean falls below, steps no longer agree."
        )
        shown = drawn_figure(phases, "Mean and deviation of the gradients by epoch", caption, album.made(phases))
    parts = (
        Part(curves, "the curves of the training", "They show how loss and accuracy changed."),
        Part(shown, "the gradients of the training", "They show when steps no longer agree."),
    )
    return [Section("How the training went", parts)]


def _curves(found: TrainingCurves) -> Curves | Absent:
    if not found.curves or len(found.epochs) < 2:
        return Absent("The training recorded fewer than two epochs, so there are no curves.")
    epochs = tuple(map(float, found.epochs.tolist()))
    drawn = tuple(
        Curve(f"epoch: {_NAMES[name]}", "", epochs, tuple(values.tolist())) for name, values in found.curves.items()
    )
    return Curves(drawn, "Values that the training recorded at the end of each epoch.")


TRAINING_CURVES = Topic(
    "training curves",
    tasks=_tasks,
    jobs={"training-curves": training_curves, "training-gradients": training_gradients},
    sections={"overview": _overview},
)
