"""A page with nothing but a map of many images, for tests and for measuring how fast it is drawn."""

from __future__ import annotations

import io
from importlib import resources
from pathlib import Path

import numpy as np
from PIL import Image

from microtome.atlas.site.render import templates
from microtome.atlas.widgets import Sprite
from microtome.atlas.widgets.map_canvas import MapCanvas, packed

CELL = 8


class _View:
    """As much of a page as the macro asks for."""

    root = ""

    def links(self, links):
        return {}

    def pic(self, picture, size):
        return ""

    def range(self, sprite):
        return ""


def write_map(folder: Path, count: int, *, units: int = 8, classes: int = 10, total: int | None = None) -> Path:
    """A page of ``count`` points in ten groups on a ring; unit g responds to group g. Opens from disk."""
    rng = np.random.default_rng(0)
    group = np.arange(count) % 10
    angle = 2 * np.pi * group / 10
    points = np.stack([np.cos(angle), np.sin(angle)], 1) + 0.08 * rng.standard_normal((count, 2))
    responses = (group[:, None] == np.arange(units)) + 0.05 * rng.random((count, units))
    predicted = np.where(np.arange(count) % 50 == 0, (group + 1) % 10, group)
    data = packed(
        points, rng.random(count), label=group, predicted=predicted, confidence=rng.random(count),
        names=[f"{place:05d}" for place in range(count)], classes=[str(number) for number in range(classes)],
        nearest=(np.arange(count)[:, None] + 10 * np.arange(1, 4)) % count, responses=responses,
        units=list(range(units)), total=total,
    )  # fmt: skip
    columns = int(np.ceil(np.sqrt(count)))
    sheet = np.zeros((-(-count // columns) * CELL, columns * CELL), dtype=np.uint8)
    sheet[:] = rng.integers(0, 255, sheet.shape)
    content = io.BytesIO()
    Image.fromarray(sheet).save(content, "PNG")
    (folder / "sprite.png").write_bytes(content.getvalue())
    widget = MapCanvas(data, Sprite("sprite.png", (CELL, CELL), columns, count), {}, {}, f"{count} points.")
    macro = templates().get_template("map_canvas.html").module.canvas(_View(), widget)
    (folder / "assets").mkdir(parents=True, exist_ok=True)
    for name in ("style.css", "map_canvas.css", "map_canvas.js"):
        asset = resources.files("microtome.atlas.site").joinpath("assets", name).read_bytes()
        (folder / "assets" / name).write_bytes(asset)
    page = folder / "map.html"
    head = '<!doctype html><html lang="en"><meta charset="utf-8"><title>map</title><link rel="icon" href="data:,">'
    page.write_text(f'{head}<link rel="stylesheet" href="assets/style.css"><body><main>{macro}</main></body></html>')
    return page
