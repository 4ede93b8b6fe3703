"""Figures of results as SVG inside a page: the same bytes for the same result, in the colours of the page."""

from __future__ import annotations

import io
import re
from typing import Any

import matplotlib as mpl

from microtome.atlas.widgets import DrawnFigure, Made
from microtome.results import Result

__all__ = ["drawn_figure"]

_INK = "#010203"  # colour of words and lines, replaced by the text colour of the page
_STYLE: Any = {
    "svg.fonttype": "none",  # words stay words
    "svg.hashsalt": "microtome",
    "font.family": "sans-serif",
    **dict.fromkeys(
        ("text.color", "axes.labelcolor", "axes.edgecolor", "axes.titlecolor", "xtick.color", "ytick.color"), _INK
    ),
    "legend.framealpha": 0.0,
}


def drawn_figure(
    result: Result, spoken: str, caption: str, made: Made | None = None, **options: object
) -> DrawnFigure:  # fmt: skip
    """The figure of a result as a widget.

    Parameters
    ----------
    result
        The result, drawn by its drawing in ``figures`` with ``options``.
    spoken, caption, made
        See :class:`~microtome.atlas.widgets.DrawnFigure`.
    """
    with mpl.rc_context(_STYLE):
        figure = result.plot(**options)
        written = io.StringIO()
        figure.savefig(
            written, format="svg", transparent=True, bbox_inches="tight", metadata={"Date": None, "Creator": None}
        )
    text = written.getvalue()
    element = text[text.index("<svg") :]
    element = re.sub(r"<metadata>.*?</metadata>\s*", "", element, flags=re.DOTALL)
    element = re.sub(r'(<g) id="[^"]*"', r"\1", element)  # several figures on a page: no name twice
    element = re.sub(r"[ \t]*\n[ \t]*", "\n", element).replace(_INK, "currentColor").strip()
    return DrawnFigure(element, spoken, caption, made)
