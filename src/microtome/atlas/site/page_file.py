"""A page with one widget as one file that opens from disk, with numbers, style and script."""

from __future__ import annotations

import base64
import hashlib
from dataclasses import dataclass
from importlib import resources
from typing import Any

from markupsafe import Markup

from microtome.atlas.site.render import templates
from microtome.atlas.widgets import Link, Made, Picture, Widget
from microtome.result_html import unbroken
from microtome.results import Result

__all__ = ["made_by", "page_file"]


@dataclass(frozen=True)
class _Alone:
    """The page functions that a template needs, for a page without links to others."""

    root: str = ""

    def links(self, links: dict[int, Link]) -> dict[int, str]:
        """None."""
        return {}

    def pic(self, picture: Picture, size: str) -> str:
        """None."""
        return ""


def page_file(title: str, widget: Widget) -> bytes:
    """The page of a widget, in one self-contained file.

    Parameters
    ----------
    title : str
        Its heading.
    widget : Widget
        One whose template ``NAME.html`` has a macro ``figure``, with ``assets/NAME.css`` and ``assets/NAME.js``.

    Returns
    -------
    bytes
        HTML, whose policy admits that script alone.
    """
    name = widget.macro.partition(".")[0]
    script = _asset(f"{name}.js")
    policy = (
        f"default-src 'none'; img-src data: blob:; style-src 'unsafe-inline'; script-src {_digest(script)}; "
        "base-uri 'none'; form-action 'none'"
    )
    environment = templates()
    macros: Any = environment.get_template(f"{name}.html").module
    inside: dict[str, Any] = {
        "style": Markup(_asset("style.css") + _asset(f"{name}.css")),  # noqa: S704 - files of this package
        "script": Markup(script),  # noqa: S704
        "figure": Markup(macros.figure(_Alone(), widget)),  # noqa: S704 - rendered with escaping
    }
    whole = environment.get_template("page_file.html").render(title=title, policy=policy, **inside)
    return unbroken(whole).encode()


def made_by(found: Result) -> Made:
    """How a result was made, without the command."""
    known = found.provenance
    return Made(known.method, {name: str(value) for name, value in known.parameters.items()}, seed=known.seed)


def _digest(text: str) -> str:
    return f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


def _asset(name: str) -> str:
    return resources.files("microtome.atlas.site").joinpath("assets", name).read_text(encoding="utf-8")
