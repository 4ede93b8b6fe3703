"""Repeats: how far each shown layer repeats the one before it, as a whole and unit by unit."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from microtome.atlas.album import Album
from microtome.atlas.planning.plan import Plan, even
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.units.unit_superstimuli import unit_picture
from microtome.atlas.topics.units.unit_tuning import label
from microtome.atlas.widgets import Absent, Amount, Amounts, Part, Section, Statement, to_unit
from microtome.loading import Subject
from microtome.representation import LayerRepeats
from microtome.representation import repeats as compared
from microtome.units.stimulus_tuning.labels import NOT_SELECTIVE

__all__ = ["REPEATING_LAYERS"]

_ORDERS = 20  # random orders of the images for the chance level
_PAIRS = 12  # matched units that are shown
_BYTES = 2**28  # for the maps of all layers
_SPARSE = 8  # one in so many of the sampled images: each has many positions
_LEAST = 5  # minimum number of images for CKA
_RATE = 5e9  # multiplications a second of correlations in float64
_USE = "They show whether the layer differs from the one before it."


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    """One pass over some images, as many as time and memory allow."""
    names = [name for name in plan.layers if plan.net.layer(name).axes.image_axis is not None]
    if len(names) < 2:
        return []
    values = sum(math.prod(plan.net.layer(name).shape) for name in names)
    each = 2 * plan.seconds + _multiplications(plan, names) / _RATE
    count = int(min(plan.budget.topic_seconds / each, _BYTES / (4 * values), plan.budget.sample_images / _SPARSE))
    images = even(len(plan.subject.images), max(_LEAST, count))
    cost = each * len(images)
    return [plan.task("repeats", cost=cost, layers=names, images=images, orders=_ORDERS, batch=plan.batch)]


def _multiplications(plan: Plan, names: Sequence[str]) -> float:
    """Cost for one image: each pair of successive layers in every order, and each layer with itself."""
    found = 0.0
    layers = [plan.net.layer(name) for name in names]
    for layer in layers:
        found += layer.units**2 * math.prod(layer.axes.grid)
    for one, other in itertools.pairwise(layers):
        found += (1 + _ORDERS) * one.units * other.units * min(math.prod(one.axes.grid), math.prod(other.axes.grid))
    return found


def repeats(subject: Subject, *, layers: Sequence[str], images: Sequence[int], orders: int, batch: int) -> LayerRepeats:
    """How far each layer repeats the one before, on some images."""
    return compared(subject.net, subject.subset(images), layers, permutations=orders, batch=batch)


def _layer(album: Album, layer: str) -> list[Section]:
    found = album.remembered(("repeats",), lambda: album.one(LayerRepeats, "repeats"))
    if isinstance(found, LayerRepeats):
        if layer not in found.layers[1:]:  # the first shown layer has none before it
            return []
        parts = [Part(_numbers(album, found, layer)), Part(_pairs(album, found, layer))]
    else:
        parts = [Part(found, "the comparison with the layer before", _USE)]
    return [Section("Does it repeat the layer before?", tuple(parts))]


def _numbers(album: Album, found: LayerRepeats, layer: str) -> Statement:
    place = found.layers.index(layer) - 1
    before = found.layers[place]
    match, chance, p = (float(one[place]) for one in (found.match, found.chance, found.p))
    cka, low, high = (float(one[place]) for one in (found.cka, found.low, found.high))
    text = (
        f"Each unit of {layer} is matched with one unit of {before}, so that matched units respond as similarly as "
        f"possible to {found.images} images: their correlation is {match:.2f} on average, and {chance:.2f} where "
        f"the images are in random order ({_chance(p)}). All units together have a similarity (CKA) of {cka:.2f}, "
        f"95 % interval {low:.2f} to {high:.2f}. A layer that repeats the one before has 1 in both."
    )
    made = album.made(found, album.commands.line("layer-repeats", data=album.commands.data, to="repeats.png"))
    rows: tuple[tuple[str | float, ...], ...] = tuple(
        (f"{before} to {after}", *(round(float(one[at]), 4) for one in (found.cka, found.match, found.chance)))
        for at, (before, after) in enumerate(itertools.pairwise(found.layers))
    )
    return Statement(text, ("layers", "CKA", "mean correlation", "in random order"), rows, made)


def _chance(p: float) -> str:
    return "no order reaches the first number" if p <= 1 / (1 + _ORDERS) + 1e-9 else f"p = {p:.2f}"


def _pairs(album: Album, found: LayerRepeats, layer: str) -> Amounts | Absent:
    """The units that are most similar to their partner in the layer before."""
    before = found.layers[found.layers.index(layer) - 1]
    partner, value = found.partner[layer].tolist(), found.correlation[layer].tolist()
    matched = [unit for unit in range(len(partner)) if partner[unit] >= 0]
    best = sorted(matched, key=lambda unit: -value[unit])[:_PAIRS]
    if not best:
        return Absent(f"No unit of {layer} has a partner in {before}.")
    rows = tuple(
        Amount(f"{layer}:{unit}", round(value[unit], 6), to_unit(layer, unit), unit_picture(album, layer, unit),
               _partner(album, before, partner[unit]))
        for unit in best
    )  # fmt: skip
    caption = f"The units that are most similar to a unit of {before}, which is named below each."
    return Amounts(rows, "correlation", caption)


def _partner(album: Album, layer: str, unit: int) -> str:
    words = label(album, layer, unit)
    return f"like {layer}:{unit}" + (f" ({words})" if words not in ("", NOT_SELECTIVE) else "")


REPEATING_LAYERS = Topic("repeats", tasks=_tasks, jobs={"repeats": repeats}, sections={"layer": _layer})
