"""The notebook display of a result: its figure or a table of its fields, and a caption in sentences."""

from __future__ import annotations

import html
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from torch import Tensor

from microtome.tables import NO_BREAK, NUMBER_AND_UNIT, Table

_ITEMS = 8  # items of a list that a caption names; the others are counted
_LETTERS = 80  # length limit of a value in a table of fields
_TENSOR = re.compile(r"tensor\((.+)\) (\w{8})")  # a tensor in a provenance: its shape and a digest
_NO_PROSE = re.compile(r"(<(?:script|style|code|pre|textarea)\b.*?</(?:script|style|code|pre|textarea)>|<[^>]*>)", re.S)
_ROWS = 40  # rows of a table that starts open; a longer table opens on a click


def caption(method: str, summary: str, parameters: Mapping[str, Any], seed: int | None, notes: Sequence[str]) -> str:
    """The caption of a result in sentences: the method, what it computes, its options, its notes.

    Examples
    --------
    >>> caption("grad-cam", "Weight each feature map.", {"layer": "conv3", "counterfactual": False}, None, [])
    'grad-cam: Weight each feature map. Options: layer conv3, counterfactual no.'
    >>> caption("", "", {}, 0, ["the scores change"])
    'Seed 0. Note: the scores change.'
    """
    options = [
        f"{name.replace('_', ' ')} {value_text(value)}" for name, value in parameters.items() if value is not None
    ]
    parts = [
        ": ".join(filter(None, (method, summary))),
        f"Options: {', '.join(options)}" if options else "",
        "" if seed is None else f"Seed {seed}",
        *(f"Note: {note}" for note in notes),
    ]
    return " ".join(f"{part.rstrip('.')}." for part in parts if part)


def value_text(value: Any) -> str:
    """The value of an option in words.

    Examples
    --------
    >>> value_text(True), value_text(0.30000000001), value_text([1, 2]), value_text({"beta": 3})
    ('yes', '0.3', '1 and 2', 'beta 3')
    >>> value_text("tensor(3, 8, 8) 0f1e2d3c")
    'an array of 3 x 8 x 8 (0f1e2d3c)'
    >>> value_text(list(range(12)))
    '0, 1, 2, 3, 4, 5, 6, 7 and 4 more'
    """
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return value_text([f"{key} {value_text(item)}" for key, item in value.items()])
    if isinstance(value, list | tuple):
        shown = [value_text(item) for item in value[:_ITEMS]]
        rest = len(value) - len(shown)
        last = f"{rest} more" if rest else shown.pop() if len(shown) > 1 else ""
        return " and ".join(filter(None, (", ".join(shown), last))) or "none"
    if value is None:
        return "none"
    found = _TENSOR.fullmatch(str(value))
    return f"an array of {found[1].rstrip(',').replace(', ', ' x ')} ({found[2]})" if found else str(value)


def figure(drawing: str, text: str) -> str:
    """A drawing with its caption below."""
    return f"<figure>{drawing}<figcaption><small>{html.escape(text)}</small></figcaption></figure>"


def fields(title: str, entries: Iterable[tuple[str, Any]], text: str) -> str:
    """A result without a drawing: the content of each field, and the caption."""
    rows = tuple((name.replace("_", " "), *_held(value)) for name, value in entries)
    table = Table(("field", "holds", "from", "to"), rows)
    return figure(f"<p><strong>{html.escape(title)}</strong></p>{folded(table)}", text)


def page(title: str, lines: Iterable[str], table: Table, below: Iterable[str] = ()) -> str:
    """A title, a few sentences, a table (folded if long), and sentences below it."""
    above = "".join(f"<p>{html.escape(line)}</p>" for line in lines)
    notes = "".join(f"<p><small>{html.escape(line)}</small></p>" for line in below)
    return unbroken(f"<div><p><strong>{html.escape(title)}</strong></p>{above}{folded(table)}{notes}</div>")


def unbroken(page: str) -> str:
    r"""HTML in which no line ends between a number and its unit; tags, scripts, styles and code stay as they are.

    Examples
    --------
    >>> unbroken('<p title="5 px">69.9 % of 14 px</p><code>--window 5 px</code>')
    '<p title="5 px">69.9\xa0% of 14\xa0px</p><code>--window 5 px</code>'
    """
    parts = _NO_PROSE.split(page)
    parts[::2] = [NUMBER_AND_UNIT.sub(NO_BREAK, text) for text in parts[::2]]
    return "".join(parts)


def folded(table: Table) -> str:
    """A table; a long one opens on a click."""
    shown = table._repr_html_()
    if len(table) <= _ROWS:
        return shown
    return f"<details><summary>{len(table)} rows</summary>{shown}</details>"


def _held(value: Any) -> tuple[str, Any, Any]:
    """The content of a field in words, and the range of its numbers."""
    if isinstance(value, Tensor):
        shape = " x ".join(map(str, value.shape)) or "one number"
        finite = value.detach()[value.isfinite()] if value.numel() and not value.is_complex() else value.new_empty(0)
        if not finite.numel():
            return shape, "", ""
        low, high = (float(finite.min()), float(finite.max())) if not value.is_complex() else ("", "")
        gone = value.numel() - finite.numel()
        return shape + (f", {gone} of them not finite" if gone else ""), low, high
    if isinstance(value, list | tuple | Mapping) and any(not isinstance(each, str | int | float) for each in value):
        return f"{len(value)} entries", "", ""
    text = value_text(value) if isinstance(value, bool | float | list | tuple | Mapping | None) else str(value)
    return text if len(text) <= _LETTERS else f"{text[: _LETTERS - 3]}...", "", ""
