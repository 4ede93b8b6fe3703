"""Sprites of the fixture's pictures, written to the site's folder."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from microtome.atlas.pictures.sprites import bounds, coloured, gridded
from microtome.atlas.widgets import Link, Picture, Sprite


class Drawer:
    """Writes cells side by side and hands back the pictures."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "sprites").mkdir(parents=True, exist_ok=True)

    def natural(self, name: str, cells: Tensor, columns: int = 20) -> Sprite:
        """Gray or RGB pictures (n, C, h, w) in [0, 1]."""
        return self._save(name, cells, "natural", columns, None, "", None)

    def scaled(self, name: str, values: Tensor, colours: str, quantity: str, columns: int = 20) -> Sprite:
        """Values (n, h, w), on one scale and each on its own."""
        own = torch.cat([coloured(cell[None], colours, bounds(cell, colours)) for cell in values])
        file = self._save(f"{name}-own", own, colours, columns, None, quantity, None).file
        limits = bounds(values, colours)
        return self._save(name, coloured(values, colours, limits), colours, columns, limits, quantity, file)

    def _save(self, name, cells, colours, columns, limits, quantity, own) -> Sprite:
        across = min(columns, len(cells))
        pixels = (gridded(cells, across) * 255).round().to(torch.uint8).permute(1, 2, 0).numpy()
        Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).save(self.folder / f"sprites/{name}.png")
        return Sprite(
            f"sprites/{name}.png", tuple(cells.shape[2:]), across, len(cells), colours, limits, quantity, True, own
        )


def at(sprite: Sprite, index: int, alt: str, link: Link | None = None, note: str = "") -> Picture:
    """One cell."""
    return Picture(sprite, index, alt, link, note)
