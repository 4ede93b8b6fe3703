"""Figures of filters: pictures with Gabor fits for a first layer, a grid of outputs by inputs for deeper layers."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from microtome.figures.attribution.attribution_figures import SIGNED
from microtome.figures.limits import left_out, within

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from microtome.units.wiring.filters import Filters
    from microtome.units.wiring.natural_filters import NaturalFilters

CELL = 0.95  # inches
CLEAR = 0.7  # smallest goodness of a fit whose orientation is drawn


def filters(result: Filters, *, shared: bool = True, outputs: int = 64, inputs: int = 32) -> Figure:
    """Draw the filters of a layer.

    Filters of a layer that reads an image of one or three channels are gray or RGB pictures. Zero is
    mid-gray; the text below each picture is the Gabor fit, and a line marks its orientation. Other layers
    are a grid with a row per output channel and a column per input channel, in blue, white (zero) and red.

    Parameters
    ----------
    result : Filters
        The filters.
    shared : bool
        Whether all output channels have one symmetric scale; otherwise each has its own.
    outputs, inputs : int
        Largest number of channels.
    """
    weights = result.weights[: within(outputs, len(result.weights))]
    read = within(inputs, weights.shape[1])
    tops = weights.abs().flatten(1).amax(1).clamp(min=1e-12)
    if shared:
        tops = tops.amax().expand_as(tops)
    scale = f"{'one scale' if shared else 'a scale for each output'}, at most ±{float(tops.max()):.2g}"
    if result.first and weights.shape[1] in (1, 3):
        figure, read = _pictures(result, weights, tops), weights.shape[1]
    else:
        figure = _grid(result, weights[:, :read], tops)
    subset = left_out(len(weights), len(result.weights), "outputs"), left_out(read, result.weights.shape[1], "inputs")
    figure.text(0.5, 0.004, "; ".join(filter(None, (result.layer, *subset, scale))), ha="center", fontsize=7)
    return figure


def natural_filters(result: NaturalFilters, *, limit: int = 32) -> Figure:
    """Each filter above its matched independent component, the most similar pairs first.

    Parameters
    ----------
    result : NaturalFilters
        What to draw.
    limit : int
        Maximum number of filters drawn.
    """
    weights = result.filters.weights
    order = sorted(range(len(weights)), key=lambda unit: -float(result.similarity[unit].nan_to_num(-1.0)))
    shown = order[: within(limit, len(order))]
    columns = min(8, len(shown))
    rows = math.ceil(len(shown) / columns)
    height = rows * 2 * (CELL + 0.32) + 0.35
    figure = Figure(figsize=(columns * CELL + 0.1, height))
    grid = figure.subplots(2 * rows, columns, squeeze=False)
    figure.subplots_adjust(0.01, 0.4 / height, 0.99, 0.99, 0.12, 0.38)
    for axes in grid.flat:
        axes.set_axis_off()
    for number, unit in enumerate(shown):
        row, column = divmod(number, columns)
        above, below = grid[2 * row, column], grid[2 * row + 1, column]
        _gray_or_rgb(above, weights[unit], float(weights[unit].abs().max().clamp(min=1e-12)))
        above.set_xlabel(_fit(result.filters, unit), fontsize=6, labelpad=2)
        place = int(result.partner[unit])
        if place < 0:
            continue
        component = result.components[place] * result.sign[unit]
        _gray_or_rgb(below, component, float(component.abs().max().clamp(min=1e-12)))
        below.set_xlabel(f"ICA, alike {float(result.similarity[unit]):.2f}", fontsize=6, labelpad=2)
    mean = float(result.similarity.nanmean())
    text = (
        f"{result.filters.layer}: mean likeness {mean:.2f}; random filters {result.chance:.2f} ± "
        f"{result.chance_spread:.2f}; {result.patches:,} patches, a scale for each picture"
    )
    subset = left_out(len(shown), len(order), "filters")
    figure.text(0.5, 0.03 / height, "; ".join(filter(None, (text, subset))), ha="center", fontsize=7)
    return figure


def _gray_or_rgb(axes: Axes, kernel: Tensor, top: float) -> None:
    """A filter as a picture: gray or RGB, else the mean over its channels."""
    axes.set_axis_on()
    _picture(axes, kernel if len(kernel) in (1, 3) else kernel.mean(0, keepdim=True), top)


def _pictures(result: Filters, weights: Tensor, tops: Tensor) -> Figure:
    columns = min(8, len(weights))
    rows = math.ceil(len(weights) / columns)
    fitted = bool((~result.goodness.isnan()).any())
    height = CELL + (0.34 if fitted else 0.18)
    figure = Figure(figsize=(columns * CELL + 0.1, rows * height + 0.2))
    grid = figure.subplots(rows, columns, squeeze=False)
    figure.subplots_adjust(0.01, 0.25 / (rows * height + 0.2), 0.99, 0.99, 0.12, 0.4 if fitted else 0.2)
    for axes in grid.flat[len(weights) :]:
        axes.set_axis_off()
    for unit, axes in enumerate(grid.flat[: len(weights)]):
        _picture(axes, weights[unit], float(tops[unit]))
        axes.set_xlabel(_fit(result, unit), fontsize=6, labelpad=2)
        if fitted and float(result.goodness[unit]) > CLEAR:
            _stripe(axes, float(result.orientation[unit]), weights.shape[2:])
    return figure


def _picture(axes: Axes, kernel: Tensor, top: float) -> None:
    array = (0.5 + 0.5 * kernel / top).clamp(0, 1).numpy()
    if len(array) == 3:
        axes.imshow(array.transpose(1, 2, 0), interpolation="nearest")
    else:
        axes.imshow(array[0], cmap="gray", vmin=0, vmax=1, interpolation="nearest")
    _bare(axes)


def _fit(result: Filters, unit: int) -> str:
    goodness = float(result.goodness[unit])
    if math.isnan(goodness) or math.isnan(float(result.orientation[unit])):
        return f"{unit}"
    orientation, frequency = float(result.orientation[unit]), float(result.frequency[unit])
    return f"{unit}: {orientation:.0f}°, {frequency:.2f}/px\nfit {100 * goodness:.0f} %"


def _stripe(axes: Axes, orientation: float, size: tuple[int, ...]) -> None:
    """A line through the middle along the stripes."""
    length, angle = 0.45 * min(size), math.radians(orientation)
    x, y = (size[1] - 1) / 2, (size[0] - 1) / 2
    step = length * np.array([math.cos(angle), -math.sin(angle)])  # rows go down
    axes.plot([x - step[0], x + step[0]], [y - step[1], y + step[1]], color="tab:orange", linewidth=0.9)


def _grid(result: Filters, weights: Tensor, tops: Tensor) -> Figure:
    """All kernels in one image with white lines between them, which is fast for thousands of kernels."""
    outputs, inputs, height, width = weights.shape
    mosaic = np.full((outputs * (height + 1) - 1, inputs * (width + 1) - 1), np.nan)
    for unit in range(outputs):
        for channel in range(inputs):
            rows = slice(unit * (height + 1), unit * (height + 1) + height)
            columns = slice(channel * (width + 1), channel * (width + 1) + width)
            mosaic[rows, columns] = (weights[unit, channel] / tops[unit]).numpy()
    cell = min(0.34, 16 / max(inputs, outputs))
    figure = Figure(figsize=(max(2.4, inputs * cell + 0.7), outputs * cell * height / width + 0.9))
    axes = figure.add_axes((0.55 / figure.get_figwidth(), 0.55 / figure.get_figheight(), 0.0, 0.0))
    inner = (1 - 0.65 / figure.get_figwidth(), 1 - 0.7 / figure.get_figheight())
    axes.set_position((0.55 / figure.get_figwidth(), 0.6 / figure.get_figheight(), *inner))
    axes.imshow(mosaic, cmap=SIGNED, vmin=-1, vmax=1, interpolation="nearest", aspect="equal")
    _bare(axes)
    _ticks(axes, inputs, outputs, width, height)
    axes.set_xlabel("input channel" + (" of the group" if result.groups > 1 else ""), fontsize=8)
    axes.set_ylabel("output channel", fontsize=8)
    return figure


def _ticks(axes: Axes, inputs: int, outputs: int, width: int, height: int) -> None:
    for count, size, setter in ((inputs, width, axes.set_xticks), (outputs, height, axes.set_yticks)):
        step = max(1, count // 16)
        places = range(0, count, step)
        setter([place * (size + 1) + (size - 1) / 2 for place in places], [str(place) for place in places], fontsize=6)
    axes.tick_params(length=0, pad=1)


def _bare(axes: Axes) -> None:
    axes.set_xticks([])
    axes.set_yticks([])
    for spine in axes.spines.values():
        spine.set_visible(False)
