"""The training of an atlas's network: its record is read and checked, and checkpoints are chosen."""

from __future__ import annotations

import copy

from microtome.atlas.planning.plan import Plan, even
from microtome.errors import InputError
from microtome.loading import Subject
from microtome.training import Run

__all__ = ["SLOPES", "check_run", "chosen_epochs", "labelled", "run_of"]

SLOPES = 4.0  # a product of the Hessian with a vector, in forward passes; 3.6 were measured


def run_of(subject: Subject) -> Run:
    """The training of a subject that has one."""
    if subject.run is None:
        raise InputError("no training is given; give its folder with --run.")
    return Run.read(subject.run)


def check_run(subject: Subject) -> None:
    """Check before any computation that a given training belongs to the network.

    Raises
    ------
    StoreError
        The folder holds no training.
    ModelError
        Its weights do not fit the network.
    """
    if subject.run is None:
        return
    run = run_of(subject)
    if run.checkpoints:
        run.load(copy.deepcopy(subject.net.model))


def chosen_epochs(plan: Plan, count: int) -> list[int]:
    """At most ``count`` checkpoints at even distances, including the last one."""
    kept = run_of(plan.subject).checkpoints
    count = min(len(kept), count)
    return [kept[len(kept) - 1 - place] for place in even(len(kept), count)][::-1]


def labelled(plan: Plan) -> int:
    """The number of labelled images."""
    labels = plan.subject.labels
    return 0 if labels is None or plan.net.output == "value" else int((labels >= 0).sum())
