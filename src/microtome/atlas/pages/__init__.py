"""How do stored results become pages? Topics fill each page, and the site writes it as HTML."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from microtome.atlas.album import Album
from microtome.atlas.pages.class_page import class_page
from microtome.atlas.pages.image_page import image_page
from microtome.atlas.pages.layer_page import layer_page
from microtome.atlas.pages.overview_page import overview_page
from microtome.atlas.pages.unit_page import unit_pages
from microtome.atlas.planning.budget import LARGER
from microtome.atlas.site import render
from microtome.atlas.topic import Topic
from microtome.atlas.widgets import Atlas
from microtome.results import versions

__all__ = ["atlas", "site"]


def site(album: Album, topics: Sequence[Topic], *, larger: str = "") -> int:
    """Write the site of a finished run; returns the number of pages.

    ``larger`` is the time of the next larger budget, in words.
    """
    with album.sprites:
        if album.store.local:
            count = render(atlas(album, topics, larger=larger), album.store.root)
        else:
            count = _through_a_folder(album, topics, larger)
    if album.store.local:
        album.sprites.remove_others()
    return count


def _through_a_folder(album: Album, topics: Sequence[Topic], larger: str) -> int:
    """Write the pages to a disk and copy them to the bucket."""
    with tempfile.TemporaryDirectory() as folder:
        count = render(atlas(album, topics, larger=larger), folder)
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                album.store.write_if_changed(file.relative_to(folder).as_posix(), file.read_bytes())
    return count


def atlas(album: Album, topics: Sequence[Topic], *, larger: str = "") -> Atlas:
    """All pages; those of units are made one after the other while they are written."""
    layers = [layer_page(album, layer, topics) for layer in album.layers]
    return Atlas(
        title=album.net.name,
        command=album.commands.atlas(),
        classes=tuple(album.net.classes or [str(index) for index in range(album.seen.logits.shape[1])]),
        overview=overview_page(album, topics),
        layers=layers,
        units=unit_pages(album, topics),
        images=[image_page(album, index, topics) for index in album.images],
        class_pages=[class_page(album, index, topics) for index in album.chosen.classes],
        all_layers=tuple(album.net.layers),
        hints=_hints(album),
        larger=larger,
        note="microtome {microtome}, torch {torch}, Python {python}".format(**versions()),
    )


def _hints(album: Album) -> tuple[tuple[str, str], ...]:
    """The command for results that this budget leaves out: the same with the next larger budget."""
    larger = LARGER.get(album.budget.name)
    command = album.commands.atlas(budget=larger) if larger is not None else ""
    return (("*", command),) if command else ()
