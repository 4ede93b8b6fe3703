"""A figure of ``microtome.figures`` as an SVG inside the page."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from microtome.atlas.widgets.basics import Made, Widget

__all__ = ["DrawnFigure"]


@dataclass(frozen=True)
class DrawnFigure(Widget):
    """An SVG whose lines and words have the page's text colour, and that scrolls sideways if it is too wide.

    Attributes
    ----------
    svg : str
        The element, see :func:`~microtome.atlas.pictures.figure_drawing.drawn_figure`.
    spoken : str
        A description for screen readers.
    caption, made
        The caption, and how the figure was made.
    """

    svg: str
    spoken: str
    caption: str
    made: Made | None = None
    macro: ClassVar[str] = "drawn_figure.svg"
