"""The unit to begin with: the most selective one with the class of its highest response, where no label is known."""

from __future__ import annotations

import pytest

from microtome.atlas.album import Album
from microtome.atlas.pages import places_to_begin


def test_the_most_selective_unit_is_named_with_its_strongest_class(
    album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not the least selective one, and not the class of its second strongest response."""
    monkeypatch.setattr(places_to_begin, "layer_tuning", lambda album, layer: None)
    start = places_to_begin._unit(album)
    assert start is not None
    best, layer, unit = max(
        (float(album.tables[layer].selectivity[unit]), layer, unit)
        for layer in album.layers
        for unit in album.paged(layer)
    )
    assert best > 0
    name = album.class_name(int(album.tables[layer].groups[unit, 0]))
    assert name in start.text
    assert start.text.endswith(f"{layer}:{unit}")
