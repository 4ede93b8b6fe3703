"""What and where: how much of a unit's response depends on the pattern, and how much on its position."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome import units
from microtome.atlas.album import Album
from microtome.atlas.pictures.downscaling import CELL, downscaled
from microtome.atlas.planning.budget import affordable
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.widgets import Absent, Gallery, Part, Picture, Section, Share, Shares, to_unit
from microtome.loading import Subject
from microtome.results import Result
from microtome.units import WhatWhere, placed

__all__ = ["WHAT_AND_PLACE", "PlacedResponses"]

_PATTERNS = 34
_GRIDS = (5, 4, 3)  # positions along each side: the first that all layers can be afforded with
_NAMES = ("the pattern", "the place", "both together")
_USE = "They show whether a unit encodes the pattern, its position, or both."


@dataclass(frozen=True, eq=False, kw_only=True)
class PlacedResponses(Result):
    """Shares of variance by layer, and the stimulus with the highest response of each unit.

    Attributes
    ----------
    layers : dict of str to WhatWhere
        By layer.
    stimuli : Tensor
        (n, h, w) uint8, the stimuli that are the best one of any unit, each once.
    best : dict of str to Tensor
        By layer (units,), the place of each unit's best one in ``stimuli``.
    """

    layers: dict[str, WhatWhere]
    stimuli: Tensor
    best: dict[str, Tensor]


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    """One pass over the stimuli for the lower layers, as many as the budget allows."""
    named = [name for name in plan.layers if plan.net.layer(name).axes.image_axis is not None]
    seconds = plan.budget.topic_seconds
    grid = next((grid for grid in _GRIDS if named and _cost(plan, named, grid) <= seconds), _GRIDS[-1])
    layers = affordable(named, lambda some: _cost(plan, some, grid), seconds)
    if not layers:
        return []
    cost = _cost(plan, layers, grid)
    return [plan.task("what-where", sees=False, cost=cost, layers=layers, grid=grid, batch=plan.batch)]


def _cost(plan: Plan, layers: Sequence[str], grid: int) -> float:
    """Seconds: a pass over the stimuli up to the last layer, and standard errors for each unit."""
    passes = _PATTERNS * grid**2 * max(plan.seconds_up_to(name) for name in layers)
    return passes + 1e-3 * sum(plan.net.layer(name).units for name in layers)


def what_where(subject: Subject, *, layers: Sequence[str], grid: int, batch: int) -> PlacedResponses:
    """Split the responses of the units of some layers by pattern and place."""
    height, width = subject.net.input_shape[1:]
    shown = placed((height, width), grid=grid)
    found = units.what_where(subject.net, layers, stimuli=shown, batch=batch)
    best = {name: one.response.flatten(1).argmax(1) for name, one in found.items()}
    used, places = torch.cat([*best.values()]).unique(return_inverse=True)
    pictures = downscaled(shown.images[used.to(shown.images.device)], CELL)[:, 0]
    return PlacedResponses(
        provenance=next(iter(found.values())).provenance,
        layers={name: dataclasses.replace(one, response=one.response.half()) for name, one in found.items()},
        stimuli=pictures.mul(255).round().byte(),
        best=dict(zip(best, places.split([len(one) for one in best.values()]), strict=True)),
    )


def _found(album: Album) -> PlacedResponses | Absent | None:
    return album.remembered(("what-where",), lambda: album.one(PlacedResponses, "what-where"))


def _layer(album: Album, layer: str) -> list[Section]:
    found = _found(album)
    shown: Shares | Absent | None = found if isinstance(found, Absent) else None
    if isinstance(found, PlacedResponses) and layer in found.layers:
        shown = _shares(album, found.layers[layer])
    return [Section("Pattern or place: what drives the units", (Part(shown, "the shares of pattern and place", _USE),))]


def _shares(album: Album, found: WhatWhere) -> Shares | Absent:
    """A bar for each unit, those with the largest share of the pattern first."""
    live = [unit for unit in range(len(found.pattern)) if not bool(found.pattern[unit].isnan())]
    if not live:
        return Absent(f"No unit of {found.layer} responds to the small patterns at several positions.")
    order = sorted(live, key=lambda unit: -float(found.pattern[unit]))
    rows = tuple(
        Share(f"{found.layer}:{unit}", to_unit(found.layer, unit), tuple(_parts(found, unit))) for unit in order
    )
    both = int(found.dual()[live].sum())
    silent = len(found.pattern) - len(live)
    caption = (
        f"{len(found.names)} patterns are shown at {len(found.places)} positions each. A bar is a unit: the part of "
        "its "
        f"response variance that the pattern explains, the position, or only both together. For {both} of {len(live)} "
        "units pattern and position each explain a tenth or more."
    )
    if silent:
        caption += f" {silent} units respond to none of them."
    command = album.commands.line("what-where", layer=found.layer, to="shares.png")
    return Shares(_NAMES, rows, caption, album.made(found, command))


def _unit(album: Album, layer: str, unit: int) -> list[Section]:
    found = _found(album)
    shown = None
    if isinstance(found, PlacedResponses) and layer in found.layers:
        shown = _place(album, found, layer, unit)
    return [Section("What it is tuned to", (Part(shown),), half=True)]


def _place(album: Album, found: PlacedResponses, layer: str, unit: int) -> Gallery | None:
    """The stimulus that drives a unit most, and its mean response by place."""
    one = found.layers[layer]
    side = round(len(one.places) ** 0.5)
    if bool(one.pattern[unit].isnan()) or side * side != len(one.places):
        return None
    slug = album.slug(layer)
    best = album.remembered(
        ("placed", layer),
        lambda: album.sprites.natural(f"placed-{slug}", found.stimuli[found.best[layer]][:, None].float() / 255),
    )
    maps = album.remembered(
        ("by place", layer),
        lambda: album.sprites.scaled(
            f"by-place-{slug}", _by_place(one).unflatten(1, (side, side)), "sequential", "of its own range", square=True
        ),
    )
    pattern, place, both = (100 * value for value in _parts(one, unit))
    number = int(one.response[unit].flatten().argmax())
    name = one.names[number // len(one.places)]
    text = (
        f"Small patterns at {len(one.places)} positions: the pattern explains {pattern:.0f} % of its response, the "
        "position "
        f"{place:.0f} %, only both together {both:.0f} %. Left: the pattern and position of its highest response. "
        "Right: its mean response by position, from its lowest to its highest."
    )
    pictures = (
        Picture(best, unit, f"{name}, at the place of the highest response", None, name.partition(",")[0]),
        Picture(maps, unit, f"mean response of unit {unit} at {side} x {side} places", None, "by place"),
    )
    return Gallery(pictures, text, album.made(one, album.commands.line("what-where", layer=layer, to="shares.png")))


def _by_place(found: WhatWhere) -> Tensor:
    """Mean response (units, places), from 0 at the lowest place of a unit to 1 at its highest."""
    mean = found.response.float().mean(1)
    low, high = mean.amin(1, keepdim=True), mean.amax(1, keepdim=True)
    return torch.where(high > low, (mean - low) / (high - low).clamp(min=1e-30), 0.5)


def _parts(found: WhatWhere, unit: int) -> list[float]:
    return [round(float(one[unit]), 4) for one in (found.pattern, found.place, found.interaction)]


WHAT_AND_PLACE = Topic(
    "what and where", tasks=_tasks, jobs={"what-where": what_where}, sections={"layer": _layer, "unit": _unit}
)
