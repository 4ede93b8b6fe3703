"""Write the site: each page from its template, the same bytes for the same atlas."""

from __future__ import annotations

import os
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from microtome.atlas.site.addresses import Addresses
from microtome.atlas.site.numbers import count, number, percent, signed, typeset
from microtome.atlas.site.search import index_script
from microtome.atlas.site.surface_drawing import surface_picture
from microtome.atlas.site.view import View
from microtome.atlas.widgets import (
    Absent,
    Atlas,
    ClassPage,
    ImagePage,
    LayerPage,
    Link,
    Part,
    UnitPage,
    to_class,
    to_layer,
)
from microtome.atlas.wording import with_article
from microtome.errors import StoreError
from microtome.result_html import unbroken

ASSETS = ("style.css", "atlas.js", "map_canvas.css", "map_canvas.js", "surface_canvas.css", "surface_canvas.js")


def render(atlas: Atlas, folder: str | os.PathLike[str]) -> int:
    """Write the site of an atlas.

    Sprites are not touched: they must lie in the folder under the names that the pages use.

    Parameters
    ----------
    atlas : Atlas
        What the pages show. Its units are read once, page by page.
    folder : path
        Where ``index.html`` goes; pages that are already there are replaced.

    Returns
    -------
    int
        How many pages were written.

    Raises
    ------
    StoreError
        When the folder cannot be written.
    """
    out = Path(folder)
    addresses = Addresses(atlas)
    site = _Site(atlas, addresses)
    for name in ASSETS:
        _write(out / "assets" / name, _asset(name))
    _write(out / "assets" / "search.js", index_script(atlas, addresses).encode())
    written = 0
    for address, text in site.pages():
        _write(out / address, text.encode())
        written += 1
    return written


def _write(file: Path, content: bytes) -> None:
    """Write one file; a site cut short is written again, so nothing is flushed to disk."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(content)
    except OSError as error:
        raise StoreError(f"{file} cannot be written: {error.strerror or error}. Choose a writable folder.") from error


def _asset(name: str) -> bytes:
    return resources.files(__package__ or "microtome.atlas.site").joinpath("assets", name).read_bytes()


class _Site:
    """The templates, compiled once, and the order of pages."""

    def __init__(self, atlas: Atlas, addresses: Addresses) -> None:
        self._atlas = atlas
        self._addresses = addresses
        self._environment = templates()
        self._layers = {page.name: page for page in atlas.layers}

    def pages(self) -> Iterator[tuple[str, str]]:
        """Every page with its address."""
        yield self._page("index.html", "overview", self._atlas.overview)
        layers = [page.name for page in self._atlas.layers]
        for at, layer in enumerate(self._atlas.layers):
            before, after = _around([self._addresses.layer(name) for name in layers], at)
            yield self._page(self._addresses.layer(layer.name), "layer", layer, before=before, after=after)
        yield from self._units()
        ids = [self._addresses.image(page.id) for page in self._atlas.images]
        for at, image in enumerate(self._atlas.images):
            before, after = _around(ids, at)
            yield self._page(ids[at], "image", image, before=before, after=after)
        indices = [self._addresses.label(page.index) for page in self._atlas.class_pages]
        for at, of_class in enumerate(self._atlas.class_pages):
            before, after = _around(indices, at)
            yield self._page(indices[at], "class", of_class, before=before, after=after)

    def _units(self) -> Iterator[tuple[str, str]]:
        order: dict[str, list[int]] = {}
        for page in self._atlas.units:
            if page.layer not in order:
                order[page.layer] = [card.unit for card in self._layers[page.layer].cards if card.paged]
            units = order[page.layer]
            paths = [self._addresses.unit(page.layer, unit) for unit in _neighbourhood(units, page.unit)]
            own = self._addresses.unit(page.layer, page.unit)
            before, after = _around(paths, paths.index(own))
            yield self._page(own, "unit", page, before=before, after=after)

    def _page(
        self, address: str, kind: str, page: Any, before: str | None = None, after: str | None = None
    ) -> tuple[str, str]:
        view = View(self._atlas, self._addresses, address, self._environment)
        context = {"page": page, "view": view, "atlas": self._atlas}
        content = self._environment.get_template(f"{kind}.html").render(context)
        title, crumbs = _heading(self._atlas, page)
        whole = self._environment.get_template("base.html").render(
            **context,
            content=Markup(content),  # noqa: S704 - rendered with escaping
            title=title,
            crumbs=crumbs,
            kind=kind,
            before=view.root + before if before else None,
            after=view.root + after if after else None,
        )
        return address, unbroken(whole)


def templates() -> Environment:
    """The templates of all pages, with the filters and functions that they use."""
    environment = Environment(
        loader=PackageLoader("microtome.atlas.site"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters.update(
        number=number, signed=signed, percent=percent, typeset=typeset, surface_picture=surface_picture
    )
    environment.globals.update(
        count=count, with_article=with_article, to_layer=to_layer, to_class=to_class, Link=Link, Part=Part
    )
    environment.tests["absent"] = lambda part: isinstance(part, Absent)
    environment.tests["there"] = lambda part: part is not None and not isinstance(part, Absent)
    return environment


def _heading(atlas: Atlas, page: Any) -> tuple[str, list[tuple[str, Link | None]]]:
    """A page's title and the way to it."""
    if isinstance(page, LayerPage):
        return page.name, [(page.name, None)]
    if isinstance(page, UnitPage):
        return f"{page.layer}:{page.unit}", [(page.layer, to_layer(page.layer)), (f"unit {page.unit}", None)]
    if isinstance(page, ImagePage):
        crumbs: list[tuple[str, Link | None]] = [(page.title, None)]
        if page.truth is not None and page.truth < len(atlas.classes):
            crumbs.insert(0, (atlas.classes[page.truth], to_class(page.truth)))
        return page.title, crumbs
    if isinstance(page, ClassPage):
        name = atlas.classes[page.index] if page.index < len(atlas.classes) else str(page.index)
        return f"class {name}", [(f"class {name}", None)]
    return "overview", []


def _neighbourhood(units: list[int], unit: int) -> list[int]:
    """The unit with the one before and the one after."""
    at = units.index(unit)
    return units[max(0, at - 1) : at + 2]


def _around(paths: list[str], at: int) -> tuple[str | None, str | None]:
    return paths[at - 1] if at > 0 else None, paths[at + 1] if at + 1 < len(paths) else None
