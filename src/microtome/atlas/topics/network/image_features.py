"""Features of some images at every shown layer, from one pass: the basis of the maps of images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.atlas.planning.plan import Plan, blocks
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.loading import Subject
from microtome.representation.features import feature_rows
from microtome.results import Result, provenance
from microtome.spaces.operators.linear_layer import linear_layers

__all__ = ["IMAGE_FEATURES", "ImageFeatures", "features_task", "mapped_images"]

_LEAST = 4  # smallest number of images of a map


@dataclass(frozen=True, eq=False, kw_only=True)
class ImageFeatures(Result):
    """Features of some images.

    Attributes
    ----------
    images : list of int
        The images.
    rows : dict of str to Tensor
        By layer (n, units), the mean of each unit over its positions.
    last : str
        The layer that the scores are computed from, if it has units.
    """

    images: list[int]
    rows: dict[str, Tensor]
    last: str


def mapped_images(plan: Plan, chosen: Selection) -> list[int]:
    """A sample of the images, including those with pages; empty if they are too few for a map."""
    sample = plan.sample(plan.budget.similarity_seconds / plan.seconds)
    images = sorted({*sample, *chosen.images})
    return images if len(images) >= _LEAST else []


def features_task(plan: Plan, images: Sequence[int]) -> Task:
    """The pass over these images; its result is stored as long as a map needs it."""
    return plan.task(
        "image-features", interim=True, cost=1.2 * len(images) * plan.seconds, images=list(images),
        layers=list(plan.layers), last=_last(plan), batch=plan.batch,
    )  # fmt: skip


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    images = mapped_images(plan, chosen)
    return [features_task(plan, images)] if images else []


def _last(plan: Plan) -> str:
    """The layer that the last linear layer reads, where it has units; otherwise the last shown layer."""
    net = plan.net
    for name in reversed(linear_layers(net)):
        for source in net.layer(name).inputs:
            if source in net.layers and net.layers[source].units and net.layers[source].axes.image_axis is not None:
                return source
        break
    return plan.layers[-1]


def image_features(
    subject: Subject, *, images: Sequence[int], layers: Sequence[str], last: str, batch: int
) -> ImageFeatures:
    """The features at these layers and at the last one."""
    names = list(dict.fromkeys([*layers, last]))
    parts = [feature_rows(subject.net, subject.pictures(block), names, "mean") for block in blocks(images, batch)]
    rows = {layer: torch.cat([part[layer] for part in parts]) for layer in names}
    made = provenance(subject.net, "features", layers=list(layers), images=len(images), reduce="mean")
    return ImageFeatures(provenance=made, images=list(images), rows=rows, last=last)


IMAGE_FEATURES = Topic("features of images", tasks=_tasks, jobs={"image-features": image_features})
