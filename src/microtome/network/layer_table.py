"""The table that ``print(net)`` shows: what the scores are, and every layer with its shape, axes and units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from microtome.tables import aligned
from microtome.trace.graph import Layer
from microtome.trace.heads.head import Head, dotted


def layer_table(title: str, head: Head, layers: Iterable[Layer], notes: Sequence[str]) -> str:
    """The title, what the scores are, a table of the layers, and the notes."""
    rows = [("layer", "kind", "output", "axes", "units", "parameters")]
    for layer in layers:
        shape = " x ".join(map(str, layer.shape))
        axes = str(layer.axes) + ("" if layer.axes.image_axis is not None else " (no image)")
        rows.append((layer.name, layer.kind, shape, axes, str(layer.units or "-"), f"{layer.parameters:,}"))
    named = f' of "{dotted(head.path)}"' if head.path else ""
    scores = f"scores{named}: {head.classes} {head.reason}" if head.classes else head.problem
    legend = "axes: N images, C units, numbers are positions; what is folded into one axis stands in brackets"
    return "\n".join([title, scores, aligned(rows), legend, *(f"note: {note}" for note in notes)])
