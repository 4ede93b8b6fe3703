"""Figures of shortcut shares: bars for each method and network, and maps with the mask outlined."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from microtome.figures.attribution.attribution_figures import bare, heat, picture
from microtome.figures.legend_names import legend_name
from microtome.figures.limits import left_out, note, within

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from torch import Tensor

    from microtome.attribution import ShortcutShare
    from microtome.reproduce.spotting_bias import SpottingBias

COLOURS = ("#ee6677", "#4477aa", "#ccbb44", "#228833")
OUTLINE = "#00c8a0"
CELL, BARS = 1.05, 2.8  # inches: a picture, and the height of the bars


def shortcut_share(result: ShortcutShare, *, limit: int = 3) -> Figure:
    """Bars of the mean share by method and network; below, maps of the first pictures with the mask outlined.

    Parameters
    ----------
    result : ShortcutShare
        What to draw.
    limit : int
        Maximum number of methods whose maps are shown.
    """
    shown = _chosen(result, limit)
    figure, above, below = _panels(result, shown)
    _bars(above.subplots(), result)
    _maps(below, result, shown)
    return figure


def spotting_bias(result: SpottingBias, *, limit: int = 3) -> Figure:
    """Accuracy with the right tag, with none and with a wrong one, beside the shares; maps below.

    Parameters
    ----------
    result : SpottingBias
        What to draw.
    limit : int
        Maximum number of methods whose maps are shown.
    """
    shown = _chosen(result.shares, limit)
    figure, above, below = _panels(result.shares, shown)
    left, right = above.subplots(1, 2, width_ratios=(2, 5))
    tags = ("right tag", "no tag", "wrong tag")
    for place, name in enumerate(result.shares.networks):
        heights = [100 * result.accuracy[f"{name}: {tag}"] for tag in tags]
        at = np.arange(len(tags)) + 0.38 * (place - 0.5)
        drawn = left.bar(at, heights, 0.36, color=COLOURS[place], label=legend_name(name))
        left.bar_label(drawn, [f"{height:.0f}" for height in heights], fontsize=6)
    left.set_xticks(range(len(tags)), tags, fontsize=7)
    left.set_ylabel(f"accuracy on {result.counts['test']:,} test pictures (%)", fontsize=7)
    left.set_ylim(0, 110)
    _tidy(left)
    _bars(right, result.shares)
    _maps(below, result.shares, shown)
    return figure


def _chosen(result: ShortcutShare, limit: int) -> list[str]:
    """Grad-CAM and the methods whose share differs most between the networks."""
    spread = {
        name: max(result.mean(network, name) for network in result.networks)
        - min(result.mean(network, name) for network in result.networks)
        for name in result.methods
    }
    order = sorted(result.methods, key=lambda name: (name != "grad-cam", -spread[name]))
    return order[: within(limit, len(order))]


def _panels(result: ShortcutShare, shown: list[str]) -> tuple[Figure, Any, Any]:
    """A figure with room for bars above and maps below."""
    pictures, columns = len(result.images), 1 + len(shown) * len(result.networks)
    width = max(7.5, columns * CELL)
    low = pictures * width / columns + 0.4
    figure = Figure(figsize=(width, BARS + low), layout="constrained")
    parts: Any = figure.subfigures(2, 1, height_ratios=(BARS, low))
    return figure, parts[0], parts[1]


def _bars(axes: Axes, result: ShortcutShare) -> None:
    """Mean share with two standard errors; the line is the mask's share of the picture."""
    places = np.arange(len(result.methods))
    width = 0.8 / len(result.networks)
    for index, name in enumerate(result.networks):
        at = places + width * (index - (len(result.networks) - 1) / 2)
        means = [100 * result.mean(name, method) for method in result.methods]
        errors = [200 * result.error(name, method) for method in result.methods]
        axes.bar(at, means, 0.92 * width, yerr=errors, color=COLOURS[index % len(COLOURS)], label=legend_name(name),
                 error_kw={"linewidth": 0.8})  # fmt: skip
    area = 100 * float(result.area.mean())
    axes.axhline(area, color="black", linewidth=0.8, linestyle="--", label=f"a flat map ({area:.1f} %)")
    axes.set_xticks(places, result.methods, rotation=30, ha="right", fontsize=7)
    axes.set_ylabel("share of the map on the shortcut (%)", fontsize=7)
    axes.legend(fontsize=7, frameon=False, ncols=len(result.networks) + 1, loc="lower right", bbox_to_anchor=(1, 1))
    _tidy(axes)


def _maps(figure: Any, result: ShortcutShare, shown: list[str]) -> None:
    """One row for each picture: itself, then its maps network by network, the mask outlined."""
    pictures = len(result.images)
    columns = [(network, method) for network in result.networks for method in shown]
    axes = figure.subplots(pictures, 1 + len(columns), squeeze=False)
    for row in range(pictures):
        picture(axes[row, 0], result.images[row])
        outline(axes[row, 0], result.masks[row])
        for place, (network, method) in enumerate(columns, start=1):
            heat(axes[row, place], result.maps[f"{network}: {method}"][row])
            outline(axes[row, place], result.masks[row])
            if row == 0:
                colour = COLOURS[result.networks.index(network) % len(COLOURS)]
                axes[row, place].set_title(f"{network}\n{method}", fontsize=6.5, color=colour)
    examples = left_out(pictures, len(result.area), "images")
    note(figure, left_out(len(shown), len(result.methods), "methods"), examples, size=7)


def outline(axes: Axes, mask: Tensor) -> None:
    """The outline of a mask, along the edges of its pixels."""
    framed = np.pad(mask.detach().cpu().numpy().astype(bool), 1)
    rows, columns = np.nonzero(framed[1:, 1:-1] != framed[:-1, 1:-1])
    sides = [[(column - 0.5, row - 0.5), (column + 0.5, row - 0.5)] for row, column in zip(rows, columns, strict=True)]
    rows, columns = np.nonzero(framed[1:-1, 1:] != framed[1:-1, :-1])
    sides += [[(column - 0.5, row - 0.5), (column - 0.5, row + 0.5)] for row, column in zip(rows, columns, strict=True)]
    axes.add_collection(LineCollection(sides, colors=OUTLINE, linewidths=1.2, capstyle="projecting"))
    height, width = mask.shape
    axes.set_xlim(-0.6, width - 0.4)
    axes.set_ylim(height - 0.4, -0.6)
    bare(axes)


def _tidy(axes: Axes) -> None:
    axes.tick_params(axis="y", labelsize=7)
    axes.spines[["top", "right"]].set_visible(False)
