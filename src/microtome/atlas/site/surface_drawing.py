"""The still picture of a surface as SVG, shown without scripts, and the first view of the canvas."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from markupsafe import Markup

from microtome.atlas.site.svg import chart, path, text

AZIMUTH, ELEVATION = -60.0, 35.0  # degrees, as at the start of assets/surface_canvas.js
_HALF = 0.6  # half the height of the box; its sides go from -1 to 1
_WIDTH, _HEIGHT, _SCALE = 640, 420, 148
_Seen = Callable[[float, float, float], tuple[float, float, float]]
_CORNERS: tuple[tuple[float, float], ...] = ((-1, -1), (1, -1), (1, 1), (-1, 1))


def projected(x: float, y: float, z: float, azimuth: float, elevation: float) -> tuple[float, float, float]:
    """Projection of a point of the box: to the right, upwards, and its distance.

    Parameters
    ----------
    x, y, z
        Coordinates in the box from -1 to 1, and the height from 0 to 1.
    azimuth, elevation
        Direction of the eye, in degrees.

    Examples
    --------
    >>> [round(v, 3) + 0 for v in projected(1, -1, 0.5, -90, 0)], [round(v, 3) + 0 for v in projected(0, 1, 0, -90, 90)]
    ([1.0, 0.0, -1.0], [0.0, 1.0, 0.6])
    """
    a, e, up = math.radians(azimuth), math.radians(elevation), _HALF * (2 * z - 1)
    far = -x * math.cos(a) - y * math.sin(a)
    return (
        y * math.cos(a) - x * math.sin(a),
        up * math.cos(e) + far * math.sin(e),
        far * math.cos(e) - up * math.sin(e),
    )


def surface_picture(data: dict[str, Any], spoken: str) -> Markup:
    """The first view of a surface, with its first height.

    Parameters
    ----------
    data, spoken
        See :class:`~microtome.atlas.widgets.SurfaceCanvas`.
    """

    def seen(x: float, y: float, z: float) -> tuple[float, float, float]:
        right, up, away = projected(x, y, z, AZIMUTH, ELEVATION)
        return _WIDTH / 2 + _SCALE * right, _HEIGHT / 2 - _SCALE * up, away

    def line(points: list[tuple[float, float, float]], kind: str) -> str:
        return path("M" + "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in points), kind)

    floor = [seen(x, y, 0) for x, y in _CORNERS]
    parts = [line([*floor, floor[0]], "rule")]
    parts += [line([seen(x, y, 0), seen(x, y, 1)], "rule") for x, y in _CORNERS if seen(x, y, 0)[2] > seen(0, 0, 0)[2]]
    parts += [f'<path fill="{colour}" stroke="{colour}" stroke-width=".6" d="M{shape}z"/>'
              for _, colour, shape in sorted(_patches(data, seen), reverse=True)]  # fmt: skip
    marks = {name: [seen(*row[:3]) for row in rows if row[2] is not None] for name, rows in data["marks"].items()}
    if marks.get("path"):
        parts.append(line(marks["path"], "way"))
    dots = [(3, "step", at) for at in marks.get("path", [])] + [(5, "network", at) for at in marks["network"]]
    parts += [f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{r}"/>' for r, kind, (x, y, _) in dots]
    for x, y, words, anchor in _words(data, seen):
        parts.append(text(x, y, words, anchor))
    return Markup(chart("solid", _WIDTH, _HEIGHT, spoken, parts))  # noqa: S704 - numbers, and text that is escaped


def _patches(data: dict[str, Any], seen: _Seen) -> list[tuple[float, str, str]]:
    """Distance, colour and outline of every patch between four points that are finite."""
    z, columns, found = data["heights"][0]["z"], len(data["y"]), []
    for i in range(len(data["x"]) - 1):
        for j in range(columns - 1):
            around = [(i, j), (i + 1, j), (i + 1, j + 1), (i, j + 1)]
            places = [p * columns + q for p, q in around]
            if any(z[place] is None for place in places):
                continue
            corners = [seen(data["x"][p], data["y"][q], z[place]) for (p, q), place in zip(around, places, strict=True)]
            colour = data["colours"][math.floor(sum(data["colour"][place] for place in places) / 4 + 0.5)]
            away = seen((data["x"][i] + data["x"][i + 1]) / 2, (data["y"][j] + data["y"][j + 1]) / 2, 0)[2]
            found.append((round(away, 6), colour, "L".join(f"{x:.1f} {y:.1f}" for x, y, _ in corners)))
    return found


def _words(data: dict[str, Any], seen: _Seen) -> list[tuple[float, float, str, str]]:
    """The axes' numbers and names, at the edges of the floor that are nearest, and at the corner on the left."""
    found = []
    near_y = min((-1, 1), key=lambda side: seen(0, side, 0)[2])
    near_x = min((-1, 1), key=lambda side: seen(side, 0, 0)[2])
    for axis, side in enumerate((near_y, near_x)):

        def on(share: float, beyond: float, axis: int = axis, side: int = side) -> tuple[float, float, float]:
            return seen(share, side * beyond, 0) if axis == 0 else seen(side * beyond, share, 0)

        for place, words in data["ticks"][axis]:
            x, y, _ = on(place, 1.1)
            found.append((x, y + 5, words, "middle"))
        x, y, _ = on(0, 1.26)
        found.append((x, y + 8, data["names"][axis], "end" if x < _WIDTH / 2 else "start"))
    left, front = min(_CORNERS, key=lambda corner: seen(corner[0], corner[1], 0)[0])
    for place, words in data["heights"][0]["ticks"]:
        x, y, _ = seen(left, front, place)
        found.append((x - 8, y + 4, words, "end"))
    x, y, _ = seen(left, front, 1)
    found.append((x, y - 14, "mean loss", "middle"))
    return found
