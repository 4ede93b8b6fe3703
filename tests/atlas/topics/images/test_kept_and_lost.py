"""Kept and lost parts on the page are those of the network."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from atlas.small import shown
from microtome import spaces
from microtome.atlas import TOPICS
from microtome.atlas.album import Album
from microtome.atlas.pages.image_page import image_page
from microtome.atlas.pages.overview_page import overview_page
from microtome.atlas.topics.images import kept_and_lost
from microtome.atlas.topics.images.kept_and_lost import Kept, lost_numbers
from microtome.atlas.widgets import Amounts, KeptParts


def test_kept_parts_are_those_of_the_network_and_the_rest_is_lost(album: Album) -> None:
    task = album.find("kept")[0]
    result = album.load(task)
    assert isinstance(result, Kept)
    images = album.subject.pictures(task.parameters["images"])
    again = spaces.kept_and_lost(album.net, images, ["one", "two"], iterations=160, dense=False)
    assert torch.allclose(result.kept["two"].double(), again.kept[1], atol=2e-3)
    (parts,) = shown(image_page(album, task.parameters["images"][0], TOPICS).sections, KeptParts)
    assert [row.layer for row in parts.rows] == ["one", "two"]
    lost = {number.name: number.value for number in parts.rows[1].numbers}["lost"]
    assert lost == pytest.approx(100 * float(again.share[1, 0]), rel=1e-4)


def test_the_overview_tells_what_each_layer_rejects(album: Album) -> None:
    (rejected,) = shown(overview_page(album, TOPICS).sections, Amounts)
    assert {row.name for row in rejected.rows} == {"one", "two", "head"}


def test_a_layer_that_reads_zeros_only_has_no_bar_and_is_named(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    found = album.one(spaces.Rejected, "rejected")
    assert isinstance(found, spaces.Rejected)
    share = found.share.clone()
    share[0] = torch.nan
    monkeypatch.setattr(album, "one", lambda *_: dataclasses.replace(found, share=share))
    rejected = kept_and_lost._rejected_shares(album)
    assert isinstance(rejected, Amounts)
    assert [row.name for row in rejected.rows] == found.layers[1:]
    assert f"Not defined, since all that they read is zero: {found.layers[0]}." in rejected.caption


def test_a_layer_inside_a_shown_block_leads_to_the_page_of_the_block(
    album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(album, "layers", ["blocks.4", "head"])
    assert kept_and_lost._page_of(album, "blocks.4.conv") == "blocks.4"
    assert kept_and_lost._page_of(album, "head") == "head"
    assert kept_and_lost._page_of(album, "blocks.40.conv") is None


def test_the_share_of_an_image_without_energy_is_told_as_not_defined() -> None:
    nothing = torch.full((1, 2), torch.nan)
    found = Kept(
        layers=["one"], kept={"one": torch.zeros(2, 1, 4, 4)}, share=torch.tensor([[torch.nan, 0.5]]),
        error=torch.tensor([[torch.nan, 0.0]]), null_share=nothing, known=torch.tensor([[False, True]]),
        reached=torch.full((1, 2), 0.01), threshold=0.01,
    )  # fmt: skip
    assert [number.value for number in lost_numbers(found, 0, 0)] == ["not defined"]
    assert [number.value for number in lost_numbers(found, 0, 1)] == [50.0, 0.0]
