"""How are images drawn that were found from outputs? Side by side, with how well each gives its output."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from microtome.figures.spaces import photo

if TYPE_CHECKING:
    from microtome.spaces.inverse import NetworkInverse

_COLUMNS = 8


def network_inverse(result: NetworkInverse, *, most: int = 24) -> Figure:
    """Each image found, values outside [0, 1] cut off, or an empty frame where no image has the output.

    Parameters
    ----------
    result : NetworkInverse
        What to draw.
    most : int
        At most so many images.
    """
    count = min(most, len(result.images))
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
    shown = "" if count == len(result.images) else f"; {count} of {len(result.images)} images"
    figure.supxlabel(f"Distance of the outputs to those given, of their length{shown}.", fontsize=8)
    return figure
