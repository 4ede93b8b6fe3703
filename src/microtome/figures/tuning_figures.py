"""How is tuning drawn? For each unit the response by angle as one sees it, by position, by width and by phase."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.figure import Figure

from microtome.errors import InputError
from microtome.figures.attribution_figures import picture

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
    """One row per unit: label, response by angle (polar, as one sees it), by position, by width, by phase.

    Lines are drawn at both ends of their orientation; an edge in the direction from bright to dark.
    All axes of a row share the scale of responses. Position and phase are those of the unit in the
    middle, whose best place they tell; angle and width take the largest response over positions.

    Parameters
    ----------
    result : Tuning
        What to draw.
    units : sequence of int, optional
        Which units; default the first ones.
    limit : int
        How many are drawn at most.
    """
    chosen = list(range(len(result.labels)) if units is None else units)[:limit]
    if not chosen:
        raise InputError("no unit is left to draw; give at least one.")
    for unit in chosen:
        result.label(unit)  # an InputError where there is no such unit
    figure = Figure(figsize=(8.2, ROW * len(chosen) + MARGIN))
    for row, unit in enumerate(chosen):
        _row(figure, result, unit, row, len(chosen))
    _legend(figure, result)
    return figure


def stimuli(result: Stimuli, *, each: int = 12) -> Figure:
    """Examples of every family, evenly spread over its parameters.

    Parameters
    ----------
    result : Stimuli
        What to draw.
    each : int
        How many of a family.
    """
    families = list(dict.fromkeys(result.family))
    figure = Figure(figsize=(each * 0.7 + 0.8, len(families) * 0.72 + 0.1))
    grid = figure.subplots(len(families), each, squeeze=False)
    figure.subplots_adjust(0.09, 0.01, 0.995, 0.99, 0.06, 0.06)
    for row, family in enumerate(families):
        mine = [index for index, name in enumerate(result.family) if name == family]
        spread = [mine[index * len(mine) // each] for index in range(each)] if len(mine) >= each else mine
        for axes in grid[row]:
            axes.set_axis_off()
        for axes, index in zip(grid[row], spread, strict=False):
            axes.set_axis_on()
            picture(axes, result.images[index])
        figure.text(0.005, 1 - (row + 0.5) / len(families), family, fontsize=8, va="center")
    return figure


def _row(figure: Figure, result: Tuning, unit: int, row: int, rows: int) -> None:
    height = ROW * rows + MARGIN
    low = (height - 0.12 - (row + 1) * ROW) / height
    tall = ROW / height
    words = textwrap.fill(result.labels[unit], 20)
    also = f"\nalso {textwrap.fill(result.secondary[unit], 20)}" if result.secondary[unit] else ""
    confidence = f"\nconfidence {float(result.confidence[unit]):.2f}"
    figure.text(0.01, low + tall / 2, f"unit {unit}\n{words}{also}{confidence}", fontsize=8, va="center")
    top = max(float(result.response[unit].max()), 1e-12)
    polar: PolarAxes = figure.add_axes((0.19, low + 0.08 * tall, 0.2, 0.84 * tall), projection="polar")  # type: ignore[assignment]  # by the projection
    _polar(polar, _angular(result, unit), top)
    for column, (parameter, name) in enumerate(BEYOND):
        axes = figure.add_axes((0.45 + 0.19 * column, low + 0.26 * tall, 0.15, 0.62 * tall))
        _curve(axes, result, unit, parameter, top)
        if row == rows - 1:
            axes.set_xlabel(name, fontsize=7)


def _angular(result: Tuning, unit: int) -> dict[tuple[str, float], Curve]:
    """For lines of each polarity and for edges the curve that swings most."""
    found: dict[tuple[str, float], Curve] = {}
    for curve in result.curves(unit):
        key = (curve.family, curve.polarity)
        if key in COLOURS and (key not in found or _swing(curve) > _swing(found[key])):
            found[key] = curve
    return found


def _swing(curve: Curve) -> float:
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
    drawn = False
    for family, style in zip(families, styles, strict=False):
        try:
            axis, values = result.along(unit, parameter, family, centre=parameter != "width")
        except InputError:  # this family was not shown
            continue
        axes.plot(axis.numpy(), values.numpy(), style, color="0.25", marker="o", markersize=2.5, label=family)
        drawn = True
    axes.set_ylim(min(0.0, float(result.centre[unit].min())), top * 1.05)
    axes.tick_params(labelsize=6, length=2)
    axes.spines[["top", "right"]].set_visible(False)
    if drawn and len(families) > 1:
        axes.legend(fontsize=5, frameon=False, loc="lower right", handlelength=1.5)
    if not drawn:
        axes.text(0.5, 0.5, "not shown", ha="center", va="center", fontsize=7, transform=axes.transAxes)
        axes.set_yticks([])


def _legend(figure: Figure, result: Tuning) -> None:
    from matplotlib.lines import Line2D

    shown = [key for key in COLOURS if key[0] in result.family]
    handles = [Line2D([], [], color=COLOURS[key], label=NAMES[key]) for key in shown]
    figure.legend(handles=handles, fontsize=7, ncols=3, frameon=False, loc="lower left", bbox_to_anchor=(0.01, 0.0))
    figure.text(
        0.62, 0.08 / figure.get_figheight(), f"response above a blank of equal level, {result.layer}", fontsize=7
    )
