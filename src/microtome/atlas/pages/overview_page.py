"""The first page: the network drawn layer by layer, and what topics show of it as a whole."""

from __future__ import annotations

from collections.abc import Sequence

from microtome.atlas.album import Album
from microtome.atlas.pages.page_sections import arranged, field_text, numbers
from microtome.atlas.topic import Topic
from microtome.atlas.topics.network.singular_values import condition_number
from microtome.atlas.widgets import Block, Number, OverviewPage
from microtome.trace.graph import Layer

__all__ = ["overview_page"]

_DRAWN = 40  # layers up to which all are drawn
_ORDER = ("What each layer rejects", "What it mistakes for what", "Its most confident mistakes", "Images with pages")


def overview_page(album: Album, topics: Sequence[Topic]) -> OverviewPage:
    """The first page of the atlas."""
    return OverviewPage(
        card=_card(album, topics),
        blocks=_blocks(album),
        sections=arranged(topics, "overview", _ORDER, album),
        notes=tuple(note.removesuffix(".") for note in album.net.notes),
    )


def _card(album: Album, topics: Sequence[Topic]) -> tuple[Number, ...]:
    net = album.net
    return (
        Number("input", " x ".join(map(str, net.input_shape)), "px"),
        Number("classes", int(album.seen.logits.shape[1])),
        Number("parameters", sum(parameter.numel() for parameter in net.model.parameters())),
        Number("layers", len(net.layers)),
        *numbers(topics, "overview", album),
        Number("fingerprint", net.fingerprint, explain="Equal for equal structure, weights and normalisation."),
    )


def _blocks(album: Album) -> tuple[Block, ...]:
    """The layers that compute; lines lead past those that are not drawn."""
    drawn = _drawn(album)
    return tuple(_block(album, layer, drawn) for name, layer in album.net.layers.items() if name in drawn)


def _drawn(album: Album) -> set[str]:
    """Layers in the drawing: those shown, and in small networks everything that is no container."""
    layers = album.net.layers
    shown = set(album.layers)
    leaves = {name for name, layer in layers.items() if layer.leaf and "pad" not in layer.operation.rpartition("/")[2]}
    if len(leaves) <= _DRAWN:
        return shown | leaves
    weighted = {name for name in leaves if layers[name].kind == "Linear" and layers[name].shape}
    return shown | weighted


def _block(album: Album, layer: Layer, drawn: set[str]) -> Block:
    table = album.tables.layers.get(layer.name)
    return Block(
        name=layer.name,
        kind=layer.kind,
        shape=layer.shape,
        inputs=tuple(dict.fromkeys(source for name in layer.inputs for source in _sources(album, name, drawn))),
        units=layer.units,
        parameters=layer.parameters,
        field=field_text(album, layer),
        dead=None if table is None else int(table.dead.sum()),
        saturated=None if table is None else int(table.saturated.sum()),
        condition_number=condition_number(album, layer.name),
    )


def _sources(album: Album, name: str, drawn: set[str]) -> list[str]:
    """The nearest drawn layers at or before a layer."""
    found: list[str] = []
    waiting, passed = [name], set()
    operations = {layer.operation: layer.name for layer in album.net.layers.values() if layer.name in drawn}
    while waiting:
        current = waiting.pop(0)
        if current in passed:
            continue
        passed.add(current)
        if current == "input" or current in drawn:
            found.append(current)
            continue
        layer = album.net.layers.get(current)
        same = operations.get(layer.operation) if layer is not None else None
        if same is not None:  # a block is drawn in place of the operation that it ends with
            found.append(same)
        elif layer is not None:
            waiting += layer.inputs
    return found
