"""Limits of figures: the number of parts drawn, and the note about omitted parts."""

from __future__ import annotations

import textwrap
from typing import TYPE_CHECKING

from microtome.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure


_LETTER = 0.55  # width of a character over the font size


def within(limit: int, count: int) -> int:
    """How many of ``count`` parts are drawn.

    Raises
    ------
    InputError
        When the limit is not a whole number of at least 1.
    """
    number: object = limit
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InputError(f"limit must be a whole number of at least 1, got {limit!r}.")
    return min(limit, count)


def left_out(shown: int, count: int, what: str) -> str:
    """The note about parts that a figure does not draw; empty if all are drawn.

    Examples
    --------
    >>> left_out(8, 60, "images"), left_out(8, 8, "images")
    ('8 of 60 images', '')
    """
    return f"{shown} of {count} {what}" if shown < count else ""


def note(figure: Figure | SubFigure, *parts: str, size: float = 8) -> None:
    """Write the parts that are not empty under a figure, joined by semicolons, in lines that fit its width."""
    text = "; ".join(filter(None, parts))
    if text:
        inches = figure.bbox.width / figure.dpi
        letters = max(int(72 * inches / (_LETTER * size)), 1)
        figure.supxlabel("\n".join(textwrap.wrap(text, letters)), fontsize=size)
