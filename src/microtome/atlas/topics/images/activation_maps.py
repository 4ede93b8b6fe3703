"""Activation maps: the units of each layer that respond most to an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from microtome.atlas.album import Album
from microtome.atlas.pictures.downscaling import downscaled_signal
from microtome.atlas.planning.plan import Plan, blocks
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.widgets import (
    Absent,
    ActivationMaps,
    ActivationRow,
    Colours,
    Part,
    Picture,
    Section,
    to_unit,
)
from microtome.loading import Subject
from microtome.results import Result, provenance

__all__ = ["ACTIVATION_MAPS", "Activations"]

_BATCH = 4  # images in one task
_UNITS = 8  # number of units of each layer
_SIDE = 56  # pixels a side of a map, as pages show it


@dataclass(frozen=True, eq=False, kw_only=True)
class Activations(Result):
    """By layer: the units with the largest values on each image (n, k), their maps (n, k, h, w) and peaks (n, k)."""

    units: dict[str, Tensor]
    maps: dict[str, Tensor]
    peaks: dict[str, Tensor]


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    return [
        plan.task("activations", cost=len(block) * plan.seconds, images=block, layers=list(plan.layers), units=_UNITS)
        for block in blocks(chosen.images, _BATCH)
    ]


def activations(subject: Subject, *, images: Sequence[int], layers: Sequence[str], units: int) -> Activations:
    """The activation maps of the units that respond most to some images."""
    chosen: dict[str, Tensor] = {}
    maps: dict[str, Tensor] = {}
    peaks: dict[str, Tensor] = {}
    for name, value in subject.net.activations(subject.pictures(images), layers).items():
        every = subject.net.layer(name).axes.maps(value, len(images)).float()
        peak = every.flatten(2).amax(2)
        chosen[name] = peak.topk(min(units, every.shape[1]), dim=1).indices
        shown = every.gather(1, chosen[name][:, :, None, None].expand(-1, -1, *every.shape[2:]))
        small = downscaled_signal(shown.flatten(0, 1), _SIDE)
        maps[name] = small.reshape(*shown.shape[:2], *small.shape[-2:]).half()
        peaks[name] = peak.gather(1, chosen[name])
    made = provenance(subject.net, "activations", images=images, layers=layers, units=units)
    return Activations(provenance=made, units=chosen, maps=maps, peaks=peaks)


def _image(album: Album, index: int) -> list[Section]:
    found = album.with_item(Activations, "activations", "images", index)
    shown: ActivationMaps | Absent | None = None if isinstance(found, tuple) else found
    if isinstance(found, tuple):
        result, place = found
        rows = tuple(_row(album, result, layer, place, index) for layer in result.units)
        caption = (
            "For each layer the units with the highest response to this image; they respond most at "
            f"{_strongest_colour(rows)} places. Below each: its number and its highest response."
        )
        shown = ActivationMaps(rows, caption)
    part = Part(shown, "activation maps", "They show where each unit responds.")
    return [Section("What each layer makes of it", (part,))]


def _strongest_colour(rows: Sequence[ActivationRow]) -> str:
    """The colour of the highest values, in words."""
    colours = {picture.sprite.colours for row in rows for picture in row.pictures}
    words = [word for kind, word in (("diverging", "red"), ("sequential", "bright")) if kind in colours]
    return " or ".join(words) or "bright"


def _row(album: Album, result: Activations, layer: str, place: int, index: int) -> ActivationRow:
    maps = result.maps[layer][place].float()
    colours: Colours = "diverging" if float(maps.min()) < 0 else "sequential"
    file = f"image-{album.image_id(index)}-activation-{album.slug(layer)}"
    sprite = album.sprites.scaled(file, maps, colours, "activation", columns=len(maps), own=True)
    units, peaks = result.units[layer][place].tolist(), result.peaks[layer][place].tolist()
    pictures = tuple(
        Picture(sprite, k, f"where unit {unit} of {layer} responds", to_unit(layer, unit), f"{unit}: {peak:.3g}")
        for k, (unit, peak) in enumerate(zip(units, peaks, strict=True))
    )
    return ActivationRow(layer, pictures, album.net.layer(layer).units)


ACTIVATION_MAPS = Topic("activation maps", tasks=_tasks, jobs={"activations": activations}, sections={"image": _image})
