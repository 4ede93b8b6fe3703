"""Superstimuli on pages: an image that is not trusted is marked and never stands for its unit."""

from __future__ import annotations

import pytest

from microtome.atlas.album import Album
from microtome.atlas.topics.units import unit_criteria, unit_superstimuli
from microtome.atlas.widgets import Stimuli, UnitTable


def test_an_untrusted_image_never_stands_for_its_unit(album: Album) -> None:
    seen = set()
    for layer in album.layers:
        for unit, (result, row) in unit_superstimuli._stimuli(album, layer, 1).items():
            assert result.trusted is not None
            trusted = bool(result.trusted[row])
            picture = unit_superstimuli.unit_picture(album, layer, unit)
            assert picture is not None
            assert picture.alt.startswith("superstimulus" if trusted else "strongest patch")
            section = unit_superstimuli._unit(album, layer, unit)[0]
            shown = section.parts[0].content
            assert isinstance(shown, Stimuli)
            assert shown.items[0].trusted is trusted
            assert bool(shown.items[0].reason) != trusted
            seen.add(trusted)
    assert seen  # two steps of ascent leave some images untrusted


def test_the_caption_says_only_what_stands_there(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = album.layers[0]
    unit = album.paged(layer)[0]

    def caption() -> str:
        shown = unit_superstimuli._unit_stimuli(album, layer, unit)
        assert isinstance(shown, Stimuli)
        return shown.caption

    assert "raise and to lower" in caption()
    found = unit_superstimuli._stimuli
    monkeypatch.setattr(
        unit_superstimuli, "_stimuli", lambda one, name, sign, count: {} if sign < 0 else found(one, name, sign, count)
    )
    assert "lower" not in caption()


def test_the_criteria_of_every_unit_with_a_page_are_shown(album: Album) -> None:
    for layer in album.layers:
        table = unit_criteria._layer(album, layer)[0].parts[0].content
        assert isinstance(table, UnitTable)
        assert sorted(row.unit for row in table.rows) == sorted(album.paged(layer))
        first = [row.values[0] for row in table.rows]
        assert first == sorted(first, key=lambda value: -(value or 0.0))  # the largest variation comes first
        assert "variation" in table.columns
