"""An interactive map of images: the plain data that its script reads."""

from __future__ import annotations

import base64
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from microtome.atlas.widgets.basics import Link, Made, Picture, Sprite, Widget

__all__ = ["MapCanvas", "packed", "quantised"]


@dataclass(frozen=True)
class MapCanvas(Widget):
    """Images as points with thumbnails, and the units that separate a selection of them from the rest.

    Attributes
    ----------
    data : dict
        The data of the script, see :func:`packed`.
    thumbnails : Sprite
        One cell for each point, in their order.
    links : dict of int to Link
        The pages of points that have one.
    units : dict of int to Picture
        A picture of each unit that ``data`` holds responses of.
    caption, made
        The caption, and how the map was made.
    """

    data: dict[str, Any]
    thumbnails: Sprite
    links: dict[int, Link]
    units: dict[int, Picture]
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "map_canvas.canvas"


def packed(
    points: ArrayLike,
    trust: ArrayLike,
    *,
    label: ArrayLike,
    predicted: ArrayLike,
    confidence: ArrayLike,
    names: list[str],
    classes: list[str],
    nearest: ArrayLike,
    responses: ArrayLike,
    units: list[int],
    quantity: str = "probability",
    total: int | None = None,
) -> dict[str, Any]:
    """The numbers of a map in few bytes: coordinates in 65,536 steps, shares and responses in 256, as base64.

    Parameters
    ----------
    points, trust
        (n, 2) coordinates, and (n,) the share of true neighbours that each image keeps.
    label, predicted, confidence
        (n,) class indices, -1 without one, and the ``quantity`` of the predicted class, from 0 to 1.
    names, classes
        Names of the images, and of the classes up to the last one that an image has or gets.
    nearest
        (n, k) the nearest images in the layer.
    responses
        (n, U) responses of some units, and the units' numbers.
    total
        Number of classes of the network; default those named.
    """
    place = np.asarray(points, dtype=np.float64)
    low, size = place.min(0), float(np.ptp(place, axis=0).max()) or 1.0
    spread = np.round((place - low) / size * 65535).astype("<u2")
    near = np.asarray(nearest)
    return {
        "count": len(place),
        "size": (np.ptp(place, axis=0) / size).round(6).tolist(),
        "x": _text(spread[:, 0]),
        "y": _text(spread[:, 1]),
        "trust": _text(quantised(np.asarray(trust), 0.0, 1.0)),
        "label": _text(np.asarray(label).astype("<i2")),
        "predicted": _text(np.asarray(predicted).astype("<i2")),
        "confidence": _text(quantised(np.asarray(confidence), 0.0, 1.0)),
        "names": names,
        "classes": classes,
        "total": len(classes) if total is None else total,
        "quantity": quantity,
        "near": int(near.shape[1]),
        "nearest": _text(near.astype("<u4")),
        "units": units,
        "responses": _text(_by_unit(np.asarray(responses, dtype=np.float64))),
    }


def quantised(values: NDArray[Any], low: float, high: float) -> NDArray[np.uint8]:
    """Values in 256 steps from ``low`` to ``high``.

    Examples
    --------
    >>> quantised(np.array([0.0, 0.5, 1.0]), 0.0, 1.0).tolist()
    [0, 128, 255]
    """
    span = high - low if high > low else 1.0
    found: NDArray[np.uint8] = np.round(np.clip((values - low) / span, 0, 1) * 255).astype(np.uint8)
    return found


def _by_unit(responses: NDArray[Any]) -> NDArray[np.uint8]:
    """Each unit's responses from its least to its largest."""
    columns = [quantised(column, float(column.min()), float(column.max())) for column in responses.T]
    return np.stack(columns, 1) if columns else np.zeros((len(responses), 0), dtype=np.uint8)


def _text(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).tobytes()).decode()
