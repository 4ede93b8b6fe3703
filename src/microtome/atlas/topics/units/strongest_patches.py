"""Strongest patches: the crops of the data that drive a unit, their reconstructions, and its activation by class."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.atlas.album import Album
from microtome.atlas.pictures.downscaling import CELL, downscaled, downscaled_signal
from microtome.atlas.planning.budget import affordable
from microtome.atlas.planning.first_look import patches_task
from microtome.atlas.planning.plan import Plan, blocks
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
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
from microtome.loading import Subject
from microtome.results import Result
from microtome.units import LayerPatches, TopPatches
from microtome.units import reconstruct as reconstruct_patches

__all__ = ["STRONGEST_PATCHES", "Reconstructed", "reconstruction_tasks"]

_BLOCK = 32  # units in one task
_LOWEST = 4  # weakest patches that are shown
_OF_CLASS = 12  # units on the page of a class


@dataclass(frozen=True, eq=False, kw_only=True)
class Reconstructed(Result):
    """Reconstructions of the strongest patches of units (n, ranks, h, w), summed over channels."""

    units: list[int]
    maps: Tensor


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    return [task for layer in plan.layers for task in reconstruction_tasks(plan, layer, chosen.units[layer])]


def reconstruction_tasks(plan: Plan, layer: str, shown: Sequence[int]) -> list[Task]:
    """Reconstructions in a layer. Where time is short, fewer patches of each unit, then fewer units."""
    each = 3 * plan.seconds_up_to(layer)
    share = plan.budget.reconstruction_seconds / len(plan.layers)
    most = plan.budget.patches if plan.small else plan.budget.reconstructed_patches
    ranks = len(affordable(range(most), each * len(shown), share, least=1))
    return [
        plan.task(
            "reconstruct", needs=(patches_task(plan).key,), cost=len(block) * ranks * each,
            layer=layer, units=block, ranks=ranks, batch=16 if plan.small else 4,
        )
        for block in blocks(sorted(affordable(shown, each, share, least=1)), _BLOCK)
    ]  # fmt: skip


def reconstruct(
    subject: Subject, tables: TopPatches, *, layer: str, units: Sequence[int], ranks: int, batch: int
) -> Reconstructed:
    """Reconstruct the strongest patches of units in pixels."""
    table = tables[layer].with_images(subject.images)
    made = reconstruct_patches(subject.net, table, ranks=ranks, units=units, batch=batch)
    signal = made.values.sum(2)  # over the channels
    maps = downscaled_signal(signal.flatten(0, 1), CELL)
    return Reconstructed(provenance=made.provenance, units=made.units, maps=maps.unflatten(0, signal.shape[:2]).half())


# -- units ---------------------------------------------------------------------------------------------------------


def _facts(album: Album, layer: str, unit: int) -> list[Number]:
    table, where = album.tables[layer], "over all positions of all images"
    selectivity = "How much one class stands out: 0 not at all, 1 it alone."
    return [
        Number("selectivity", float(table.selectivity[unit]), explain=selectivity),
        Number("active", 100 * float(table.active[unit]), "%", explain="Share of positions where it is above zero."),
        Number("mean", float(table.mean[unit]), explain=f"Of its activation, {where}."),
        Number("standard deviation", float(table.std[unit]), explain=f"Of its activation, {where}."),
        Number("highest", float(table.highest[unit]), explain=f"Activation, {where}."),
        Number("lowest", float(table.lowest[unit]), explain=f"Activation, {where}."),
    ]


def _unit(album: Album, layer: str, unit: int) -> list[Section]:
    table = album.tables[layer]
    top, low, bins = _patches(album, table, unit)
    made = album.made(
        table, album.commands.line("top-patches", data=album.commands.data, layer=layer, to="patches.png")
    )
    caption = "One image from each part of its range of activation, from strong to weak."
    parts = [Part(Examples(top, _strongest_caption(album, layer, unit, top), made))]
    if bins:
        parts.append(Part(Bins(bins, caption, made)))
    parts.append(Part(Examples(low, "The patches that drive it least.", made, heading="lowest")))
    return [
        Section("What drives it in the data", tuple(parts)),
        Section("How it responds to each class", (Part(_histogram(album, table, unit)),), half=True),
    ]


def _strongest_caption(album: Album, layer: str, unit: int, top: Sequence[Patch]) -> str:
    asked = any(unit in task.parameters["units"] for task in album.find("reconstruct", layer=layer))
    count = sum(patch.reconstruction is not None for patch in top)
    text = "The patches of the data that drive it most; gray is outside the picture."
    if not count and (asked or not top):
        return text
    if not count:
        return f"{text} None is reconstructed: the budget {album.budget.name} sufficed for other units only."
    first = "the first of them" if count == 1 else f"the first {count} of them"
    beside = "each" if count == len(top) else first
    return f"{text} Beside {beside}: the reconstruction from this one activation."


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
    crops = downscaled(torch.stack([table.crop(unit, rank, kind) for kind, rank in places]), CELL)
    sprite = album.sprites.natural(f"unit-{album.slug(table.layer)}-{unit}", crops, columns=9)
    made = {
        kind: [_patch(album, table, unit, rank, of, sprite, at) for at, (of, rank) in enumerate(places) if of == kind]
        for kind in kinds
    }
    return tuple(made["top"]), tuple(made["low"]), _bins(table, unit, made["binned"])


def _patch(album: Album, table: LayerPatches, unit: int, rank: int, kind: str, sprite: Sprite, place: int) -> Patch:
    image, position, activation = table.entry(unit, rank, kind)
    text = f"patch of image {album.image_id(image)}, {album.answer(image)}"
    link = album.picture(image).link if image in album.thumbnails and image in album.images else None
    crop = Picture(sprite, place, text, link, f"{activation:.3g}")
    back = _reconstruction(album, table.layer, unit, rank) if kind == "top" else None
    return Patch(crop, activation, f"{album.image_id(image)}, {album.answer(image)}", position, back)


def _reconstruction(album: Album, layer: str, unit: int, rank: int) -> Picture | None:
    """The reconstruction of a patch, where there is one."""
    found = album.with_item(Reconstructed, "reconstruct", "units", unit, layer=layer)
    if not isinstance(found, tuple) or rank >= found[0].maps.shape[1]:
        return None
    maps, name = found[0].maps[found[0].units.index(unit)].float(), f"reconstruct-{album.slug(layer)}-{unit}"
    sprite = album.remembered(
        ("reconstruction", layer, unit),
        functools.partial(album.sprites.scaled, name, maps, "diverging", "signal", columns=9, own=True),
    )
    return Picture(sprite, rank, f"reconstruction of patch {rank} of unit {unit} of {layer}")


def _bins(table: LayerPatches, unit: int, patches: list[Patch]) -> tuple[Bin, ...]:
    count = len(patches)
    quantiles = table.quantiles["max"][unit]
    edges = [float(quantiles[round(100 * (count - step) / count)]) for step in range(count + 1)] if count else []
    return tuple(Bin(edges[i + 1], edges[i], 1 / count, (patch,)) for i, patch in enumerate(patches))


def _histogram(album: Album, table: LayerPatches, unit: int) -> Histogram:
    rows = []
    for group, counts in zip(table.groups[unit].tolist(), table.histogram[unit].tolist(), strict=True):
        if sum(counts):
            all_rest = table.groups.shape[1] == 1
            name = album.class_name(group) if group >= 0 else ("all images" if all_rest else "other classes")
            rows.append((name, to_class(group) if group >= 0 else None, tuple(int(count) for count in counts)))
    edges = tuple(round(float(edge), 6) for edge in table.edges[unit])
    return Histogram(
        edges,
        tuple(rows),
        "Its largest activation on each image, by class, the strongest class first. The height of a bar is the square "
        "root of the number of images, so that rare activations are visible.",
        album.made(table),
    )


# -- layers and classes --------------------------------------------------------------------------------------------


def _layer_facts(album: Album, layer: str) -> list[Number]:
    dead = int(album.tables[layer].dead.sum())
    return [Number("dead units", dead, explain="They are active on none of the images.")]


def _class(album: Album, index: int) -> list[Section]:
    """Units that respond to this class more than to any other."""
    found = None
    if all(album.tables[layer].class_mean.shape[1] for layer in album.layers):  # else there are no labels
        rows = [
            Amount(f"{layer}:{unit}", float(album.tables[layer].selectivity[unit]), to_unit(layer, unit), None,
                   label(album, layer, unit))
            for layer in album.layers
            for unit in (album.tables[layer].groups[:, 0] == index).nonzero()[:, 0].tolist()
        ]  # fmt: skip
        rows = sorted(rows, key=lambda row: -row.value)[:_OF_CLASS]
        caption = "Units that respond to this class more than to any other, the most selective first."
        found = Amounts(tuple(rows), "selectivity", caption)
    name = "the units that tell it apart"
    use = "They respond to this class more than to any other."
    return [Section("Units that tell it apart", (Part(found, name, use),))]


STRONGEST_PATCHES = Topic(
    "strongest patches",
    tasks=_tasks,
    jobs={"reconstruct": reconstruct},
    sections={"unit": _unit, "class": _class},
    facts={"unit": _facts, "layer": _layer_facts},
)
