"""Strongest patches: the crops of the data that drive a unit, their reconstructions, and its activation by class."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.atlas.album import Album
from microtome.atlas.pictures.downscaling import CELL, downscaled
from microtome.atlas.planning.budget import affordable
from microtome.atlas.planning.first_look import patches_task
from microtome.atlas.planning.plan import Plan, blocks
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.units.firing_places import lit
from microtome.atlas.topics.units.unit_superstimuli import unit_picture
from microtome.atlas.topics.units.unit_tuning import label
from microtome.atlas.widgets import (
    Amount,
    Amounts,
    Bin,
    Bins,
    Examples,
    Histogram,
    Number,
    Part,
    Patch,
    Picture,
    Section,
    Sprite,
    to_class,
    to_unit,
)
from microtome.figures.strongest_signal import strongest_signal
from microtome.loading import Subject
from microtome.results import Result
from microtome.units import LayerPatches, TopPatches
from microtome.units import reconstruct as reconstruct_patches

__all__ = ["STRONGEST_PATCHES", "Reconstructed", "reconstruction_tasks"]

_BLOCK = 32  # units in one task
_LOWEST = 4  # number of weakest patches shown
_OF_CLASS = 12  # number of units on the page of a class
_RESPONSES = {True: "How it responds to each class", False: "How strong its responses are"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Reconstructed(Result):
    """Reconstructions of the strongest patches of units (n, k, h, w), summed over channels."""

    units: list[int]
    maps: Tensor


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    return [task for layer in plan.layers for task in reconstruction_tasks(plan, layer, chosen.units[layer])]


def reconstruction_tasks(plan: Plan, layer: str, shown: Sequence[int]) -> list[Task]:
    """Reconstructions in a layer. If time is short, fewer patches of each unit, then fewer units."""
    each = 3 * plan.seconds_up_to(layer)
    share = plan.budget.reconstruction_seconds / len(plan.layers)
    most = plan.budget.patches if plan.small else plan.budget.reconstructed_patches
    k = len(affordable(range(most), each * len(shown), share, least=1))
    return [
        plan.task(
            "reconstruct", needs=(patches_task(plan).key,), cost=len(block) * k * each,
            layer=layer, units=block, k=k, batch=16 if plan.small else 4,
        )
        for block in blocks(sorted(affordable(shown, each, share, least=1)), _BLOCK)
    ]  # fmt: skip


def reconstruct(
    subject: Subject, tables: TopPatches, *, layer: str, units: Sequence[int], k: int, batch: int
) -> Reconstructed:
    """Reconstruct the strongest patches of units in pixels."""
    table = tables[layer].with_images(subject.images)
    reconstructed = reconstruct_patches(subject.net, table, k=k, units=units, batch=batch)
    signal = reconstructed.values.sum(2)  # over the channels
    maps = strongest_signal(signal.flatten(0, 1)[:, None], CELL)[:, 0].float()
    return Reconstructed(
        provenance=reconstructed.provenance, units=reconstructed.units, maps=maps.unflatten(0, signal.shape[:2]).half()
    )


# -- units ---------------------------------------------------------------------------------------------------------


def _facts(album: Album, layer: str, unit: int) -> list[Number]:
    table = album.tables[layer]
    places = table.grid[0] * table.grid[1]
    where = f"{table.images:,} images" if places == 1 else f"{table.images:,} images with {places:,} positions"
    found = [
        Number("active", 100 * float(table.active[unit]), "%", explain=f"Share of positions above zero, {where}."),
        Number(
            "mean response",
            float(table.mean[unit]),
            explain=f"With a standard deviation of {float(table.std[unit]):.3g}.",
        ),
        Number(
            "highest response", float(table.highest[unit]), explain=f"The lowest is {float(table.lowest[unit]):.3g}."
        ),
    ]
    if album.classes_measured:
        explain = f"0: equal response to all classes; 1: response to only one class ({table.sampled:,} images)."
        found.insert(0, Number("selectivity", float(table.selectivity[unit]), explain=explain))
    return found


def _unit(album: Album, layer: str, unit: int) -> list[Section]:
    table = album.tables[layer]
    top, low, bins = _patches(album, table, unit)
    made = album.made(
        table, album.commands.line("top-patches", data=album.commands.data, layer=layer, to="patches.png")
    )
    parts = [Part(Examples(top, _strongest_caption(album, layer, unit, top), made))]
    if bins:
        caption = "One image from each part of its range of response, from strong to weak."
        parts.append(Part(Bins(bins, caption, made)))
    parts.append(Part(Examples(low, "The patches with its lowest response.", made, heading="lowest")))
    return [
        Section("What drives it in the data", tuple(parts)),
        Section(_RESPONSES[album.classes_measured], (Part(_histogram(album, table, unit)),), half=True),
    ]


def _strongest_caption(album: Album, layer: str, unit: int, top: Sequence[Patch]) -> str:
    table = album.tables[layer]
    text = f"The positions in {table.images:,} images where its response is highest, one in each image."
    if lit(album, table, unit, 0) is not None:
        text += " Its receptive field covers much of each image: it is active where the patch is bright."
    else:
        text += " Each patch is exactly its receptive field; gray is outside the image."
    text += " A click shows the whole image with this position."
    count = sum(patch.reconstruction is not None for patch in top)
    reconstructed = any(unit in task.parameters["units"] for task in album.find("reconstruct", layer=layer))
    if not count and (reconstructed or not top):
        return text
    if not count:
        return f"{text} None is reconstructed: the budget {album.budget.name} sufficed only for other units."
    first = "the first of them" if count == 1 else f"the first {count} of them"
    below = "each" if count == len(top) else first
    return f"{text} Below {below}: what caused this response (its reconstruction from this one value)."


def _patches(
    album: Album, table: LayerPatches, unit: int
) -> tuple[tuple[Patch, ...], tuple[Patch, ...], tuple[Bin, ...]]:
    """The strongest patches, the weakest, and one of each bin: one sprite for all."""
    kinds = {
        "top": table.image.shape[1],
        "low": min(_LOWEST, table.image.shape[1]),
        "binned": table.binned_image.shape[1],
    }
    places = [
        (kind, rank) for kind, count in kinds.items() for rank in range(count) if table.entry(unit, rank, kind)[0] >= 0
    ]
    crops = [(lit(album, table, unit, rank) if kind == "top" else None, kind, rank) for kind, rank in places]
    cells = [table.crop(unit, rank, kind) if bright is None else bright for bright, kind, rank in crops]
    sprite = album.sprites.natural(
        f"unit-{album.slug(table.layer)}-{unit}", downscaled(torch.stack(cells), CELL), columns=9
    )
    patches = {
        kind: [
            _patch(album, table, unit, rank, selection, sprite, at)
            for at, (selection, rank) in enumerate(places)
            if selection == kind
        ]
        for kind in kinds
    }
    return tuple(patches["top"]), tuple(patches["low"]), _bins(table, unit, patches["binned"])


def _patch(album: Album, table: LayerPatches, unit: int, rank: int, kind: str, sprite: Sprite, place: int) -> Patch:
    image, position, activation = table.entry(unit, rank, kind)
    source = f"{album.image_id(image)}, {album.answer(image)}"
    picture = Picture(sprite, place, f"patch of image {source}, response {activation:.3g}")
    back = _reconstruction(album, table.layer, unit, rank) if kind == "top" else None
    box = _box(table, unit, rank, kind)
    return Patch(picture, activation, source, position, back, album.whole(image), box)


def _box(table: LayerPatches, unit: int, rank: int, kind: str) -> tuple[float, float, float, float]:
    """The receptive field of the unit in the image, as shares of its sides: left, top, width, height."""
    height, width = table.picture[1:]
    top, left, bottom, right = table.crop_box_at(table.entry(unit, rank, kind)[1])
    top, left, bottom, right = max(top, 0), max(left, 0), min(bottom, height), min(right, width)
    return left / width, top / height, (right - left) / width, (bottom - top) / height


def _reconstruction(album: Album, layer: str, unit: int, rank: int) -> Picture | None:
    """The reconstruction of a patch, if there is one."""
    found = album.with_item(Reconstructed, "reconstruct", "units", unit, layer=layer)
    if not isinstance(found, tuple) or rank >= found[0].maps.shape[1]:
        return None
    maps, name = found[0].maps[found[0].units.index(unit)].float(), f"reconstruct-{album.slug(layer)}-{unit}"
    sprite = album.remembered(
        ("reconstruction", layer, unit),
        functools.partial(album.sprites.scaled, name, maps, "diverging", "signal", columns=9, own=True),
    )
    return Picture(sprite, rank, f"what in patch {rank + 1} drives unit {unit} of {layer}")


def _bins(table: LayerPatches, unit: int, patches: list[Patch]) -> tuple[Bin, ...]:
    count = len(patches)
    quantiles = table.quantiles["max"][unit]
    edges = [float(quantiles[round(100 * (count - step) / count)]) for step in range(count + 1)] if count else []
    return tuple(Bin(edges[i + 1], edges[i], 1 / count, (patch,)) for i, patch in enumerate(patches))


def _histogram(album: Album, table: LayerPatches, unit: int) -> Histogram:
    edges = tuple(round(float(edge), 6) for edge in table.edges[unit])
    counts = table.histogram[unit].long()
    caption = (
        f"Its largest response on each of {int(counts.sum()):,} images{{}}. The height of a bar is the square root of "
        "the number of images, so that rare responses are visible."
    )
    if not album.classes_measured:
        every = tuple(counts.sum(0).tolist())
        return Histogram(edges, (("all images", None, every),), caption.format(""), album.made(table), "response")
    rows = []
    for group, row in zip(table.groups[unit].tolist(), counts.tolist(), strict=True):
        if sum(row):
            name = album.class_name(group) if group >= 0 else "other classes"
            rows.append((name, to_class(group) if group >= 0 else None, tuple(row)))
    text = caption.format(", by class, the class with the strongest responses first")
    return Histogram(edges, tuple(rows), text, album.made(table), "response")


# -- layers and classes --------------------------------------------------------------------------------------------


def _layer_facts(album: Album, layer: str) -> list[Number]:
    table = album.tables[layer]
    explain = f"Of {table.units} units; they respond to none of {table.images:,} images."
    return [Number("dead units", int(table.dead.sum()), explain=explain)]


def _class(album: Album, index: int) -> list[Section]:
    """Units that respond to this class more than to any other."""
    found = None
    if album.classes_measured and int(album.class_counts[index]) > 1:
        rows = [
            Amount(f"{layer}:{unit}", float(album.tables[layer].selectivity[unit]), to_unit(layer, unit),
                   unit_picture(album, layer, unit), label(album, layer, unit))
            for layer in album.layers
            for unit in (album.tables[layer].groups[:, 0] == index).nonzero()[:, 0].tolist()
        ]  # fmt: skip
        rows = sorted(rows, key=lambda row: -row.value)[:_OF_CLASS]
        caption = (
            f"Units whose mean response to the {int(album.class_counts[index])} images of this class is higher than to "
            "any other class. Selectivity is 1 if no other class drives the unit, 0 if all classes do equally."
        )
        found = Amounts(tuple(rows), "selectivity", caption) if rows else None
    return [Section("Units that respond most to it", (Part(found),))]


STRONGEST_PATCHES = Topic(
    "strongest patches",
    tasks=_tasks,
    jobs={"reconstruct": reconstruct},
    sections={"unit": _unit, "class": _class},
    facts={"unit": _facts, "layer": _layer_facts},
)
