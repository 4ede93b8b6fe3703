"""Figures of information planes with their ceiling and bands, and of the phases of the gradients."""

from __future__ import annotations

import math
import textwrap
from typing import TYPE_CHECKING

import matplotlib as mpl
import numpy as np
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure

from microtome.figures.legend_names import legend_name

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from microtome.training.information import GradientPhases, InformationPlane, NetworkRuns, PlaneComparison

MARKS = "osD^vP*X<>hd"
BAND = (0.1, 0.9)  # quantiles over the networks
COLOURS = "viridis"


def information_plane(result: InformationPlane, *, band: bool = True) -> Figure:
    """Each layer's path in the plane, coloured by epoch; beside it I(X;T) by epoch with its band over networks.

    The dashed line is the ceiling log2 N, the dotted one H(Y). Layers whose estimator is not admitted have hollow
    marks; the reason is written below.

    Parameters
    ----------
    result : InformationPlane
        What to draw.
    band : bool
        Whether to draw the band from the 10th to the 90th percentile of the networks, and the estimator's bounds.
    """
    refused = [at for at in range(len(result.layers)) if not bool(result.admitted[at])]
    lines = _reasons(result, refused)
    low = 0.25 + 0.155 * len(lines)
    top = low + 0.18 * math.ceil(len(result.layers) / 3)  # of the legend
    figure = Figure(figsize=(10.5, 4.2 + top))
    height = figure.get_figheight()
    bottom = (top + 0.5) / height
    axes = figure.add_axes((0.06, bottom, 0.43, (height - top - 0.9) / height))
    colour = figure.add_axes((0.5, bottom, 0.012, (height - top - 0.9) / height))
    curves = figure.add_axes((0.61, bottom, 0.37, (height - top - 0.9) / height))
    _paths(axes, result)
    scale = mpl.cm.ScalarMappable(_norm(result), COLOURS)
    figure.colorbar(scale, cax=colour).ax.tick_params(labelsize=7)
    colour.set_title("epoch", fontsize=8)
    _legend(figure, axes, (0.06, (low + 0.02) / height))
    axes.set_title(_title(result), fontsize=9, loc="left")
    _curves(curves, result, band=band)
    for place, line in enumerate(lines):
        figure.text(0.02, (low - 0.12 - 0.155 * place) / height, line, fontsize=7, va="top")
    return figure


def comparison(result: PlaneComparison) -> Figure:
    """One plane for each run, on equal axes, with its final generalisation error in the title."""
    planes = list(result.planes.items())
    columns = min(len(planes), 4)
    rows = math.ceil(len(planes) / columns)
    figure = Figure(figsize=(3.4 * columns + 0.4, 3.3 * rows + 0.3), layout="constrained")
    grid = figure.subplots(rows, columns, squeeze=False, sharex=True, sharey=True).flat
    for axes, (name, one) in zip(grid, planes, strict=False):
        _paths(axes, one)
        error = float(one.gap[-1])
        known = "" if math.isnan(error) else f"\ngeneralisation error {100 * error:.1f} %"
        axes.set_title(f"{name}{known}", fontsize=9, loc="left")
        axes.legend(fontsize=6, frameon=False, ncols=2, loc="upper left", bbox_to_anchor=(0, -0.22))
    for axes in list(grid)[len(planes) :]:
        axes.set_axis_off()
    figure.supxlabel("hollow: the estimator does not recover planted information for this layer", fontsize=7)
    return figure


def gradient_phases(result: GradientPhases) -> Figure:
    """Norm of the mean and of the standard deviation of each layer's gradients; a dotted line where they cross."""
    figure = Figure(figsize=(6.4, 4.2), layout="constrained")
    axes = figure.subplots()
    for at, name in enumerate(result.layers):
        colour = f"C{at % 10}"
        crossing = float(result.crossing[at])
        where = "no crossing" if math.isnan(crossing) else f"crossing at {crossing:.0f}"
        axes.plot(result.epochs, result.mean[:, at], color=colour, label=legend_name(f"{name}, {where}"))
        axes.plot(result.epochs, result.std[:, at], color=colour, linestyle="--")
        if not math.isnan(crossing):
            axes.axvline(crossing, color=colour, linestyle=":", linewidth=0.7)
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("epoch")
    axes.set_ylabel("norm of the gradients / norm of the weights")
    axes.set_title("solid: mean over the steps of an epoch; dashed: standard deviation", fontsize=9, loc="left")
    axes.legend(fontsize=7, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def networks(result: NetworkRuns) -> Figure:
    """Share of wrong answers on the training patterns and on the rest, mean and band over the networks."""
    figure = Figure(figsize=(5.6, 3.6), layout="constrained")
    axes = figure.subplots()
    epochs = result.epochs.numpy() + 1
    for name, values in (("trained on", result.error), ("the rest", result.test_error)):
        (line,) = axes.plot(epochs, values.mean(1), label=name)
        low, high = np.quantile(values.numpy(), BAND, axis=1)
        axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
    axes.set_xscale("log")
    axes.set_xlabel("epoch + 1")
    axes.set_ylabel("share of wrong answers")
    axes.legend(fontsize=8, frameon=False)
    return figure


def _paths(axes: Axes, result: InformationPlane) -> None:
    epochs = _norm(result)(result.epochs.numpy() + 1)
    colours = mpl.colormaps[COLOURS](epochs)
    labelled: list[np.ndarray] = []
    for at, name in enumerate(result.layers):
        x, y = result.i_xt[:, at].numpy(), result.i_ty[:, at].numpy()
        axes.plot(x, y, color="0.8", linewidth=0.6, zorder=1)
        mark = MARKS[at % len(MARKS)]
        good = bool(result.admitted[at])
        axes.scatter(
            x, y, s=16, marker=mark, c=colours if good else "none", edgecolors=colours, linewidths=0.8, zorder=2
        )
        label = f"{name} ({result.widths[at]})" + ("" if good else ", not admitted")
        axes.scatter([], [], s=16, marker=mark, c="0.3" if good else "none", edgecolors="0.3", label=label)
        end = np.array([x[-1] / result.ceiling, y[-1] / result.label_entropy])
        if all(np.abs(end - other).max() > 0.06 for other in labelled):  # the names would overlap
            axes.annotate(name, (x[-1], y[-1]), (3, 4), textcoords="offset points", fontsize=6)
            labelled.append(end)
    axes.axvline(result.ceiling, color="tab:red", linestyle="--", linewidth=0.8)
    axes.text(result.ceiling, 0.02, f"ceiling log2 {result.samples}", transform=axes.get_xaxis_transform(),
              rotation=90, fontsize=6, ha="right", va="bottom", color="tab:red")  # fmt: skip
    axes.axhline(result.label_entropy, color="0.4", linestyle=":", linewidth=0.8)
    axes.set_xlim(-0.03 * result.ceiling, 1.04 * result.ceiling)
    axes.set_ylim(-0.03 * result.label_entropy, 1.09 * result.label_entropy)
    axes.set_xlabel("I(X;T), bits")
    axes.set_ylabel("I(T;Y), bits; dotted H(Y)")
    axes.spines[["top", "right"]].set_visible(False)


def _curves(axes: Axes, result: InformationPlane, *, band: bool) -> None:
    epochs = result.epochs.numpy() + 1
    for at, name in enumerate(result.layers):
        values = result.i_xt_networks[:, at].numpy()
        style = "-" if bool(result.admitted[at]) else "--"
        (line,) = axes.plot(epochs, values.mean(1), style, label=legend_name(name), linewidth=1.2)
        if band:
            low, high = np.quantile(values, BAND, axis=1)
            axes.fill_between(epochs, low, high, color=line.get_color(), alpha=0.2, linewidth=0)
            axes.plot(epochs, result.i_xt_low[:, at], color=line.get_color(), linewidth=0.5)
    axes.axhline(result.ceiling, color="tab:red", linestyle="--", linewidth=0.8)
    axes.set_xscale("log")
    axes.set_ylim(0, 1.04 * result.ceiling)
    axes.set_xlabel("epoch + 1")
    axes.set_ylabel("I(X;T), bits")
    bounds = "; thin: lower bound" if bool((result.i_xt_low < result.i_xt_high).any()) else ""
    many = result.i_xt_networks.shape[2]
    caption = f"band: 10 to 90 % of {many} networks" if many > 1 else "one network"
    axes.set_title(f"{caption}{bounds}", fontsize=9, loc="left")
    axes.legend(fontsize=7, frameon=False, loc="upper left", bbox_to_anchor=(0, -0.14), ncols=3)
    axes.spines[["top", "right"]].set_visible(False)


def _legend(figure: Figure, axes: Axes, place: tuple[float, float]) -> None:
    handles, names = axes.get_legend_handles_labels()
    figure.legend(handles, names, fontsize=7, frameon=False, loc="lower left", ncols=3, bbox_to_anchor=place,
                  borderaxespad=0, borderpad=0)  # fmt: skip


def _norm(result: InformationPlane) -> LogNorm:
    return LogNorm(1, max(2, int(result.epochs.max()) + 1))


def _title(result: InformationPlane) -> str:
    means = list(dict.fromkeys(result.estimators))
    return means[0] if len(means) == 1 else "bins over each layer's own range"


def _reasons(result: InformationPlane, refused: list[int]) -> list[str]:
    worst = max([*result.rise_xt.tolist(), 0.0]), max([*result.rise_ty.tolist(), 0.0])
    held = "holds" if result.consistent else "does not hold"
    text = (
        f"Data-processing inequality {held} to {result.tolerance:g} bit: the next layer has at most {worst[0]:.3f} bit "
        f"more of I(X;T), {worst[1]:.3f} bit more of I(T;Y)."
    )
    found = textwrap.wrap(text, 150)
    for at in refused:
        found += textwrap.wrap(f"{result.layers[at]} is hollow: {result.reasons[at]}.", 150)
    return found
