"""The image page dissects the unit that contributes most to the score, by gradient times activation."""

from __future__ import annotations

from atlas.small import shown
from microtome.atlas import TOPICS
from microtome.atlas.album import Album
from microtome.atlas.pages.image_page import image_page
from microtome.atlas.widgets import DissectionTable


def test_the_image_page_dissects_the_unit_that_contributes_most(album: Album) -> None:
    index = album.images[0]
    page = image_page(album, index, TOPICS)
    (table,) = shown(page.sections, DissectionTable)
    record = album.net.run(album.subject.pictures([index]), [page.predicted], record="two", gradient=True)
    amounts = (record.value["two"] * record.gradient["two"])[0].sum((1, 2))
    assert table.unit.unit == int(amounts.argmax())
    assert table.check.ok
    assert table.size == tuple(record.value["two"].shape[-2:])
