"""A rotatable loss surface: the plain data for its script and its still picture."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.atlas.widgets.basics import Made, Widget
from microtome.atlas.widgets.tick_marks import decades, ticks

__all__ = ["SurfaceCanvas", "solid"]

COLOURS = 64  # steps of the colour scale


@dataclass(frozen=True)
class SurfaceCanvas(Widget):
    """A surface over a plane, rotatable on a canvas; without scripts, a still picture.

    Attributes
    ----------
    data : dict
        The data of the drawing, see :func:`solid`.
    spoken : str
        A description for screen readers.
    caption, made
        The caption, and how the surface was made.
    """

    data: dict[str, Any]
    spoken: str
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "surface_canvas.canvas"


def solid(
    alpha: ArrayLike,
    beta: ArrayLike,
    loss: ArrayLike,
    error: ArrayLike,
    *,
    names: tuple[str, str] = ("alpha", "beta"),
    path: ArrayLike | None = None,
) -> dict[str, Any]:
    """A surface in a box: both axes from -1 to 1, heights from 0 to 1, colours by index.

    If all finite losses are positive there are two heights, the logarithm of the loss and the loss, and colours
    follow the logarithm. Points whose loss is not finite have no height; faces at such points are left out.

    Parameters
    ----------
    alpha, beta
        (A,) and (B,) coordinates in ascending order.
    loss, error
        (A, B) losses and their standard errors.
    names
        Names of the axes.
    path
        (T, 2) coordinates of a training's stored weights.
    """
    a, b = np.asarray(alpha, dtype=np.float64), np.asarray(beta, dtype=np.float64)
    values = np.asarray(loss, dtype=np.float64)
    known = np.isfinite(values)
    heights = [_height("log", values, known)] if known.any() and (values[known] > 0).all() else []
    heights.append(_height("linear", values, known))
    found: dict[str, Any] = {
        "x": _rounded(_box(a, a), 5),
        "y": _rounded(_box(b, b), 5),
        "names": list(names),
        "ticks": [[[round(float(_box(axis, tick)), 5), f"{tick:g}"] for tick in ticks(axis[0], axis[-1])]
                  for axis in (a, b)],
        "at": [_rounded(a, 6), _rounded(b, 6)],
        "loss": [float(f"{v:.5g}") if math.isfinite(v) else None for v in values.ravel()],
        "error": [float(f"{v:.2g}") if math.isfinite(v) else None for v in np.asarray(error).ravel().tolist()],
        "colour": [None if s is None else round(s * (COLOURS - 1)) for s in heights[0]["z"]],
        "colours": _colours(),
        "heights": heights,
        "marks": {"network": _on(a, b, heights, np.zeros((1, 2)))},
    }  # fmt: skip
    if path is not None:
        found["marks"]["path"] = _on(a, b, heights, np.asarray(path, dtype=np.float64))
    return found


def _height(name: str, values: NDArray[Any], known: NDArray[Any]) -> dict[str, Any]:
    """Shares of the range, and round losses with their heights."""
    if not known.any():
        return {"name": name, "z": [None] * values.size, "ticks": []}
    low, high = float(values[known].min()), float(values[known].max())
    scale = math.log10 if name == "log" else float
    bottom, span = scale(low), (scale(high) - scale(low)) or 1.0
    marks = decades(low, high) if name == "log" else ticks(low, high)
    return {
        "name": name,
        "z": [round((scale(v) - bottom) / span, 4) if math.isfinite(v) else None for v in values.ravel().tolist()],
        "ticks": [[round((scale(v) - bottom) / span, 4), f"{v:g}"] for v in marks],
    }


def _on(
    a: NDArray[Any], b: NDArray[Any], heights: list[dict[str, Any]], points: NDArray[Any]
) -> list[list[float | None]]:  # fmt: skip
    """Positions in the box, and a height of each kind, interpolated between four points."""
    found: list[list[float | None]] = []
    for at, bt in points.tolist():
        row: list[float | None] = [round(float(_box(a, at)), 5), round(float(_box(b, bt)), 5)]
        i = int(np.clip(np.searchsorted(a, at, side="right") - 1, 0, len(a) - 2))
        j = int(np.clip(np.searchsorted(b, bt, side="right") - 1, 0, len(b) - 2))
        s, t = (at - a[i]) / (a[i + 1] - a[i]), (bt - b[j]) / (b[j + 1] - b[j])
        for height in heights:
            corners = [height["z"][(i + p) * len(b) + j + q] for p in (0, 1) for q in (0, 1)]
            weights = [(1 - s) * (1 - t), (1 - s) * t, s * (1 - t), s * t]
            used = [(z, w) for z, w in zip(corners, weights, strict=True) if w]
            lost = any(z is None for z, _ in used)
            row.append(None if lost else round(float(sum(z * w for z, w in used)), 4))
        found.append(row)
    return found


def _box(axis: NDArray[Any], values: Any) -> Any:
    return 2 * (values - axis[0]) / (axis[-1] - axis[0]) - 1


def _rounded(values: NDArray[Any], digits: int) -> list[float]:
    return [round(float(value), digits) + 0.0 for value in values]


def _colours() -> list[str]:
    from matplotlib import colormaps
    from matplotlib.colors import to_hex

    return [to_hex(colormaps["viridis"](place / (COLOURS - 1))) for place in range(COLOURS)]
