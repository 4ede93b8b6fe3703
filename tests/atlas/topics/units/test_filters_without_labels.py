"""Filters beside components on the page of the first layer, none on others."""

from __future__ import annotations

import torch

from atlas.small import shown
from microtome.atlas import TOPICS
from microtome.atlas.album import Album
from microtome.atlas.pages.layer_page import layer_page
from microtome.atlas.widgets import Gallery, Section
from microtome.units import NaturalFilters

TITLE = "Its filters beside those that images give without labels"


def _sections(album: Album, layer: str) -> list[Section]:
    return [one for one in layer_page(album, layer, TOPICS).sections if one.title == TITLE]


def test_filters_and_their_components_side_by_side(album: Album) -> None:
    """The cosine below each picture is that of the two kernels that the picture holds, by hand."""
    (gallery,) = shown(_sections(album, "one"), Gallery)
    found = album.one(NaturalFilters, "natural-filters", layer="one")
    assert isinstance(found, NaturalFilters)
    assert len(gallery.pictures) == 4
    assert gallery.pictures[0].sprite.cell == (3, 7)  # 3 x 3, a column between, 3 x 3
    weights = album.net.model.one.weight.detach()
    for picture in gallery.pictures:
        unit, value = (part.strip() for part in picture.note.split(":"))
        one = weights[int(unit)].flatten()
        other = found.components[int(found.partner[int(unit)])].flatten()
        cosine = torch.nn.functional.cosine_similarity(one - one.mean(), other - other.mean(), 0).abs()
        assert f"{float(cosine):.2f}" == value
    values = [float(picture.note.split(":")[1]) for picture in gallery.pictures]
    assert values == sorted(values, reverse=True)


def test_a_layer_that_does_not_read_the_image_has_none(album: Album) -> None:
    assert _sections(album, "two") == []
