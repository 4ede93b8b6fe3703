"""Pictures of executed examples: the figure that a block of code ends with, with a text that says it."""

from __future__ import annotations

import re
from typing import Any

from matplotlib.figure import Figure
from sphinx_gallery.scrapers import figure_rst

_DPI = 110  # wide enough for the column of a page on a screen of high resolution


def scraper(block: tuple[str, str, int], variables: dict[str, Any], settings: dict[str, Any]) -> str:
    """Save the figure that is the block's last value; matplotlib's own scraper sees figures of pyplot only."""
    shown = variables["example_globals"].get("___")
    if not isinstance(shown, Figure) or shown in settings.setdefault("microtome_shown", []):
        return ""
    settings["microtome_shown"][:] = [shown]
    path = next(variables["image_path_iterator"])
    shown.savefig(path, dpi=_DPI, bbox_inches="tight", facecolor="white")
    return figure_rst([path], settings["src_dir"], _alternative(shown, block[1]))


def _alternative(figure: Figure, code: str) -> str:
    """What the figure shows in words: its headings, else the call that drew it."""
    heads = [axes.get_title() for axes in figure.axes] + [axes.get_xlabel() for axes in figure.axes]
    words = ", ".join(dict.fromkeys(" ".join(head.split()) for head in heads if head.strip()))[:200]
    call = re.sub(r"\s+", " ", code.strip().splitlines()[-1])
    return f"Figure of {call.replace('.plot()', '')}" + (f": {words}" if words else "")
