"""Bars of pattern and place on pages hold the shares of an analysis of variance by hand."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from atlas.small import shown
from microtome import units
from microtome.atlas import TOPICS
from microtome.atlas.album import Album
from microtome.atlas.pages.layer_page import layer_page
from microtome.atlas.pages.unit_page import unit_pages
from microtome.atlas.widgets import Gallery, Shares


def _by_hand(album: Album) -> dict[int, tuple[float, float, float]]:
    """The two-way split of the largest response of each unit of the second convolution, in float64."""
    stimuli = units.placed((12, 10))
    model = album.net.model
    with torch.no_grad():
        maps = model.two(functional.max_pool2d(functional.relu(model.one(album.net.normalise(stimuli.images))), 2))
    y = maps.amax((2, 3)).double().T.reshape(6, len(stimuli.names), len(stimuli.places))
    mean = y.mean((1, 2), keepdim=True)
    what, where = y.mean(2, keepdim=True) - mean, y.mean(1, keepdim=True) - mean
    whole = (y - mean).square().sum((1, 2))
    parts = [one.expand_as(y).square().sum((1, 2)) / whole for one in (what, where, y - mean - what - where)]
    return {unit: tuple(float(part[unit]) for part in parts) for unit in range(6)}


def test_the_layer_page_holds_the_shares(album: Album) -> None:
    """Independent: written out on the plain forward."""
    (bars,) = shown(layer_page(album, "two", TOPICS).sections, Shares)
    expected = _by_hand(album)
    assert {int(row.name.partition(":")[2]) for row in bars.rows} == set(expected)
    for row in bars.rows:
        assert row.parts == pytest.approx(expected[int(row.name.partition(":")[2])], abs=2e-4)
        assert sum(row.parts) == pytest.approx(1, abs=2e-4)
    pattern = [row.parts[0] for row in bars.rows]
    assert pattern == sorted(pattern, reverse=True)


def test_the_unit_page_names_its_shares(album: Album) -> None:
    page = next(page for page in unit_pages(album, TOPICS) if (page.layer, page.unit) == ("two", 3))
    (section,) = [one for one in page.sections if one.title == "What it is tuned to"]
    (gallery,) = shown([section], Gallery)
    pattern, place, both = (100 * value for value in _by_hand(album)[3])
    assert f"the pattern explains {pattern:.0f} %" in gallery.caption
    assert f"the position {place:.0f} %" in gallery.caption
    assert f"both together {both:.0f} %" in gallery.caption
    assert [picture.note for picture in gallery.pictures][1] == "by place"


def test_a_unit_is_shown_with_the_stimulus_of_its_highest_response(
    album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written for the page is the stimulus with the highest response on the plain forward, to one level."""
    stimuli, model, written = units.placed((12, 10)), album.net.model, {}
    with torch.no_grad():
        maps = model.two(functional.max_pool2d(functional.relu(model.one(album.net.normalise(stimuli.images))), 2))
    best = stimuli.images[maps.amax((2, 3)).argmax(0)]
    natural = type(album.sprites).natural

    def noted(sprites: object, name: str, pictures: torch.Tensor, **options: object) -> object:
        written[name] = pictures
        return natural(sprites, name, pictures, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(type(album.sprites), "natural", noted)
    monkeypatch.setattr(album, "remembered", lambda key, make: make())
    page = next(page for page in unit_pages(album, TOPICS) if (page.layer, page.unit) == ("two", 3))
    assert page.sections
    torch.testing.assert_close(written["placed-two"], best, atol=1 / 255, rtol=0)
    assert not torch.equal(best[3], best[0])
