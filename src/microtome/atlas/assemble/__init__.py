"""How do results become pages? Each page's dataclass is filled from the results, its pictures written as sprites."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

from microtome.atlas.assemble.album import Album
from microtome.atlas.assemble.classes import class_pages
from microtome.atlas.assemble.images import image_page
from microtome.atlas.assemble.layers import layer_page
from microtome.atlas.assemble.overview import overview
from microtome.atlas.assemble.units import unit_pages
from microtome.atlas.pages import Atlas
from microtome.atlas.plan import Plan
from microtome.atlas.site import render
from microtome.atlas.store import Store
from microtome.atlas.task import Task
from microtome.results import versions

__all__ = ["Album", "atlas", "site"]


def site(plan: Plan, store: Store, tasks: Sequence[Task], command: str) -> int:
    """Write the site of a finished run; returns the number of pages."""
    found = atlas(Album(plan, store, tasks, command))
    if store.local:
        return render(found, store.root)
    with tempfile.TemporaryDirectory() as folder:  # what renders writes to a disk; a bucket gets copies
        count = render(found, folder)
        for file in sorted(Path(folder).rglob("*")):
            if file.is_file():
                store.write_if_changed(file.relative_to(folder).as_posix(), file.read_bytes())
    return count


def hints(album: Album) -> tuple[tuple[str, str], ...]:
    """Which command makes what this budget leaves out."""
    larger = {"quick": "standard", "standard": "full"}.get(album.budget.name)
    if larger is None or not album.command:
        return ()
    plain = album.command.replace(f" --budget {album.budget.name}", "")
    return (("*", f"{plain} --budget {larger}"),)


def atlas(album: Album) -> Atlas:
    """All pages; those of units are made one after the other while they are written."""
    layers = [layer_page(album, layer) for layer in album.plan.outline.layers]
    return Atlas(
        title=album.net.name,
        command=album.command,
        classes=tuple(album.net.classes or [str(index) for index in range(album.seen.logits.shape[1])]),
        overview=overview(album),
        layers=layers,
        units=unit_pages(album),
        images=[image_page(album, index) for index in album.images],
        class_pages=class_pages(album),
        all_layers=tuple(album.net.layers),
        hints=hints(album),
        note="microtome {microtome}, torch {torch}, Python {python}".format(**versions()),
    )
