"""Figures that display themselves: as a picture in a notebook, elsewhere as a line that says how to save them."""

from __future__ import annotations

import base64
import html
import io
from typing import Any, NoReturn

from matplotlib.figure import Figure

from microtome.errors import InputError

_SHARP = 2  # pixels of the picture per pixel of the page, for screens of high resolution


class NotebookFigure(Figure):
    """A figure of matplotlib that a notebook shows without ``%matplotlib inline`` and without pyplot."""

    def _repr_png_(self) -> tuple[bytes, dict[str, int]]:
        """The picture and its width on the page, in the form that notebooks expect."""
        width = self.get_size_inches()[0]
        return picture(self), {"width": round(width * self.dpi)}

    def __repr__(self) -> str:
        width, height = self.get_size_inches()
        return f"<figure of {width:.1f} x {height:.1f} inches; .savefig('figure.png') or '.pdf', '.svg' saves it>"

    def show(self, *_: Any, **__: Any) -> NoReturn:
        """Raise an error that says what to do instead: the figure has no window.

        Raises
        ------
        InputError
            Always.
        """
        raise InputError(
            "the figure has no window. In a script save it: figure.savefig('figure.png'). In a "
            "notebook leave it as the last line of a cell."
        )


def shown(figure: Figure) -> Figure:
    """The same figure, which now displays itself.

    Drawings make plain figures of matplotlib. The class is exchanged, since matplotlib has no way to copy a figure.
    """
    if type(figure) is Figure:
        figure.__class__ = NotebookFigure
    return figure


def picture(figure: Figure) -> bytes:
    """A figure as PNG, sharp on screens of high resolution."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=_SHARP * figure.dpi, bbox_inches="tight")
    return buffer.getvalue()


def drawing(figure: Figure) -> str:
    """A figure as SVG for a page, without the declarations that only a file needs."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", bbox_inches="tight")
    svg = buffer.getvalue()
    return svg[svg.index("<svg") :]


def image(figure: Figure, alt: str) -> str:
    """A figure as a picture embedded in a page."""
    data = base64.b64encode(picture(figure)).decode()
    width = round(figure.get_size_inches()[0] * figure.dpi)
    return f'<img src="data:image/png;base64,{data}" width="{width}" alt="{html.escape(alt)}">'
