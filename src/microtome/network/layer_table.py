"""The printed table of a network: the meaning of its scores, and every layer with its shape, axes and units."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from microtome.result_html import page
from microtome.tables import Table, in_lines
from microtome.trace.graph import Layer
from microtome.trace.heads.head import Head, dotted

_LEGEND = (
    "axes: N images, C units, numbers are positions; what is folded into one axis stands in brackets",
    "field: the part of the image that one position reads",
)


def layer_table(
    title: str,
    head: Head,
    layers: Iterable[Layer],
    notes: Sequence[str],
    picture: tuple[int, ...],
    *,
    width: int | None = None,
) -> str:
    """As text: the title, the meaning of the scores, a table of the layers, and the notes.

    ``picture`` is the height and width of the network's images; ``width`` limits the lines, None for no limit.
    """
    table = _table(layers, picture).text(width)
    prose = [title, _scores(head), *_LEGEND, *(f"note: {note}" for note in notes)]
    title, scores, *below = (in_lines(line, width) for line in prose)
    return "\n".join([title, scores, table, *below])


def layer_page(title: str, head: Head, layers: Iterable[Layer], notes: Sequence[str], picture: tuple[int, ...]) -> str:
    """The same for a notebook."""
    below = [*_LEGEND, *(f"Note: {note}" for note in notes)]
    return page(title, [_scores(head)], _table(layers, picture), [f"{line}." for line in below])


def field_text(layer: Layer, picture: tuple[int, ...]) -> str:
    """A layer's receptive field on images of this height and width, in words; empty if it is not known."""
    if layer.field is None:
        return "whole image" if not layer.spatial else ""
    height, width = layer.field.size
    if layer.gated or (height >= picture[0] and width >= picture[1]):
        return "whole image"
    return f"{height} px" if height == width else f"{height} x {width} px"


def _table(layers: Iterable[Layer], picture: tuple[int, ...]) -> Table:
    rows = []
    for layer in layers:
        shape = " x ".join(map(str, layer.shape))
        axes = str(layer.axes) + ("" if layer.axes.image_axis is not None else " (no image)")
        units, parameters = str(layer.units or "-"), f"{layer.parameters:,}"
        rows.append((layer.name, layer.kind, shape, axes, units, parameters, field_text(layer, picture)))
    return Table(("layer", "kind", "output", "axes", "units", "parameters", "field"), tuple(rows))


def _scores(head: Head) -> str:
    named = f' of "{dotted(head.path)}"' if head.path else ""
    reason = head.reason if head.classes > 1 else head.reason.replace("logits", "logit", 1)
    return f"scores{named}: {head.classes} {reason}" if head.classes else head.problem
