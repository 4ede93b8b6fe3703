"""How is a unit's activation made from its inputs? The dissection sheet of a unit, from what a task has kept."""

from __future__ import annotations

import torch

from microtome.atlas.assemble.album import Album
from microtome.atlas.assemble.spaces import without_weights
from microtome.atlas.pages import Absent, Number, Picture, Sheet, SheetRow, Sprite, to_unit
from microtome.atlas.sheets import Sheets

__all__ = ["image_sheet", "unit_sheet"]

_SHOWN = 8  # rows that are never folded away


def unit_sheet(album: Album, layer: str, unit: int) -> Sheet | Absent | None:
    """The dissected activation of a unit on the image that drives it most."""
    for task in album.find("sheets", layer=layer):
        if unit in task.parameters["units"]:
            result = album.load(task)
            if not isinstance(result, Sheets):
                return Absent(getattr(result, "reason", "It cannot be dissected."))
            return _sheet(album, result, unit) if str(unit) in result.y else Absent("No image of the data drives it.")
    return without_weights(album, layer)


def image_sheet(album: Album, index: int) -> Sheet | Absent | None:
    """The dissection, on an image, of the unit that speaks most for the class said."""
    found = album.one(Sheets, "image-sheet", image=index)
    return _sheet(album, found, int(next(iter(found.y)))) if isinstance(found, Sheets) else found


def _sheet(album: Album, found: Sheets, unit: int) -> Sheet:
    key = str(unit)
    image = found.image[key]
    bias, value, rest, gap, bound = found.numbers[key]
    row, column = found.position[key]
    caption = (
        f"The unit's answer to image {album.image_id(image)}, taken apart: each input channel through its kernel, "
        "and the running sum that becomes y."
    )
    command = album.commands.line("dissect", album.image_file(image), layer=found.layer, channel=unit, to="sheet.png")
    return Sheet(
        unit=to_unit(found.layer, unit),
        image=_image(album, image),
        rows=_rows(album, found, key),
        bias=bias,
        y=Picture(_maps(album, found, key, "y", found.y[key][None].float(), "activation"), 0, f"output of unit {unit}"),
        value=value,
        position=(row, column),
        check=Number("largest gap between sum and output", gap, tolerance=f"below {bound:.1g}", ok=gap <= bound),
        caption=caption,
        made=album.made(found, command),
        rest=rest,
    )


def _rows(album: Album, found: Sheets, key: str) -> tuple[SheetRow, ...]:
    x = _maps(album, found, key, "x", found.x[key].float(), "input")
    w = _maps(album, found, key, "w", found.w[key].float(), "weight")
    a = _maps(album, found, key, "a", found.a[key].float(), "contribution")
    c = _maps(album, found, key, "c", found.c[key].float(), "running sum")
    ranked = _maps(album, found, key, "r", found.ranked[key].float(), "running sum")
    amounts = found.amount[key]
    strongest = set(amounts.abs().argsort(descending=True, stable=True)[:_SHOWN].tolist())
    below = album.origin(found.source)
    rows = []
    for place, channel in enumerate(found.channels[key].tolist()):
        name = f"channel {channel}"
        rows.append(
            SheetRow(
                channel=channel,
                x=Picture(x, place, f"input, {name}"),
                w=Picture(w, place, f"weights, {name}"),
                a=Picture(a, place, f"contribution, {name}"),
                c=Picture(c, place, f"running sum up to {name}"),
                amount=float(amounts[place]),
                c_ranked=Picture(ranked, place, f"running sum by rank, {name}"),
                label=album.label(below, channel) if below else "",
                link=to_unit(below, channel) if below else None,
                weak=place not in strongest,
            )
        )
    return tuple(rows)


def _maps(album: Album, found: Sheets, key: str, part: str, values: torch.Tensor, quantity: str) -> Sprite:
    name = f"sheet-{album.slug(found.layer)}-{key}-{album.image_id(found.image[key])}-{part}"
    signed = part != "x" or float(values.min()) < 0
    return album.sheet.scaled(name, values, "diverging" if signed else "sequential", quantity, square=True)


def _image(album: Album, index: int) -> Picture:
    if index in album.thumbnails:
        return album.picture(index)
    sprite = album.sheet.natural(f"image-{album.image_id(index)}", album.small([index]))
    return Picture(sprite, 0, f"image {album.image_id(index)}, {album.answer(index)}", None, album.answer(index))
