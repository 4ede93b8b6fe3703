"""What is the network, how good is it, where does one go from here? The first page."""

from __future__ import annotations

import torch

from microtome.atlas.assemble import spaces
from microtome.atlas.assemble.album import Album
from microtome.atlas.pages import Absent, Block, Confusion, Gallery, Number, OverviewPage
from microtome.spaces import Spectra
from microtome.trace.graph import Layer

__all__ = ["overview"]

_CLASSES = 40  # up to which a confusion matrix can be read
_MISTAKES = 24


def overview(album: Album) -> OverviewPage:
    """The first page of the atlas."""
    return OverviewPage(
        card=_card(album),
        blocks=_blocks(album),
        confusion=_confusion(album),
        mistakes=_mistakes(album),
        rejected=spaces.rejected(album),
        examples=Gallery(
            tuple(album.picture(index) for index in album.images),
            "Images with a page of their own; up to half of them are mistakes.",
        ),
    )


def _card(album: Album) -> tuple[Number, ...]:
    net, seen = album.net, album.seen
    total = sum(parameter.numel() for parameter in net.model.parameters())
    card = [
        Number("input", " x ".join(map(str, net.input_shape)), "px"),
        Number("classes", int(seen.logits.shape[1])),
        Number("parameters", total),
        Number("layers", len(net.layers)),
        Number("images looked at", len(seen.logits)),
    ]
    count = int(seen.known.sum())
    if count:
        right = count - int(seen.wrong.sum())
        text = f"{right} of {count} labelled images"
        card.append(Number("accuracy", 100.0 * right / count, "%", explain=f"{text} are given their true class."))
    card.append(Number("fingerprint", net.fingerprint, explain="Equal for equal structure, weights and normalisation."))
    return tuple(card)


def _blocks(album: Album) -> tuple[Block, ...]:
    """The layers that compute, with lines drawn past those that are left out."""
    drawn = _drawn(album)
    return tuple(_block(album, layer, drawn) for name, layer in album.net.layers.items() if name in drawn)


def _drawn(album: Album) -> set[str]:
    """Layers in the drawing: those shown, and in small networks everything that is no container."""
    layers = album.net.layers
    shown = set(album.plan.outline.layers)
    leaves = {name for name, layer in layers.items() if layer.leaf and "pad" not in layer.operation.rpartition("/")[2]}
    if len(leaves) <= 40:
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
        condition_number=_condition(album, layer.name),
    )


def _condition(album: Album, name: str) -> float | None:
    found = spaces.spectra(album, "patches")
    return found.condition_number.get(name) if isinstance(found, Spectra) else None


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
        if same is not None:  # a block is drawn in the place of the operation that it ends with
            found.append(same)
        elif layer is not None:
            waiting += layer.inputs
    return found


def field_text(album: Album, layer: Layer) -> str:
    """A receptive field in words."""
    if layer.field is None:
        return "whole image" if not layer.spatial else ""
    height, width = layer.field.size
    picture = album.net.input_shape[1:]
    if layer.gated or (height >= picture[0] and width >= picture[1]):
        return "whole image"
    return f"{height} px" if height == width else f"{height} x {width} px"


def _confusion(album: Album) -> Confusion | Absent:
    seen = album.seen
    if not bool(seen.known.any()):
        return Absent("The images have no labels, so it is not known which answers are right.")
    classes = seen.logits.shape[1]
    truth, said = seen.labels[seen.known], seen.said[seen.known]
    pairs = torch.bincount(truth * classes + said, minlength=classes * classes).view(classes, classes)
    off = pairs.clone()
    off.fill_diagonal_(0)
    order = (-off.flatten()).argsort(stable=True)[:12].tolist()
    often = tuple((i // classes, i % classes, int(off.flatten()[i])) for i in order if int(off.flatten()[i]))
    counts = tuple(tuple(row) for row in pairs.tolist()) if classes <= _CLASSES else None
    return Confusion(
        counts, often, "Rows are true classes, columns what the network says; off the diagonal are mistakes."
    )


def _mistakes(album: Album) -> Gallery | Absent:
    if not bool(album.seen.known.any()):
        return Absent("The images have no labels, so mistakes are not known.")
    found = album.mistakes(_MISTAKES)
    caption = (
        "The mistakes the network was surest of come first." if found else "Every labelled image is given its class."
    )
    return Gallery(tuple(album.picture(index) for index in found), caption)
