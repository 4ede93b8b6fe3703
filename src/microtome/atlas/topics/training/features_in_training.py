"""The distance of each layer's units from their final features at every checkpoint, and when a layer settles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microtome.atlas.album import Album
from microtome.atlas.planning.budget import affordable
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.training.kept_run import chosen_epochs, run_of
from microtome.atlas.widgets import Curve, Curves, Number, Part, Section
from microtome.loading import Subject
from microtome.training import FeatureHistory, feature_history

__all__ = ["FEATURES_IN_TRAINING"]

_IMAGES = 128  # on which distances are measured
_CHECKPOINTS = 10


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    if plan.subject.run is None:
        return []
    images = plan.sample(_IMAGES)[:_IMAGES]
    cost = 1.5 * len(images) * plan.seconds
    epochs = affordable(chosen_epochs(plan, _CHECKPOINTS)[::-1], cost, plan.budget.topic_seconds, least=2)[::-1]
    if len(epochs) < 2:
        return []
    options: dict[str, Any] = {"layers": list(plan.layers), "epochs": epochs, "images": images}
    return [plan.task("feature-distances", cost=cost * (1 + len(epochs)), of_run=True, **options)]


def feature_distances(
    subject: Subject, *, layers: Sequence[str], epochs: Sequence[int], images: Sequence[int]
) -> FeatureHistory:
    """The distances alone, without pictures."""
    return feature_history(
        subject.net, run_of(subject), subject.subset(images), layers, epochs=epochs, shown=(), show=()
    )


# -- pages ---------------------------------------------------------------------------------------------------------


def _layer(album: Album, layer: str) -> list[Section]:
    if album.subject.run is None:
        return []
    found = album.one(FeatureHistory, "feature-distances")
    shown = found
    if isinstance(found, FeatureHistory) and layer in found.distance:
        caption = (
            "The distance of units from their final features (one minus the correlation of activations), the median of "
            f"{found.distance[layer].shape[1]} units over {found.images} images: 0 is the final feature, 1 is an "
            "unrelated feature."
        )
        median = tuple(found.distance[layer].median(1).values.tolist())
        curve = Curve("epoch: distance to the final feature", "", tuple(found.epochs), median)
        return [Section("How it came about", (Part(Curves((curve,), caption, album.made(found))),))]
    use = "It shows when the layer settled."
    return [
        Section("How it came about", (Part(None if isinstance(shown, FeatureHistory) else shown, "its training", use),))
    ]


def _layer_facts(album: Album, layer: str) -> list[Number]:
    found = album.one(FeatureHistory, "feature-distances") if album.subject.run is not None else None
    if not isinstance(found, FeatureHistory) or layer not in found.distance:
        return []
    epoch = found.settled()[layer]
    if epoch is None:
        explain = "At no checkpoint before the last are half of its units within 0.1 of their final features."
        return [Number("settled at epoch", "not settled", explain=explain)]
    explain = "From this epoch on half of its units are within 0.1 of their final features."
    return [Number("settled at epoch", f"{epoch:g}", explain=explain)]


FEATURES_IN_TRAINING = Topic(
    "features in training",
    tasks=_tasks,
    jobs={"feature-distances": feature_distances},
    sections={"layer": _layer},
    facts={"layer": _layer_facts},
)
