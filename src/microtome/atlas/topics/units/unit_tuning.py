"""Tuning curves: the response of a unit to synthetic stimuli, and the label read from it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from microtome import units
from microtome.atlas.album import Album
from microtome.atlas.planning.budget import affordable
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.widgets import Amount, Amounts, Curve, Curves, Part, Section
from microtome.loading import Subject
from microtome.results import Result
from microtome.units import Tuning
from microtome.units.stimulus_tuning.labels import NOT_SELECTIVE

__all__ = ["UNIT_TUNING", "Tunings", "confidence", "label", "layer_tuning"]

_STIMULI = {False: 600, True: 1450}  # stimuli for small and for large inputs


@dataclass(frozen=True, eq=False, kw_only=True)
class Tunings(Result):
    """The tuning of several layers, by layer."""

    layers: dict[str, units.Tuning]


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    """One pass over the stimuli for the lower layers, as many as the budget allows."""
    layers = affordable(plan.layers, lambda layers: _cost(plan, layers), plan.budget.tuning_seconds)
    if not layers:
        return []
    return [plan.task("tuning", sees=False, cost=_cost(plan, layers), layers=layers, batch=plan.batch)]


def _cost(plan: Plan, layers: Sequence[str]) -> float:
    """Seconds: a pass over the stimuli up to the last layer, the statistics of each value, a gradient for each unit."""
    shown = _STIMULI[max(plan.net.input_shape[1:]) > 64]
    found = shown * max(plan.seconds_up_to(name) for name in layers)
    for name in layers:
        layer = plan.net.layer(name)
        found += 4e-8 * shown * math.prod(layer.shape) + 3 * layer.units * plan.seconds_up_to(name)
    return found


def tuning(subject: Subject, *, layers: Sequence[str], batch: int) -> Tunings:
    """What the units of some layers are tuned to."""
    found = units.tuning(subject.net, layers, batch=batch)
    return Tunings(provenance=next(iter(found.values())).provenance, layers=found)


def layer_tuning(album: Album, layer: str) -> Tuning | None:
    """The tuning of a layer's units, if it was computed."""
    found = album.remembered(("tuning",), lambda: album.one(Tunings, "tuning"))
    return found.layers.get(layer) if isinstance(found, Tunings) else None


def label(album: Album, layer: str, unit: int) -> str:
    """The tuning label of a unit; else the class that it detects in the data; empty if neither is known."""
    found = layer_tuning(album, layer)
    words = found.label(unit) if found is not None and 0 <= unit < len(found.labels) else ""
    if words in ("", NOT_SELECTIVE) and layer in album.tables:
        classes = album.remembered(("class labels", layer), lambda: units.class_labels(album.tables[layer]))
        return classes.label(unit) or words if 0 <= unit < len(classes.labels) else words
    return words


def confidence(album: Album, layer: str, unit: int) -> float | None:
    """The share of random units that are less selective, for labels by synthetic stimuli; None for other labels.

    A unit that responds to brightness is compared with no random unit.
    """
    found = layer_tuning(album, layer)
    if found is None or not 0 <= unit < len(found.labels) or found.label(unit) == NOT_SELECTIVE:
        return None
    return None if found.kind[unit] == "brightness" else float(found.confidence[unit])


def _unit(album: Album, layer: str, unit: int) -> list[Section]:
    found = layer_tuning(album, layer)
    shown = _curves(album, layer, found, unit) if found else None
    use = "They show the response to lines, edges and gratings of every angle, position and width, and give the label."
    parts = (Part(shown, "tuning curves", use), Part(_textures(album, found, unit) if found else None))
    return [Section("What it is tuned to", parts, half=True)]


def _textures(album: Album, tuning: Tuning, unit: int) -> Amounts | None:
    """The response to each texture, for a unit that is labelled by one."""
    if tuning.by_texture is None or tuning.kind[unit] != "texture":
        return None
    values = zip(units.TEXTURES, tuning.by_texture[unit].tolist(), strict=True)
    rows = tuple(Amount(name, round(value, 6)) for name, value in sorted(values, key=lambda pair: -pair[1]))
    caption = "Its median response over positions to textures that fill the image, minus that to gray."
    return Amounts(rows, "response", caption, album.made(tuning))


def _curves(album: Album, layer: str, tuning: Tuning, unit: int) -> Curves:
    curves = []
    family = tuning.kind[unit] if tuning.kind[unit] in tuning.family else tuning.family[0]
    mine = [place for place, entry in enumerate(tuning.family) if entry == family]
    for name, unit_name in (("angle", "°"), ("offset", "px"), ("width", "px"), ("phase", "°")):
        shown = tuning.shown.get(name)
        values = None if shown is None else shown[mine][~shown[mine].isnan()].unique()
        if values is None or len(values) < 2:
            continue
        x, y = tuning.along(unit, name, family)
        best = float(x[y.argmax()])
        called = {"offset": "position"}.get(name, name)
        responses = tuple(round(value, 6) for value in y.tolist())
        curves.append(Curve(called, unit_name, tuple(x.tolist()), responses, best, name == "angle"))
    if tuning.by_hue is not None and tuning.kind[unit] == "colour":
        hues = tuple(30.0 * step for step in range(tuning.by_hue.shape[1]))
        best, family = float(tuning.hue[unit]), "lines and colours"
        curves.append(Curve("hue", "°", hues, tuple(round(one, 6) for one in tuning.by_hue[unit].tolist()), best))
    caption = f"Its activation on synthetic stimuli ({family}) against one property, the maximum over all others."
    return Curves(
        tuple(curves), caption, album.made(tuning, album.commands.line("tuning", layer=layer, to="tuning.png"))
    )


UNIT_TUNING = Topic("tuning curves", tasks=_tasks, jobs={"tuning": tuning}, sections={"unit": _unit})
