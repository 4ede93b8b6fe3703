"""The first page: the network drawn layer by layer, and the sections of all topics."""

from __future__ import annotations

from collections.abc import Sequence

from microtome.atlas.album import Album
from microtome.atlas.pages.page_sections import arranged, numbers
from microtome.atlas.pages.places_to_begin import places_to_begin
from microtome.atlas.topic import Topic
from microtome.atlas.topics.network.predictions import accuracy
from microtome.atlas.topics.network.singular_values import condition_number
from microtome.atlas.topics.units.unit_superstimuli import unit_picture
from microtome.atlas.widgets import Block, Number, OverviewPage, Picture
from microtome.network.layer_table import field_text
from microtome.trace.graph import Layer

__all__ = ["overview_page"]

_DRAWN = 40  # up to this number of layers, all are drawn
_PICTURES = 3  # units whose pictures stand below a layer
_FIRST = "Its most confident mistakes"
_ORDER = (_FIRST, "Which classes it confuses", "Images with pages", "What each layer throws away")


def overview_page(album: Album, topics: Sequence[Topic]) -> OverviewPage:
    """The first page of the atlas."""
    return OverviewPage(
        card=_card(album, topics),
        blocks=_blocks(album),
        sections=arranged(topics, "overview", _ORDER, album),
        summary=_summary(album),
        starts=places_to_begin(album),
        notes=tuple(note.removesuffix(".") for note in album.net.notes),
    )


def _summary(album: Album) -> str:
    """The network in one line: input, size and accuracy."""
    net, seen = album.net, album.seen
    channels, height, width = net.input_shape
    colour = {1: "gray ", 3: "colour "}.get(channels, "")
    weights = sum(parameter.numel() for parameter in net.model.parameters())
    text = (
        f"Takes {colour}images of {height} x {width} pixels and distinguishes {seen.logits.shape[1]:,} classes, with "
        f"{weights:,} weights in {len(net.layers)} layers."
    )
    if seen.quantity == "value":
        text = (
            f"Takes {colour}images of {height} x {width} pixels, with {weights:,} weights in {len(net.layers)} layers."
        )
    measured = accuracy(album)
    return f"{text} {measured}" if measured else text


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
    """The layers that compute; lines skip those that are not drawn."""
    drawn = _drawn(album)
    return tuple(_block(album, layer, drawn) for name, layer in album.net.layers.items() if name in drawn)


def _drawn(album: Album) -> set[str]:
    """Layers in the drawing: those shown, and in small networks everything that is no container."""
    layers = album.net.layers
    shown = set(album.layers)
    leaves = {name for name, layer in layers.items() if layer.leaf and "pad" not in layer.operator}
    if len(leaves) <= _DRAWN:
        return shown | leaves
    weighted = {name for name in leaves if layers[name].operator == "linear" and layers[name].shape}
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
        field=field_text(layer, album.net.input_shape[1:]),
        dead=None if table is None else int(table.dead.sum()),
        saturated=None if table is None else int(table.saturated.sum()),
        condition_number=condition_number(album, layer.name),
        pictures=_pictures(album, layer.name),
    )


def _pictures(album: Album, layer: str) -> tuple[Picture, ...]:
    """The pictures of the most selective units of a layer that has a page."""
    found = (unit_picture(album, layer, unit) for unit in album.chosen.units.get(layer, ())[:_PICTURES])
    return tuple(picture for picture in found if picture is not None)


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
        if same is not None:  # a block is drawn instead of its last operation
            found.append(same)
        elif layer is not None:
            waiting += layer.inputs
    return found
