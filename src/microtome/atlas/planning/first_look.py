"""The first look at all images: class scores, and the strongest patches of every unit, shard by shard.

Everything else is selected from these two results.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.atlas.planning.plan import Plan
from microtome.atlas.store import Store
from microtome.atlas.task import Job, Task
from microtome.errors import DataWarning, InputError
from microtome.loading import Subject
from microtome.results import Result, provenance
from microtome.trace.heads.head import read_out
from microtome.units import LayerPatches, TopPatches
from microtome.units.streaming import streaming_pass
from microtome.units.streaming.patch_survey import PatchSummary, PatchSurvey

__all__ = ["JOBS", "Predictions", "ShardLook", "first_look", "first_tasks", "patches_task"]

_MERGE = 0.05  # seconds to merge one shard


@dataclass(frozen=True, eq=False, kw_only=True)
class Predictions(Result):
    """Class scores (N, K) of all images, and their labels (N,), -1 if unknown.

    ``squash`` turns scores into probabilities (see ``Head``); ``quantity`` is the name of the result.
    """

    logits: Tensor
    labels: Tensor
    squash: str = "softmax"
    quantity: str = "probability"

    @functools.cached_property
    def readout(self) -> Tensor:
        """Probabilities (N, K) of the classes, or the values of a network whose output is a value."""
        return read_out(self.logits, self.squash)

    @functools.cached_property
    def predicted(self) -> Tensor:
        """The predicted classes (N,)."""
        return self.logits.argmax(1)

    @functools.cached_property
    def known(self) -> Tensor:
        """Which images (N,) have a label."""
        return self.labels >= 0

    @functools.cached_property
    def wrong(self) -> Tensor:
        """Mask (N,) of images whose label differs from the predicted class."""
        return self.known & (self.predicted != self.labels)

    @functools.cached_property
    def mistakes(self) -> list[int]:
        """The images of ``wrong``, the most confident first."""
        wrong, confidence = self.wrong.nonzero()[:, 0], self.readout.amax(1)
        return [int(index) for index in wrong[(-confidence[wrong]).argsort(stable=True)]]


@dataclass(frozen=True, eq=False, kw_only=True)
class ShardLook(Result):
    """The first look at one shard of the images: their class scores (n, K), and the sums of ``PatchSurvey``."""

    number: int
    logits: Tensor
    patches: PatchSummary


def first_tasks(plan: Plan) -> list[Task]:
    """The tasks that read all images once: one for each shard, and two that merge their results."""
    return [*_shard_tasks(plan), _predictions_task(plan), patches_task(plan)]


@functools.lru_cache(maxsize=1)  # called for every block of units
def _shard_tasks(plan: Plan) -> list[Task]:
    each = 1.5 * plan.seconds
    return [
        plan.task(
            "look", interim=True, cost=each * min(size, len(plan.subject.images) - number * size),
            shard=[number, size], layers=list(plan.summary.surveyed), k=plan.budget.patches, batch=plan.batch,
        )
        for number, size in plan.shards(each)
    ]  # fmt: skip


def first_look(plan: Plan, store: Store) -> tuple[Predictions, TopPatches]:
    """The results of these tasks."""
    seen, tables = store.load(_predictions_task(plan).key), store.load(patches_task(plan).key)
    if not isinstance(seen, Predictions) or not isinstance(tables, TopPatches):
        raise TypeError("results of the first stage are of another kind.")  # cannot be: the key names the job
    return seen, tables.with_images(plan.subject.images)


def _predictions_task(plan: Plan) -> Task:
    shards = _shard_tasks(plan)
    return plan.task("predictions", needs=tuple(task.key for task in shards), gathers=True, cost=_MERGE * len(shards))


@functools.lru_cache(maxsize=1)
def patches_task(plan: Plan) -> Task:
    """The task that makes the table of strongest patches of all units."""
    shards = _shard_tasks(plan)
    return plan.task(
        "patches", needs=tuple(task.key for task in shards), gathers=True, cost=_MERGE * len(shards),
        layers=list(plan.summary.surveyed), shown=list(plan.layers), k=plan.budget.patches, bins=plan.budget.bins,
    )  # fmt: skip


def look(subject: Subject, *, shard: Sequence[int], layers: Sequence[str], k: int, batch: int) -> ShardLook:
    """Class scores and strongest patches of the images of one shard, in one pass."""
    survey = PatchSurvey(subject.net, len(subject.images), layers, k=k, shard=(shard[0], shard[1]))
    scores: list[Tensor] = []
    readers = {**survey.readers, "logits": lambda value, _: scores.append(value.cpu())}
    streaming_pass.read(subject.net, subject.images, readers, batch=batch, within=survey.within)
    return ShardLook(
        provenance=provenance(subject.net, "top-patches"),
        number=shard[0],
        logits=torch.cat(scores),
        patches=survey.summary(),
    )


def predictions(subject: Subject, shards: Iterable[ShardLook]) -> Predictions:
    """Class scores of all images, from those of the shards."""
    parts = {part.number: part.logits for part in shards}
    return predicted(subject, torch.cat([parts[number] for number in sorted(parts)]))


def scores(subject: Subject, *, batch: int) -> Tensor:
    """Class scores (N, K) of all images, in one pass."""
    found: list[Tensor] = []
    streaming_pass.read(
        subject.net, subject.images, {"logits": lambda value, _: found.append(value.cpu())}, batch=batch
    )
    return torch.cat(found)


def predicted(subject: Subject, logits: Tensor) -> Predictions:
    """Class scores of all images beside their labels."""
    labels = logits.new_full((len(logits),), -1).long() if subject.labels is None else subject.labels
    if logits.shape[1] == 1 and bool((labels >= 0).any()):
        warnings.warn(
            "the network gives one score for each image, so the atlas has no classes; labels are not used.",
            DataWarning,
            stacklevel=2,
        )
        labels = torch.full_like(labels, -1)
    if len(labels) and int(labels.max()) >= logits.shape[1]:
        raise InputError(
            f"the data set's labels go up to {int(labels.max())}, the network tells {logits.shape[1]} classes apart; "
            "give the class names with --classes, or a flat folder."
        )
    head = subject.net.head
    return Predictions(
        provenance=provenance(subject.net, "predictions"),
        logits=logits.float(),
        labels=labels,
        squash=head.squash,
        quantity=head.quantity,
    )


def patches(
    subject: Subject,
    shards: Iterable[ShardLook],
    *,
    layers: Sequence[str],
    shown: Sequence[str],
    k: int,
    bins: int,
) -> TopPatches:
    """The strongest patches of every unit of every layer; for layers that are not shown, only their numbers."""
    survey = PatchSurvey(subject.net, len(subject.images), layers, k=k)
    for part in shards:
        survey.absorb(part.patches)
    found = survey.result(subject.labels, bins, subject.net.classes)
    kept = {name: _counted(table) if name in shown else _numbers(table) for name, table in found.layers.items()}
    return dataclasses.replace(found, layers=kept)


def _counted(table: LayerPatches) -> LayerPatches:
    """The table with its counts in half the room."""
    return dataclasses.replace(table, histogram=table.histogram.int())


def _numbers(table: LayerPatches) -> LayerPatches:
    """For a layer without pages: which units are dead or saturated, and the strongest patch of each."""
    of_few = ("image", "position", "activation")
    of_none = (
        "groups",
        "class_mean",
        "edges",
        *(f"{kind}_{name}" for kind in ("binned", "low") for name in of_few),
    )
    less: dict[str, Any] = {name: getattr(table, name)[:, :1].clone() for name in of_few}
    less |= {name: getattr(table, name)[:, :0].clone() for name in of_none}
    return dataclasses.replace(table, histogram=table.histogram[:, :0, :0].clone(), quantiles={}, **less)


JOBS: Mapping[str, Job] = {"look": look, "predictions": predictions, "patches": patches}
