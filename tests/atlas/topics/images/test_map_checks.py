"""Checks of maps: areas as the quality measures give them, and sentences that say what the numbers say."""

from __future__ import annotations

import torch

from atlas.small import shown
from microtome.atlas import TOPICS
from microtome.atlas.album import Album
from microtome.atlas.pages.image_page import image_page
from microtome.atlas.topics.images.map_checks import MapChecks, RandomWeights
from microtome.atlas.topics.images.map_findings import against_chance, against_noise, agreement
from microtome.atlas.widgets import Statement
from microtome.attribution import integrated_gradients
from microtome.attribution.quality import deletion, insertion


def test_the_areas_are_those_of_the_quality_measures(album: Album) -> None:
    """The map is made anew; what is stored has steps of 1/127, which changes the order of few pixels."""
    index = album.images[0]
    found, place = album.with_item(MapChecks, "map-checks", "images", index)
    assert isinstance(found, MapChecks)
    row = found.methods.index("integrated-gradients")
    picture, target = album.subject.pictures([index]), album.chosen.predicted[index]
    made = integrated_gradients(album.net, picture, target, steps=200)
    for trial, areas in ((deletion, found.deletion), (insertion, found.insertion)):
        expected = trial(album.net, picture, made, target, steps=6).area
        torch.testing.assert_close(areas[row, place], expected[0].float(), rtol=0.02, atol=0.01)


def test_the_image_page_says_what_was_found_with_the_numbers(album: Album) -> None:
    page = image_page(album, album.images[0], TOPICS)
    (said,) = shown(page.sections, Statement)
    found, _ = album.with_item(MapChecks, "map-checks", "images", album.images[0])
    assert len(said.numbers) == len(found.methods) + 1
    assert said.numbers[-1][0] == "random maps"
    assert "random pixels" in said.text
    weights = album.one(RandomWeights, "random-weights")
    assert isinstance(weights, RandomWeights)
    assert "With random weights" in said.text


def test_sentences_follow_the_numbers() -> None:
    assert agreement(["a", "b", "c"], [0.1, 0.2, 0.0]) == (
        "A, b and c do not name the same places (mean rank correlation of 3 pairs 0.10)."
    )
    said = against_chance(["a", "b", "c"], [0.1, 0.6, 0.2, 0.5], [0.9, 0.3, 0.4, 0.5])
    assert said.startswith("A finds pixels that matter")
    assert "C passes only one of these two tests." in said
    assert "B does no better than random pixels" in said
    assert "do not rely" not in against_chance(["a"], [0.1, 0.5], [0.9, 0.5])
    assert "says little" not in against_noise({"a": 0.1, "b": 0.2}, 3)
    assert "they say little about what was learned (3 images)" in against_noise({"a": 0.9, "b": 0.8}, 3)
