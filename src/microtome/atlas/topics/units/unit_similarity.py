"""Similarity of units in a layer: as a matrix, and as the most similar units of one unit."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from microtome import units
from microtome.atlas.album import Album
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.units.unit_superstimuli import unit_picture
from microtome.atlas.topics.units.unit_tuning import label
from microtome.atlas.widgets import Absent, Amount, Amounts, Part, Picture, Section, SimilarityMatrix, to_unit
from microtome.loading import Subject
from microtome.results import Result
from microtome.units import Similarity

__all__ = ["UNIT_SIMILARITY", "Similarities", "similarity_order"]

_NEAREST = 8
_PAIRS = 12  # number of pairs listed
_EQUAL = 0.95  # above this correlation two units respond almost equally
_READABLE = 64  # the order is written out for at most this many units


@dataclass(frozen=True, eq=False, kw_only=True)
class Similarities(Result):
    """Similarity of the units of several layers, by layer."""

    layers: dict[str, units.Similarity]


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    """One pass over some images for all layers."""
    images = plan.sample(plan.budget.similarity_seconds / plan.seconds)
    cost = 1.5 * len(images) * plan.seconds
    return [plan.task("similar", cost=cost, layers=list(plan.layers), images=images, batch=plan.batch)]


def similar(subject: Subject, *, layers: Sequence[str], images: Sequence[int], batch: int) -> Similarities:
    """Similarity of the units of some layers on some images; in half precision, three digits."""
    found = units.similar(subject.net, subject.subset(images), layers, batch=batch)
    small = {name: dataclasses.replace(one, correlation=one.correlation.half()) for name, one in found.items()}
    return Similarities(provenance=next(iter(found.values())).provenance, layers=small)


def _layer_similarity(album: Album, layer: str) -> Similarity | Absent | None:
    found = album.remembered(("similar",), lambda: album.one(Similarities, "similar"))
    if not isinstance(found, Similarities):
        return found
    one = found.layers.get(layer)
    return None if one is None else dataclasses.replace(one, correlation=one.correlation.float())


def _unit(album: Album, layer: str, unit: int) -> list[Section]:
    use = "They are units of the layer whose responses rise and fall with those of this one."
    part = Part(_nearest(album, layer, unit), "nearest units", use)
    return [Section("Units that respond alike", (part,), half=True)]


def _nearest(album: Album, layer: str, unit: int) -> Amounts | Absent | None:
    """The units of the layer that respond most alike."""
    found = _layer_similarity(album, layer)
    if not isinstance(found, Similarity):
        return found
    rows = tuple(
        Amount(f"{layer}:{other}", value, to_unit(layer, other), unit_picture(album, layer, other),
               label(album, layer, other))
        for other, value in found.nearest(unit, _NEAREST)
    )  # fmt: skip
    if not rows:
        return Absent("Its response never varies, so it has no correlation with others.")
    caption = f"Units whose maps correlate most with its own over {found.images} images."
    return Amounts(rows, "correlation", caption, album.made(found))


def _layer(album: Album, layer: str) -> list[Section]:
    part = Part(_matrix(album, layer), "the similarity of units", "It shows which units respond alike.")
    return [Section("Units that respond alike", (part,), half=True)]


def _matrix(album: Album, layer: str) -> SimilarityMatrix | Absent | None:
    """Units x units, in the order of a tree."""
    found = _layer_similarity(album, layer)
    if not isinstance(found, Similarity):
        return found
    places = torch.tensor(similarity_order(album, layer), device=found.correlation.device).argsort()
    matrix = torch.nan_to_num(found.correlation, nan=0.0)[places][:, places]
    sprite = album.sprites.scaled(
        f"similarity-{album.slug(layer)}", matrix[None].float(), "diverging", "correlation", limits=(-1.0, 1.0),
        square=True,
    )  # fmt: skip
    pairs = _most_alike(found.correlation, _PAIRS)
    return SimilarityMatrix(
        layer,
        Picture(sprite, 0, f"correlation of the {len(matrix)} units of {layer}, alike ones side by side"),
        pairs,
        f"The correlation of responses at {len(matrix)} x {len(matrix)} pairs of units, over {found.images} images. "
        "Units that respond alike lie side by side: red blocks on the diagonal are groups of them.",
        order=tuple(places.tolist()) if len(matrix) <= _READABLE else (),
        finding=_finding(pairs, len(found.repeats(_EQUAL))),
    )


def _most_alike(correlation: Tensor, most: int) -> tuple[tuple[int, int, float], ...]:
    """The pairs of units with the largest correlation, largest first."""
    count = len(correlation)
    places = torch.triu_indices(count, count, 1, device=correlation.device)
    values = torch.nan_to_num(correlation[places[0], places[1]], nan=-2.0)
    best = values.argsort(descending=True, stable=True)[:most]
    best = best[values[best] > -2]  # units whose response never varies have no correlation
    return tuple(zip(places[0, best].tolist(), places[1, best].tolist(), values[best].double().tolist(), strict=True))


def _finding(pairs: Sequence[tuple[int, int, float]], equal: int) -> str:
    """Whether units of the layer respond almost equally."""
    if equal:
        them = "pair of units responds" if equal == 1 else "pairs of units respond"
        return f"{equal:,} {them} almost equally, with a correlation above {_EQUAL}."
    if not pairs:
        return "No two units have a correlation."
    return f"No two units respond almost equally: the highest correlation is {pairs[0][2]:.2f}."


def similarity_order(album: Album, layer: str) -> list[int]:
    """The place of each unit in an order that puts similar units side by side."""
    return album.remembered(("order", layer), lambda: _places(album, layer))


def _places(album: Album, layer: str) -> list[int]:
    count = album.tables[layer].units
    found = _layer_similarity(album, layer)
    if not isinstance(found, Similarity) or count < 3:
        return list(range(count))
    places = [0] * count
    for place, unit in enumerate(_leaves(found.correlation)):
        places[unit] = place
    return places


def _leaves(correlation: Tensor) -> list[int]:
    """Units in the order of a tree of average linkage."""
    from scipy.cluster.hierarchy import leaves_list, linkage
    from scipy.spatial.distance import squareform

    distance = 1 - torch.nan_to_num(correlation, nan=0.0).double().cpu().numpy()
    distance = np.round(np.clip((distance + distance.T) / 2, 0, 2), 9)
    np.fill_diagonal(distance, 0)
    return [int(leaf) for leaf in leaves_list(linkage(squareform(distance, checks=False), "average"))]


UNIT_SIMILARITY = Topic(
    "similarity of units", tasks=_tasks, jobs={"similar": similar}, sections={"layer": _layer, "unit": _unit}
)
