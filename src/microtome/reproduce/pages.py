"""A page for one reproduction: the figure, what to see in it, the numbers."""

from __future__ import annotations

import html
from pathlib import Path

from microtome.results import write_atomically

_PAGE = """<!doctype html>
<html lang="en">
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark">
<title>{title}</title>
<style>
body {{ font: 16px/1.5 system-ui, sans-serif; max-width: 64rem; margin: 2rem auto; padding: 0 1rem; }}
img {{ max-width: 100%; background: white; }}
pre {{ overflow-x: auto; font-size: 14px; }}
figure {{ margin: 0; }}
</style>
<h1>{title}</h1>
<figure><img src="{picture}" alt="{caption}"><figcaption>{caption}</figcaption></figure>
<pre>{table}</pre>
<details><summary>How this is made</summary><p>{made}</p></details>
</html>
"""


def write_page(path: Path, *, title: str, picture: str, caption: str, table: str, made: str) -> None:
    """Write an HTML page that opens from disk; the picture is a file beside it.

    Raises
    ------
    StoreError
        When it cannot be written.
    """
    given = {"title": title, "picture": picture, "caption": caption, "table": table, "made": made}
    page = _PAGE.format(**{name: html.escape(value) for name, value in given.items()})
    write_atomically(path, page.encode())


__all__ = ["write_page"]
