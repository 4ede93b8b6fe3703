"""A page for one reproduction: the figure, what to see in it, the numbers."""

from __future__ import annotations

import html
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from microtome.result_html import unbroken
from microtome.results import write_atomically

_FRAME = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; background: white; }}
pre {{ overflow-x: auto; font-size: 14px; }}
figure {{ margin: 0 0 1.5rem; }}
</style>
<h1>{title}</h1>
{body}
<details><summary>How this is made</summary><p>{made}</p></details>
</html>
"""
_BODY = """<figure><img src="{picture}" alt="{caption}"><figcaption>{caption}</figcaption></figure>
<pre>{table}</pre>"""


_SECTION = """<h2>{title}</h2>
<p><strong>The article:</strong> {statement}</p>
<p><strong>Found here:</strong> {found}</p>
{pictures}"""
_PICTURE = '<figure><img src="{picture}" alt="{caption}" loading="lazy"><figcaption>{caption}</figcaption></figure>'


@dataclass(frozen=True)
class Section:
    """A statement of a paper with its finding.

    Attributes
    ----------
    title, statement, found : str
    pictures : tuple of (str, str)
        Files beside the page, with what to see in each.
    """

    title: str
    statement: str
    found: str
    pictures: tuple[tuple[str, str], ...] = ()


def write_sections(path: Path, *, title: str, sections: Sequence[Section], made: str) -> None:
    """Write an HTML page with one section for each statement; it opens from disk.

    Raises
    ------
    StoreError
        When it cannot be written.
    """
    parts = []
    for one in sections:
        drawn = "\n".join(
            _PICTURE.format(picture=html.escape(picture), caption=html.escape(caption))
            for picture, caption in one.pictures
        )
        texts = {"title": one.title, "statement": one.statement, "found": one.found}
        escaped = {name: html.escape(text).replace("\n", "<br>") for name, text in texts.items()}
        parts.append(_SECTION.format(**escaped, pictures=drawn))
    page = _FRAME.format(title=html.escape(title), body="\n".join(parts), made=html.escape(made))
    write_atomically(path, unbroken(page).encode())


def write_page(path: Path, *, title: str, picture: str, caption: str, table: str, made: str) -> None:
    """Write an HTML page that opens from disk; the picture is a file beside it.

    Raises
    ------
    StoreError
        When it cannot be written.
    """
    fields = {"picture": picture, "caption": caption, "table": table}
    body = _BODY.format(**{name: html.escape(value) for name, value in fields.items()})
    page = _FRAME.format(title=html.escape(title), body=body, made=html.escape(made))
    write_atomically(path, unbroken(page).encode())


__all__ = ["Section", "write_page", "write_sections"]
