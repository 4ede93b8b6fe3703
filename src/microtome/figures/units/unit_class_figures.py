"""Figure of units labelled by a class: precision and recall of each."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from microtome.figures.limits import left_out, note, within

if TYPE_CHECKING:
    from microtome.units.unit_classes import ClassLabels


def class_labels(result: ClassLabels, *, limit: int = 24) -> Figure:
    """Bars of precision and recall of the units that detect a class, the most precise first.

    Parameters
    ----------
    result : ClassLabels
        What to draw.
    limit : int
        Maximum number of units with bars.
    """
    labelled = [unit for unit, label in enumerate(result.labels) if label]
    ordered = sorted(labelled, key=lambda unit: -float(result.precision[unit]))
    shown = ordered[: within(limit, max(len(ordered), 1))]
    figure = Figure(figsize=(6.4, 1.2 + 0.26 * max(len(shown), 1)), layout="constrained")
    axes = figure.subplots()
    for offset, name, colour in ((-0.2, "precision", "#4477aa"), (0.2, "recall", "#ee8866")):
        values = [float(getattr(result, name)[unit]) for unit in shown]
        axes.barh([row + offset for row in range(len(shown))], values, height=0.38, color=colour, label=name)
    axes.set_yticks(range(len(shown)), [f"unit {u}: {result.labels[u].split(' (')[0]}" for u in shown], fontsize=7)
    axes.set_xlim(0, 1)
    axes.invert_yaxis()
    axes.set_xlabel(f"units of {result.layer} as detectors of a class", fontsize=8)
    axes.tick_params(axis="x", labelsize=7)
    if shown:
        axes.legend(fontsize=7, ncols=2, frameon=False, loc="lower center", bbox_to_anchor=(0.5, 1.0))
    silent = len(result.labels) - len(labelled)
    note(figure, left_out(len(shown), len(labelled), "units"), f"{silent} units detect no class" if silent else "")
    return figure
