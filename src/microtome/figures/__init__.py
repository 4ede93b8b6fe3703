"""How is a result drawn? Each result class names its drawing; its module is imported on first use."""

from __future__ import annotations

import importlib
import textwrap
from typing import TYPE_CHECKING, Any

from microtome.errors import InputError
from microtome.results import on_processor

_POINTS = 7.0  # font size of notes
_HEAVY = 2**20  # characters of an SVG: thousands of marks make a notebook slow
_LINE, _LETTERS = 0.125, 15.5  # height of a line in inches; characters per inch

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from microtome.results import Result


def draw(result: Result, **options: Any) -> Figure:
    """Draw a result with the function that its class names.

    ``class Ablation(Result, drawing="units.unit_figures:ablation")`` is drawn by ``ablation`` in
    ``figures/units/unit_figures.py``.

    Parameters
    ----------
    result : Result
        The result of a method.
    **options
        The options of the drawing function.

    Raises
    ------
    InputError
        When the class names no drawing, or the drawing has no such option.
    """
    if not result.drawing:
        raise InputError(
            f"there is no figure for a {type(result).__name__}: its class names no drawing "
            '(class Mine(Result, drawing="module:function"), a function of microtome.figures).'
        )
    from microtome.figures.notebook_figure import shown
    from microtome.figures.ticks_and_legends import readable

    module, _, name = result.drawing.partition(":")
    function = getattr(importlib.import_module(f"microtome.figures.{module}"), name)
    _check_options(function, options)
    figure: Figure = function(on_processor(result), **options)
    readable(figure)
    _write_below(figure, result.notes)
    return shown(figure)


def html(result: Result) -> str:
    """The figure of a result for a page: as SVG, or as a picture if the SVG is large."""
    from microtome.figures.notebook_figure import drawing, image

    figure = draw(result)
    svg = drawing(figure)
    return svg if len(svg) <= _HEAVY else image(figure, result.provenance.method)


def _write_below(figure: Figure, notes: list[str]) -> None:
    """Write the notes of a result below its figure, and enlarge the figure accordingly."""
    if not notes:
        return
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    width, height = figure.get_size_inches()
    lines = [line for note in notes for line in textwrap.wrap(f"Note: {note}", max(30, round(_LETTERS * width)))]
    room = _LINE * (len(lines) + 1)
    engine = figure.get_layout_engine()
    below = -0.5 * _LINE / height  # outside a figure whose parts have fixed positions
    if isinstance(engine, ConstrainedLayoutEngine):
        figure.set_size_inches(width, height + room)
        share = room / (height + room)
        engine.set(rect=(0, share, 1, 1 - share))
        below = share - 0.5 * _LINE / (height + room)
    figure.text(0.01, below, "\n".join(lines), va="top", ha="left", fontsize=_POINTS, linespacing=1.2)


def _check_options(function: Any, options: dict[str, Any]) -> None:
    import inspect

    known = list(inspect.signature(function).parameters)[1:]
    strange = sorted(set(options) - set(known))
    if strange:
        raise InputError(f'the figure has no option "{strange[0]}". Options: {", ".join(known) or "none"}.')
