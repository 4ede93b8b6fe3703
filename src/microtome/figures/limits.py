"""Limits of figures: how many of a result's parts are drawn, and the note that says what is left out."""

from __future__ import annotations

from typing import TYPE_CHECKING

from microtome.errors import InputError

if TYPE_CHECKING:
    from matplotlib.figure import Figure, SubFigure


def within(limit: int, count: int) -> int:
    """How many of ``count`` parts are drawn.

    Raises
    ------
    InputError
        When the limit is no whole number of at least 1.
    """
    number: object = limit
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InputError(f"limit must be a whole number of at least 1, got {limit!r}.")
    return min(limit, count)


def left_out(shown: int, count: int, what: str) -> str:
    """What a figure says of the parts that it does not draw; nothing where all are drawn.

    Examples
    --------
    >>> left_out(8, 60, "images"), left_out(8, 8, "images")
    ('8 of 60 images', '')
    """
    return f"{shown} of {count} {what}" if shown < count else ""


def note(figure: Figure | SubFigure, *parts: str, size: float = 8) -> None:
    """Write the parts that are not empty under a figure, joined by semicolons."""
    text = "; ".join(filter(None, parts))
    if text:
        figure.supxlabel(text, fontsize=size)
