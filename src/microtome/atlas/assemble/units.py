"""What does one unit look for, what drives it, how is it made? The page of one unit."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence

import torch

from microtome.atlas.assemble import spaces
from microtome.atlas.assemble.album import Album
from microtome.atlas.assemble.layers import state
from microtome.atlas.assemble.relations import ablation, inputs_and_outputs, nearest
from microtome.atlas.assemble.stimuli import unit_stimuli
from microtome.atlas.assemble.unit_sheet import unit_sheet
from microtome.atlas.findings import Reconstructed
from microtome.atlas.fit import CELL, fitted
from microtome.atlas.pages import Absent, Bin, Examples, Histogram, Number, Patch, Picture, Sprite, UnitPage, to_class
from microtome.atlas.pages import Curve as PageCurve
from microtome.atlas.pages import Tuning as PageTuning
from microtome.units import Filters, LayerPatches, Tuning

__all__ = ["unit_pages"]


def unit_pages(album: Album) -> Iterator[UnitPage]:
    """The pages of all units that have one, layer by layer."""
    for layer in album.plan.outline.layers:
        for unit in album.paged(layer):
            yield _page(album, layer, unit)


def _page(album: Album, layer: str, unit: int) -> UnitPage:
    table = album.tables[layer]
    words = album.tuning(layer)
    top, low, bins = _patches(album, table, unit)
    inputs, outputs = inputs_and_outputs(album, layer, unit)
    again = album.commands.line("top-patches", data=album.commands.data, layer=layer, to="patches.png")
    made = album.made(table, again)
    return UnitPage(
        layer=layer,
        unit=unit,
        label=words.label(unit) if words else "",
        confidence=float(words.confidence[unit]) if words else None,
        second=words.secondary[unit] if words else "",
        state=state(table, unit),
        facts=(*_facts(table, unit), *spaces.heard(album, layer, unit)),
        stimuli=unit_stimuli(album, layer, unit),
        top=Examples(top, _strongest_caption(album, layer, unit, top), made),
        lowest=Examples(low, "The patches that drive it least.", made),
        bins=bins,
        bins_caption="One image from each part of its range, from strong to weak: what it does between the extremes.",
        bins_made=made,
        histogram=_histogram(album, table, unit),
        tuning=_tuning(album, layer, words, unit) if words else None,
        filter=_filter(album, layer, unit),
        sheet=unit_sheet(album, layer, unit),
        inputs=inputs,
        outputs=outputs,
        nearest=nearest(album, layer, unit),
        ablation=ablation(album, layer, unit),
    )


def _filter(album: Album, layer: str, unit: int) -> Picture | Absent | None:
    """The unit's weights, where they are a picture: of layers that read the image."""
    found = album.one(Filters, "filters", layer=layer)
    if not isinstance(found, Filters):
        return found or spaces.without_weights(album, layer)
    if not found.first:
        return Absent("Its weights read other units, not the image; the dissection shows them one by one.")
    weights = found.weights.float()
    alt = f"filter of unit {unit} of {layer}"
    if weights.shape[1] != 3:
        sprite = album.sheet.scaled(f"filters-{album.slug(layer)}", weights.mean(1), "diverging", "weight", square=True)
        return Picture(sprite, unit, alt)
    shown = 0.5 + 0.5 * weights / weights.flatten(1).abs().amax(1).clamp(min=1e-12)[:, None, None, None]
    return Picture(album.sheet.natural(f"filters-{album.slug(layer)}", shown), unit, alt)


def _facts(table: LayerPatches, unit: int) -> tuple[Number, ...]:
    where = "over all positions of all images"
    return (
        Number(
            "selectivity", float(table.selectivity[unit]), explain="How much one class stands out: 0 none, 1 only it."
        ),
        Number("active", 100 * float(table.active[unit]), "%", explain="Share of positions where it is above zero."),
        Number("mean", float(table.mean[unit]), explain=f"Of its activation, {where}."),
        Number("standard deviation", float(table.std[unit]), explain=f"Of its activation, {where}."),
        Number("highest", float(table.highest[unit]), explain=f"Activation, {where}."),
        Number("lowest", float(table.lowest[unit]), explain=f"Activation, {where}."),
    )


def _strongest_caption(album: Album, layer: str, unit: int, top: Sequence[Patch]) -> str:
    asked = any(unit in task.parameters["units"] for task in album.find("reconstruct", layer=layer))
    count = sum(patch.reconstruction is not None for patch in top)
    text = "The patches of the data that drive it most; gray is outside the picture."
    if not count and (asked or not top):
        return text
    if not count:
        return f"{text} None is reconstructed here: units before it took the budget {album.budget.name}."
    first = "the first of them" if count == 1 else f"the first {count} of them"
    beside = "each" if count == len(top) else first
    return f"{text} Beside {beside}: what its one activation gives back of the patch."


# -- patches -------------------------------------------------------------------------------------------------------


def _patches(
    album: Album, table: LayerPatches, unit: int
) -> tuple[tuple[Patch, ...], tuple[Patch, ...], tuple[Bin, ...]]:
    """The strongest, the weakest and one of each bin: one sprite for all."""
    kinds = {"top": table.image.shape[1], "low": min(4, table.image.shape[1]), "binned": table.binned_image.shape[1]}
    places = [
        (kind, rank) for kind, count in kinds.items() for rank in range(count) if table.entry(unit, rank, kind)[0] >= 0
    ]
    crops = fitted(torch.stack([table.crop(unit, rank, kind) for kind, rank in places]), CELL)
    sprite = album.sheet.natural(f"unit-{album.slug(table.layer)}-{unit}", crops, columns=9)
    made = {
        kind: [_patch(album, table, unit, rank, of, sprite, at) for at, (of, rank) in enumerate(places) if of == kind]
        for kind in kinds
    }
    return tuple(made["top"]), tuple(made["low"]), _bins(table, unit, made["binned"])


def _patch(album: Album, table: LayerPatches, unit: int, rank: int, of: str, sprite: Sprite, place: int) -> Patch:
    image, position, activation = table.entry(unit, rank, of)
    text = f"patch of image {album.image_id(image)}, {album.answer(image)}"
    link = album.picture(image).link if image in album.thumbnails and image in album.images else None
    crop = Picture(sprite, place, text, link, f"{activation:.3g}")
    back = _reconstruction(album, table.layer, unit, rank) if of == "top" else None
    return Patch(crop, activation, f"{album.image_id(image)}, {album.answer(image)}", position, back)


def _reconstruction(album: Album, layer: str, unit: int, rank: int) -> Picture | None:
    """A patch as the unit's one activation gives it back."""
    for task in album.find("reconstruct", layer=layer):
        if unit not in task.parameters["units"] or rank >= task.parameters["ranks"]:
            continue
        found = album.load(task)
        if isinstance(found, Reconstructed):
            maps = found.maps[found.units.index(unit)].float()
            name = f"reconstruct-{album.slug(layer)}-{unit}"
            sprite = album.remembered(
                ("reconstruction", layer, unit),
                functools.partial(album.sheet.scaled, name, maps, "diverging", "signal", columns=9, own=True),
            )
            return Picture(sprite, rank, f"reconstruction of patch {rank} of unit {unit} of {layer}")
    return None


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
        "Its largest activation on each image, by class, the strongest class first; "
        "heights are square roots of how many images, so that rare answers show.",
        album.made(table),
    )


# -- tuning --------------------------------------------------------------------------------------------------------


def _tuning(album: Album, layer: str, tuning: Tuning, unit: int) -> PageTuning:
    curves = []
    family = tuning.kind[unit] if tuning.kind[unit] in tuning.family else tuning.family[0]
    for name, unit_name in (("angle", "°"), ("offset", "px"), ("width", "px"), ("phase", "°")):
        shown = tuning.shown.get(name)
        mine = [place for place, entry in enumerate(tuning.family) if entry == family]
        if (
            shown is None
            or not bool((~shown[mine].isnan()).any())
            or len(shown[mine][~shown[mine].isnan()].unique()) < 2
        ):
            continue
        x, y = tuning.along(unit, name, family)
        best = float(x[y.argmax()])
        called = {"offset": "position"}.get(name, name)
        curves.append(
            PageCurve(
                called, unit_name, tuple(x.tolist()), tuple(round(v, 6) for v in y.tolist()), best, name == "angle"
            )
        )
    caption = f"Its activation on synthetic stimuli ({family}) as one property varies, the best over all others."
    made = album.made(tuning, album.commands.line("tuning", layer=layer, to="tuning.png"))
    return PageTuning(tuple(curves), caption, made)
