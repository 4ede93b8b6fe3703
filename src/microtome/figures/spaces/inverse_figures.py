"""Figures of layerwise inverses and of which layers can be inverted."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from microtome.figures.limits import left_out, note, within
from microtome.figures.spaces.space_figures import photo

if TYPE_CHECKING:
    from microtome.spaces.inversion.layerwise_inverse import Invertibility, NetworkInverse

_COLUMNS = 8
_COLOURS = {"exact": "#228833", "in part": "#ccbb44", "not": "#cc3311"}


def invertibility(result: Invertibility) -> Figure:
    """One line per layer: whether it is invertible exactly, in its row space only, or not, and why."""
    count = len(result.layers)
    figure = Figure(figsize=(8.6, 0.6 + 0.3 * count), layout="constrained")
    axis = figure.subplots()
    for place, layer in enumerate(result.layers):
        how = "exact" if layer["exact"] else "in part" if layer["invertible"] else "not"
        number = layer["condition_number"]
        words = [layer["kind"], "" if number is None else f"condition number {number:.4g}", layer["why"]]
        axis.plot(0, place, "s", color=_COLOURS[how], ms=9)
        axis.text(0.15, place, f"{how}:  " + ", ".join(filter(None, words)), va="center", fontsize=8)
    axis.set(xlim=(-0.1, 6), ylim=(count - 0.5, -0.5), xticks=[])
    axis.set_yticks(range(count), [layer["name"] for layer in result.layers], fontsize=8)
    axis.spines[:].set_visible(False)
    axis.tick_params(length=0)
    return figure


def network_inverse(result: NetworkInverse, *, limit: int = 24) -> Figure:
    """Each reconstructed image, clipped to [0, 1], or an empty frame if no image has the output.

    Parameters
    ----------
    result : NetworkInverse
        What to draw.
    limit : int
        Maximum number of images drawn.
    """
    count = within(limit, len(result.images))
    columns = min(_COLUMNS, count)
    rows = math.ceil(count / columns)
    figure = Figure(figsize=(max(1.5 * columns, 4.2), 1.75 * rows + 0.4), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).flat
    for place, axis in enumerate(axes):
        axis.set_xticks([])
        axis.set_yticks([])
        axis.set_box_aspect(result.images.shape[2] / result.images.shape[3])
        if place >= count:
            axis.set_axis_off()
        elif bool(result.valid[place]):
            photo(axis, result.images[place])
            axis.set_title(f"error {float(result.error[place]):.0e}", fontsize=8)
        else:
            axis.set_title("out of range", fontsize=8)
    shown = left_out(count, len(result.images), "images")
    note(figure, "Distance of the outputs to the given ones, relative to their length", shown)
    return figure
