"""Addresses of the pages of layers, units, images and classes."""

from __future__ import annotations

import re
from collections.abc import Iterable

from microtome.atlas.widgets import Atlas, Link


def slugs(names: Iterable[str]) -> dict[str, str]:
    """File names for layers or images, different for different names on any file system.

    Characters that file systems or addresses do not allow become ``-``; equal results are numbered in
    the order of names, so that they stay the same while the list of names does.

    Examples
    --------
    >>> slugs(["conv1", "/relu", "relu", "layer1.0/relu.1"])
    {'conv1': 'conv1', '/relu': 'relu', 'relu': 'relu-2', 'layer1.0/relu.1': 'layer1.0-relu.1'}
    """
    found: dict[str, str] = {}
    taken: set[str] = set()
    for name in names:
        plain = re.sub(r"[^A-Za-z0-9._]+", "-", name).strip("-.") or "page"
        slug, number = plain, 2
        while slug.lower() in taken:
            slug, number = f"{plain}-{number}", number + 1
        taken.add(slug.lower())
        found[name] = slug
    return found


class Addresses:
    """The address of every page of an atlas, relative to the site's folder.

    Parameters
    ----------
    atlas : Atlas
        Its layers, images and classes. The cards of the layers determine which units have pages.
    """

    def __init__(self, atlas: Atlas) -> None:
        names = dict.fromkeys([*atlas.all_layers, *(page.name for page in atlas.layers)])
        self._layers = slugs(names)
        self._paged = {page.name: frozenset(card.unit for card in page.cards if card.paged) for page in atlas.layers}
        self._images = slugs(page.id for page in atlas.images)
        self._classes = frozenset(str(page.index) for page in atlas.class_pages)

    def of(self, link: Link | None) -> str | None:
        """Where a link leads, or None if there is no such page."""
        if link is None:
            return None
        if link.kind == "unit":
            return self.unit(link.name, link.unit) if link.unit in self._paged.get(link.name, ()) else None
        if link.kind == "layer":
            return self.layer(link.name) if link.name in self._paged else None
        if link.kind == "image":
            return self.image(link.name) if link.name in self._images else None
        return self.label(int(link.name)) if link.name in self._classes else None

    def layer(self, name: str) -> str:
        """A layer's page."""
        return f"layers/{self._layers[name]}.html"

    def unit(self, layer: str, unit: int) -> str:
        """A unit's page."""
        return f"units/{self._layers[layer]}/{unit}.html"

    def image(self, name: str) -> str:
        """An image's page."""
        return f"images/{self._images[name]}.html"

    def label(self, index: int) -> str:
        """A class's page."""
        return f"classes/{index}.html"
