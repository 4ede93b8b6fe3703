"""The search index: one script with every name, loaded at the first search."""

from __future__ import annotations

import json

from microtome.atlas.site.addresses import Addresses
from microtome.atlas.widgets import Atlas


def index_script(atlas: Atlas, addresses: Addresses) -> str:
    """The index as a script, so that it loads from disk.

    Units are held by layer, their labels in one list each: ten thousand take some hundred kilobytes.
    """
    layers = []
    for page in atlas.layers:
        labels = [card.label for card in page.cards if card.paged]
        units = [card.unit for card in page.cards if card.paged]
        layers.append(
            [page.name, addresses.layer(page.name), addresses.unit(page.name, 0)[: -len("0.html")], units, labels]
        )
    images = [[page.id, page.title, addresses.image(page.id), _class(atlas, page.truth)] for page in atlas.images]
    classes = [[_class(atlas, page.index), addresses.label(page.index)] for page in atlas.class_pages]
    paged = {page.name for page in atlas.layers}
    others = [name for name in atlas.all_layers if name not in paged]
    content = {"layers": layers, "images": images, "classes": classes, "others": others}
    packed = json.dumps(content, ensure_ascii=True, separators=(",", ":"))
    return f"window.atlasIndex={packed};\n"


def _class(atlas: Atlas, index: int | None) -> str:
    if index is None:
        return ""
    return atlas.classes[index] if index < len(atlas.classes) else str(index)
