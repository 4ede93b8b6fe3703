"""Figures of ideal inputs, by class and kind."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.figure import Figure

from microtome.figures.spaces.space_figures import photo

if TYPE_CHECKING:
    from matplotlib.axes import Axes

    from microtome.reproduce.vector_spaces import VectorSpaces
    from microtome.spaces.inversion.ideal_inputs import IdealInputs


def ideal_inputs(result: IdealInputs, *, best: bool = False) -> Figure:
    """Six rows of images with the distance of each to its ideal output, the best of each class marked.

    Parameters
    ----------
    result : IdealInputs
        What to draw.
    best : bool
        Only the best image of each class, as in the paper's figure 3.
    """
    return best_rows({"": result}) if best else _all(result)


def vector_spaces(result: VectorSpaces) -> Figure:
    """Figure 3 of the paper: the best image of each class, one row for each network."""
    return best_rows(result.ideal)


def best_rows(results: dict[str, IdealInputs]) -> Figure:
    """The best image of each class, one row for each network.

    Parameters
    ----------
    results : dict of str to IdealInputs
        By the network's name.
    """
    columns = max(len(result.classes) for result in results.values())
    figure = Figure(figsize=(1.15 * columns + 0.8, 1.7 * len(results)), layout="constrained")
    axes = figure.subplots(len(results), columns, squeeze=False)
    for line, (name, result) in zip(axes, results.items(), strict=True):
        for place, axis in enumerate(line):
            _bare(axis)
            if place < len(result.classes):
                photo(axis, result.best_images[place])
                kind = _short(result.best_kinds[place]).replace("+", "\n+ ")
                axis.set_title(f"{result.classes[place]}: {kind}", fontsize=7)
        line[0].set_ylabel(name, fontsize=8)
    return figure


def _all(result: IdealInputs) -> Figure:
    columns = len(result.classes)
    figure = Figure(figsize=(1.0 * columns + 0.8, 7.2), layout="constrained")
    axes = figure.subplots(len(result.names), columns, squeeze=False)
    for row, kind in enumerate(result.names):
        for place, image in enumerate(result.images(kind)):
            axis = axes[row, place]
            _bare(axis)
            photo(axis, image)
            mark = "  best" if int(result.best[place]) == row else ""
            axis.set_title(f"{float(result.distance[row, place]):.3g}{mark}", fontsize=7)
        axes[row, 0].set_ylabel(_short(kind).replace("+", "\n+ "), fontsize=8)
    caption = "Distance of the output to the ideal one of each class; trained images start from those above."
    figure.supxlabel(caption, fontsize=9)
    return figure


def _short(kind: str) -> str:
    """The paper's name of a kind."""
    start, _, training = kind.partition("+")
    name = {"average": "avg-img", "nearest": "min-img", "average_nearest": "avg-min-img"}.get(start, start)
    return f"{name}+training" if training else name


def _bare(axis: Axes) -> None:
    axis.set_xticks([])
    axis.set_yticks([])
    for side in axis.spines.values():
        side.set_visible(False)
