"""Which small picture stands for a unit, on its layer's page and wherever it is linked to?"""

from __future__ import annotations

import torch

from microtome.atlas.assemble.album import Album
from microtome.atlas.assemble.stimuli import shown_stimuli
from microtome.atlas.fit import fitted
from microtome.atlas.pages import Picture, to_unit

__all__ = ["unit_picture"]

_CELL = 96  # pixels a side of a patch


def unit_picture(album: Album, layer: str, unit: int) -> Picture | None:
    """A small picture of a unit; None where its layer is not shown."""
    if layer not in album.plan.outline.layers:
        return None
    return album.remembered(("pictures", layer), lambda: _pictures(album, layer)).get(unit)


def _pictures(album: Album, name: str) -> dict[int, Picture]:
    """A picture of each unit: its superstimulus where one was made, otherwise its strongest patch."""
    table = album.tables[name]
    found = {
        unit: Picture(sprite, place, f"superstimulus of unit {unit} of {name}", to_unit(name, unit))
        for unit, (sprite, place, _, _) in shown_stimuli(album, name, 1).items()
    }
    rest = [unit for unit in range(table.units) if unit not in found]
    for number, start in enumerate(range(0, len(rest), 400)):
        part = rest[start : start + 400]
        crops = fitted(torch.stack([table.crop(unit, 0) for unit in part]), _CELL)
        sprite = album.sheet.natural(f"layer-{album.slug(name)}-{number}", crops)
        for place, unit in enumerate(part):
            found[unit] = Picture(sprite, place, f"strongest patch of unit {unit} of {name}", to_unit(name, unit))
    return found
