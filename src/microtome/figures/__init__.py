"""How is a result drawn? Each kind of result names its drawing; the module is imported when one is drawn."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from microtome.errors import InputError

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
        What a method returned.
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
    module, _, name = result.drawing.partition(":")
    function = getattr(importlib.import_module(f"microtome.figures.{module}"), name)
    _check_options(function, options)
    figure: Figure = function(result, **options)
    return figure


def _check_options(function: Any, options: dict[str, Any]) -> None:
    import inspect

    known = list(inspect.signature(function).parameters)[1:]
    strange = sorted(set(options) - set(known))
    if strange:
        raise InputError(f'the figure has no option "{strange[0]}". Options: {", ".join(known) or "none"}.')
