"""Activation maps of units with large receptive fields, on their strongest images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from microtome.atlas.album import Album
from microtome.atlas.pictures.downscaling import downscaled_signal
from microtome.atlas.planning.budget import affordable
from microtome.atlas.planning.first_look import patches_task
from microtome.atlas.planning.plan import Plan, blocks
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.loading import Subject
from microtome.results import Result, provenance
from microtome.trace.graph import Layer
from microtome.units import LayerPatches, TopPatches
from microtome.units.streaming.crops import cut

__all__ = ["FIRING_PLACES", "Firing", "lit"]

_SHARE = 0.75  # of the image's sides; for smaller fields the crop itself shows the position
_SIDE = 28  # side of a stored map in positions
_DIM = 0.4  # brightness of positions where the unit is not active


@dataclass(frozen=True, eq=False, kw_only=True)
class Firing(Result):
    """By layer: units, and their activation maps (units, k, h, w) on their strongest images.

    A map is divided by its largest value; negative values are zero.
    """

    units: dict[str, list[int]]
    maps: dict[str, Tensor]


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    """One pass over the images with the strongest patches; fewer ranks if time is short."""
    shown = {
        name: sorted(chosen.units[name]) for name in plan.layers if _wide(plan.net.layer(name), plan.net.input_shape)
    }
    if not shown:
        return []
    ranks = affordable(
        range(plan.budget.patches),
        lambda few: 1.2 * plan.seconds * len(_images(chosen.tables, shown, len(few))),
        plan.budget.reconstruction_seconds / 4,
        least=1,
    )
    cost = 1.2 * plan.seconds * len(_images(chosen.tables, shown, len(ranks)))
    needs = (patches_task(plan).key,)
    return [plan.task("firing", needs=needs, cost=cost, units=shown, k=len(ranks), batch=plan.batch)]


def _wide(layer: Layer, picture: tuple[int, ...]) -> bool:
    """Whether the units of a layer read so much of the image that the active position must be shown."""
    if not layer.spatial or min(layer.axes.grid) < 2:
        return False
    return layer.field is None or all(
        seen >= _SHARE * side for seen, side in zip(layer.field.size, picture[1:], strict=True)
    )


def _images(tables: TopPatches, shown: Mapping[str, Sequence[int]], k: int) -> list[int]:
    """The images with the strongest patches of some units, in order."""
    found = [tables[name].image[list(units), :k].flatten() for name, units in shown.items()]
    images = torch.cat(found).unique()
    return [int(index) for index in images[images >= 0]]


def firing(subject: Subject, tables: TopPatches, *, units: Mapping[str, Sequence[int]], k: int, batch: int) -> Firing:
    """The activation maps of units on their strongest images."""
    maps: dict[str, dict[tuple[int, int], Tensor]] = {name: {} for name in units}
    wanted: dict[int, list[tuple[str, int, int]]] = {}
    for name, shown in units.items():
        for place, unit in enumerate(shown):
            for rank in range(min(k, tables[name].count())):
                wanted.setdefault(tables[name].entry(unit, rank)[0], []).append((name, place, rank))
    for part in blocks(_images(tables, units, k), batch):
        values = subject.net.activations(subject.pictures(part), list(units))
        for name, value in values.items():
            every = subject.net.layer(name).axes.maps(value, len(part))
            for row, image in enumerate(part):
                for layer, place, rank in wanted[image]:
                    if layer == name:
                        maps[name][place, rank] = _reduced(every[row, units[name][place]])
    return Firing(
        provenance=provenance(subject.net, "activations", layers=list(units), k=k),
        units={name: list(shown) for name, shown in units.items()},
        maps={name: _stacked(found, len(units[name]), k) for name, found in maps.items()},
    )


def _reduced(values: Tensor) -> Tensor:
    positive = downscaled_signal(values[None].float().clamp(min=0), _SIDE)[0]
    return (positive / positive.max().clamp(min=1e-30)).half().cpu()


def _stacked(found: Mapping[tuple[int, int], Tensor], units: int, k: int) -> Tensor:
    """The maps of all units and ranks; empty maps if the data has fewer images."""
    side = next(iter(found.values())).shape if found else (1, 1)
    empty = torch.zeros(side, dtype=torch.float16, device="cpu")
    rows = [torch.stack([found.get((unit, rank), empty) for rank in range(k)]) for unit in range(units)]
    return torch.stack(rows)


def lit(album: Album, table: LayerPatches, unit: int, rank: int) -> Tensor | None:
    """The crop of a strong patch, dark where the unit is not active; None if the crop itself shows the position."""
    found = album.remembered(("firing",), lambda: album.one(Firing, "firing"))
    if not isinstance(found, Firing) or unit not in found.units.get(table.layer, ()):
        return None
    maps = found.maps[table.layer]
    place = found.units[table.layer].index(unit)
    if rank >= maps.shape[1] or not bool(maps[place, rank].any()):
        return None
    height, width = table.picture[1:]
    whole = functional.interpolate(
        maps[place, rank][None, None].float(), size=(height, width), mode="bilinear", align_corners=False
    )
    mask = cut(whole[0], table.crop_box_at(table.entry(unit, rank)[1]), 0.0)
    low = table.pictures.gray if album.net.pixels is None else album.net.pixels[0]
    return low + (table.crop(unit, rank) - low) * (_DIM + (1 - _DIM) * mask.sqrt())


FIRING_PLACES = Topic("where units fire", tasks=_tasks, jobs={"firing": firing})
