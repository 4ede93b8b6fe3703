"""The printed table of a network: the meaning of its scores, and every layer with its shape, axes and units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from microtome.result_html import page
from microtome.tables import Table
from microtome.trace.graph import Layer
from microtome.trace.heads.head import Head, dotted

_LEGEND = "axes: N images, C units, numbers are positions; what is folded into one axis stands in brackets"


def layer_table(title: str, head: Head, layers: Iterable[Layer], notes: Sequence[str]) -> str:
    """As text: the title, the meaning of the scores, a table of the layers, and the notes."""
    return "\n".join([title, _scores(head), str(_table(layers)), _LEGEND, *(f"note: {note}" for note in notes)])


def layer_page(title: str, head: Head, layers: Iterable[Layer], notes: Sequence[str]) -> str:
    """The same for a notebook."""
    return page(title, [_scores(head)], _table(layers), [f"{_LEGEND}.", *(f"Note: {note}." for note in notes)])


def _table(layers: Iterable[Layer]) -> Table:
    rows = []
    for layer in layers:
        shape = " x ".join(map(str, layer.shape))
        axes = str(layer.axes) + ("" if layer.axes.image_axis is not None else " (no image)")
        rows.append((layer.name, layer.kind, shape, axes, str(layer.units or "-"), f"{layer.parameters:,}"))
    return Table(("layer", "kind", "output", "axes", "units", "parameters"), tuple(rows))


def _scores(head: Head) -> str:
    named = f' of "{dotted(head.path)}"' if head.path else ""
    return f"scores{named}: {head.classes} {head.reason}" if head.classes else head.problem
