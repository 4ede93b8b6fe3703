"""Figures of tuning: the response of each unit by angle, position, width and phase; examples of stimuli."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

import numpy as np
from matplotlib.figure import Figure

from microtome.errors import InputError
from microtome.figures.attribution.attribution_figures import picture
from microtome.figures.limits import left_out, within

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.projections.polar import PolarAxes

    from microtome.units.stimulus_tuning.classify import Curve
    from microtome.units.stimulus_tuning.stimuli import Stimuli
    from microtome.units.stimulus_tuning.tuning_curves import Tuning

ROW, MARGIN = 1.45, 0.62  # inches
COLOURS = {("line", 1.0): "tab:red", ("line", -1.0): "tab:blue", ("edge", 1.0): "0.25"}
NAMES = {("line", 1.0): "bright lines", ("line", -1.0): "dark lines", ("edge", 1.0): "edges, by their side"}
BEYOND = (("offset", "position, px"), ("width", "width, px"), ("phase", "phase of gratings, degrees"))


def tuning(result: Tuning, *, units: Sequence[int] | None = None, limit: int = 8) -> Figure:
    """One row per unit: label, response by angle (polar, as in the image), by position, by width, by phase.

    The curve of lines appears at both ends of their orientation, that of edges in the direction from bright
    to dark. All axes of a row have the same scale of responses. Curves over position and phase use the
    response at the middle position; curves over angle and width use the largest response over positions.

    Parameters
    ----------
    result : Tuning
        The tuning.
    units : sequence of int, optional
        Indices of the units; default the first units.
    limit : int
        Largest number of units where ``units`` is not given.
    """
    count = len(result.labels)
    indices = list(range(within(limit, count)) if units is None else units)
    if not indices:
        raise InputError("there is no unit to draw; pass at least one.")
    for unit in indices:
        result.label(unit)  # raises InputError if there is no such unit
    figure = Figure(figsize=(8.2, ROW * len(indices) + MARGIN))
    for row, unit in enumerate(indices):
        _row(figure, result, unit, row, len(indices))
    _legend(figure, result, left_out(len(indices), count, "units") if units is None else "")
    return figure


def stimuli(result: Stimuli, *, limit: int = 12) -> Figure:
    """Examples of every family, equally spaced over its parameters.

    Parameters
    ----------
    result : Stimuli
        The stimuli.
    limit : int
        Largest number of examples per family.
    """
    families = list(dict.fromkeys(result.family))
    each = within(limit, max(result.family.count(family) for family in families))
    figure = Figure(figsize=(each * 0.7 + 0.8, len(families) * 0.72 + 0.1))
    grid = figure.subplots(len(families), each, squeeze=False)
    figure.subplots_adjust(0.09, 0.01, 0.995, 0.99, 0.06, 0.06)
    for row, family in enumerate(families):
        members = [index for index, name in enumerate(result.family) if name == family]
        count = len(members)
        examples = [members[index * count // each] for index in range(each)] if count >= each else members
        for axes in grid[row]:
            axes.set_axis_off()
        for axes, index in zip(grid[row], examples, strict=False):
            axes.set_axis_on()
            picture(axes, result.images[index])
        words = "\n".join(filter(None, (family, left_out(len(examples), count, ""))))
        figure.text(0.005, 1 - (row + 0.5) / len(families), words, fontsize=7, va="center")
    return figure


def _row(figure: Figure, result: Tuning, unit: int, row: int, rows: int) -> None:
    height = ROW * rows + MARGIN
    low = (height - 0.12 - (row + 1) * ROW) / height
    tall = ROW / height
    label = textwrap.fill(result.labels[unit], 20)
    also = f"\nalso {textwrap.fill(result.secondary[unit], 20)}" if result.secondary[unit] else ""
    confidence = f"\nconfidence {float(result.confidence[unit]):.2f}"
    figure.text(0.01, low + tall / 2, f"unit {unit}\n{label}{also}{confidence}", fontsize=8, va="center")
    top = max(float(result.response[unit].max()), 1e-12)
    polar = cast("PolarAxes", figure.add_axes((0.19, low + 0.08 * tall, 0.2, 0.84 * tall), projection="polar"))
    _polar(polar, _angular(result, unit), top)
    for column, (parameter, name) in enumerate(BEYOND):
        axes = figure.add_axes((0.45 + 0.19 * column, low + 0.26 * tall, 0.15, 0.62 * tall))
        _curve(axes, result, unit, parameter, top)
        if row == rows - 1:
            axes.set_xlabel(name, fontsize=7)


def _angular(result: Tuning, unit: int) -> dict[tuple[str, float], Curve]:
    """The curve with the largest modulation, for edges and for lines of each polarity."""
    curves: dict[tuple[str, float], Curve] = {}
    for curve in result.curves(unit):
        key = (curve.family, curve.polarity)
        if key in COLOURS and (key not in curves or _modulation(curve) > _modulation(curves[key])):
            curves[key] = curve
    return curves


def _modulation(curve: Curve) -> float:
    return float(curve.values.max() - curve.values.min())


def _polar(axes: PolarAxes, curves: dict[tuple[str, float], Curve], top: float) -> None:
    for key, curve in curves.items():
        angles, values = curve.angles.numpy(), curve.values[0].numpy()
        if curve.period == 180:
            angles, values = np.concatenate([angles, angles + 180]), np.concatenate([values, values])
        closed = np.append(angles, angles[0] + 360), np.append(values, values[0])
        axes.plot(np.radians(closed[0]), closed[1], color=COLOURS[key], linewidth=1.1)
    axes.set_ylim(0, top * 1.05)
    axes.set_yticks([top])
    axes.set_yticklabels([f"{top:.2g}"], fontsize=5)
    axes.set_xticks(np.radians([0, 45, 90, 135, 180, 225, 270, 315]))
    axes.set_xticklabels(["0°", "45°", "90°", "135°", "", "", "", ""], fontsize=6)
    axes.tick_params(pad=-3)
    axes.grid(linewidth=0.4)


def _curve(axes: Axes, result: Tuning, unit: int, parameter: str, top: float) -> None:
    """Response by one parameter, for the families that have it."""
    families = {"offset": ("line", "edge"), "width": ("line", "blob"), "phase": ("grating",)}[parameter]
    styles = ("-", "--")
    has_curve = False
    for family, style in zip(families, styles, strict=False):
        try:
            axis, values = result.along(unit, parameter, family, centre=parameter != "width")
        except InputError:  # there are no stimuli of this family
            continue
        axes.plot(axis.numpy(), values.numpy(), style, color="0.25", marker="o", markersize=2.5, label=family)
        has_curve = True
    axes.set_ylim(min(0.0, float(result.centre[unit].min())), top * 1.05)
    axes.tick_params(labelsize=6, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    if has_curve and len(families) > 1:
        axes.legend(fontsize=5, frameon=False, loc="lower right", handlelength=1.5)
    if not has_curve:
        axes.text(0.5, 0.5, "no stimuli", ha="center", va="center", fontsize=7, transform=axes.transAxes)
        axes.set_yticks([])


def _legend(figure: Figure, result: Tuning, subset: str) -> None:
    from matplotlib.lines import Line2D

    keys = [key for key in COLOURS if key[0] in result.family]
    handles = [Line2D([], [], color=COLOURS[key], label=NAMES[key]) for key in keys]
    figure.legend(handles=handles, fontsize=7, ncols=3, frameon=False, loc="lower left", bbox_to_anchor=(0.01, 0.0))
    words = "; ".join(filter(None, (f"response minus response to a blank of equal level, {result.layer}", subset)))
    figure.text(0.5, 0.08 / figure.get_figheight(), words, fontsize=7)
