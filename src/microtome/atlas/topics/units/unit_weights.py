"""Weights: the kernels of a layer, the filter of a unit that reads the image, its strongest inputs and outputs."""

from __future__ import annotations

from collections.abc import Sequence

from microtome import units as units_of
from microtome.atlas.album import Album
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.units.unit_superstimuli import unit_picture
from microtome.atlas.topics.units.unit_tuning import label
from microtome.atlas.widgets import (
    Absent,
    Amount,
    Amounts,
    Filter,
    Link,
    Number,
    Part,
    Picture,
    Section,
    WeightSheet,
    Wiring,
    to_unit,
)
from microtome.loading import Subject
from microtome.units import Connections, Filters

__all__ = ["UNIT_WEIGHTS"]

_LINKS = 8  # number of inputs and outputs shown
_SIDE = 4096  # largest side in pixels of a picture of all kernels


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    found = []
    for layer in plan.layers:
        if plan.single_map(layer):
            found.append(plan.task("filters", sees=False, cost=_fit_cost(plan, layer), layer=layer))
        units = sorted(chosen.units[layer])
        found.append(plan.task("connections", sees=False, cost=0.3, layer=layer, units=units))
    return found


def _fit_cost(plan: Plan, layer: str) -> float:
    """Seconds: a Gabor function is fitted to each filter that reads the image."""
    found = plan.net.layer(layer)
    return 0.2 * found.units if "input" in found.inputs else 0.1


def filters(subject: Subject, *, layer: str) -> Filters:
    """The filters of a convolution."""
    return units_of.filters(subject.net, layer)


def connections(subject: Subject, *, layer: str, units: Sequence[int]) -> Connections:
    """The strongest inputs and outputs of units."""
    return units_of.connections(subject.net, layer, units=units)


# -- layers --------------------------------------------------------------------------------------------------------


def _layer_facts(album: Album, layer: str) -> list[Number]:
    found = album.one(Filters, "filters", layer=layer)
    if not isinstance(found, Filters):
        return []
    size = " x ".join(map(str, found.weights.shape[2:]))
    return [Number("kernel", size, explain="Positions that a unit reads of each input channel.")]


def _layer(album: Album, layer: str) -> list[Section]:
    part = Part(_kernels(album, layer), "the kernels", "They show what each unit reads from each input.")
    return [Section("All its weights", (part,))]


def _kernels(album: Album, layer: str) -> WeightSheet | Absent | None:
    """All kernels, outputs by inputs, if they fit into one picture."""
    found = album.one(Filters, "filters", layer=layer)
    if not isinstance(found, Filters):
        return found or album.without_weights(layer)
    outputs, inputs, height, width = found.weights.shape
    if max(outputs * height, inputs * width) > _SIDE:
        return Absent(f"{outputs} x {inputs} kernels of {height} x {width} weights are too many for one picture.")
    kernels = found.weights.flatten(0, 1).float()
    sprite = album.sprites.scaled(
        f"weights-{album.slug(layer)}", kernels, "diverging", "weight", columns=inputs, square=True
    )
    caption = "A row is a unit, a column an input channel. Red weights raise the response, blue weights lower it."
    return WeightSheet(layer, sprite, caption, album.made(found), album.read_layer(layer) or None)


# -- units ---------------------------------------------------------------------------------------------------------


def _unit(album: Album, layer: str, unit: int) -> list[Section]:
    found = [Section("What it reads, and what reads it", (Part(_wiring(album, layer, unit)),))]
    picture = _filter(album, layer, unit)
    if picture is not None:
        shown = Filter(picture, "Its weights on the pixels: the pattern that it compares the image with.")
        found.append(Section("Images made to drive it", (Part(shown),), half=True, beside=True))
    return found


def _filter(album: Album, layer: str, unit: int) -> Picture | None:
    """The weights of a unit that reads the image."""
    found = album.one(Filters, "filters", layer=layer)
    if not isinstance(found, Filters) or not found.first:
        return None
    weights = found.weights.float()
    alt, file = f"filter of unit {unit} of {layer}", f"filters-{album.slug(layer)}"
    if weights.shape[1] != 3:
        return Picture(album.sprites.scaled(file, weights.mean(1), "diverging", "weight", square=True), unit, alt)
    shown = 0.5 + 0.5 * weights / weights.flatten(1).abs().amax(1).clamp(min=1e-12)[:, None, None, None]
    return Picture(album.sprites.natural(file, shown), unit, alt)


def _wiring(album: Album, layer: str, unit: int) -> Wiring:
    """The units that a unit reads most and those that read it most, by weight."""
    name = f"{layer}:{unit}"
    found = album.one(Connections, "connections", layer=layer)
    if not isinstance(found, Connections):
        return Wiring(name, found, found)
    if unit not in found.units:
        return Wiring(name, None, None)
    made = album.made(found)
    sides: list[Amounts | Absent] = []
    for links, caption in (
        (found.inputs(unit, _LINKS), "Its strongest inputs; red raises it, blue lowers it."),
        (found.outputs(unit, _LINKS), "Its strongest outputs; it raises the red ones and lowers the blue ones."),
    ):
        rows = tuple(
            Amount(f"{link.layer}:{link.unit}", link.weight, _link(album, link.layer, link.unit),
                   unit_picture(album, link.layer, link.unit), label(album, link.layer, link.unit))
            for link in links
        )  # fmt: skip
        if rows:
            sides.append(Amounts(rows, "sum of weights", caption, made, signed=True))
        else:
            sides.append(Absent(found.unknown or "No weights lead here: it stands at the end of the network."))
    return Wiring(name, sides[0], sides[1])


def _link(album: Album, layer: str, unit: int) -> Link | None:
    return to_unit(layer, unit) if layer in album.layers else None


UNIT_WEIGHTS = Topic(
    "weights",
    tasks=_tasks,
    jobs={"filters": filters, "connections": connections},
    sections={"layer": _layer, "unit": _unit},
    facts={"layer": _layer_facts},
)
