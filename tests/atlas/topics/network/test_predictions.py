"""What pages say about predictions is true also of images that no other page shows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from atlas.small import shown
from microtome.atlas import TOPICS
from microtome.atlas.album import Album
from microtome.atlas.pages.class_page import class_page
from microtome.atlas.topics.network import predictions
from microtome.atlas.widgets import Confusion, Gallery


def _galleries(album: Album, index: int) -> dict[str, Gallery]:
    titles = ("Its images", "Taken for another class, or falsely for this one")
    sections = class_page(album, index, TOPICS).sections
    return {one.title: shown((one,), Gallery)[0] for one in sections if one.title in titles}


def test_a_class_shows_its_images_and_mistakes_without_pages(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    """No image of the class has a page: the page shows them all the same, and never says that there are none."""
    monkeypatch.setitem(album.__dict__, "thumbnails", {})
    seen = album.seen
    for index in range(seen.logits.shape[1]):
        of_it = int((seen.labels == index).sum())
        mistakes = int((((seen.labels == index) | (seen.predicted == index)) & seen.wrong).sum())
        images, wrong = _galleries(album, index).values()
        if of_it:
            assert len(images.pictures) == min(of_it, predictions._EXAMPLES)
            assert images.caption.startswith(f"{len(images.pictures)} of {of_it} image")
        assert len(wrong.pictures) == min(mistakes, predictions._EXAMPLES)
        assert all(picture.link is None for picture in (*images.pictures, *wrong.pictures))
    assert bool(seen.wrong.any())


def test_the_caption_of_confusions_speaks_of_a_matrix_only_where_one_is_drawn(
    album: Album, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn = predictions._confusion(album)
    assert isinstance(drawn, Confusion)
    assert "diagonal" in drawn.caption
    monkeypatch.setattr(predictions, "_READABLE", 1)
    listed = predictions._confusion(album)
    assert isinstance(listed, Confusion)
    assert listed.counts is None
    assert "diagonal" not in listed.caption
    assert f"{int(album.seen.wrong.sum())} of them taken for another class" in listed.caption


def test_a_probability_that_is_nearly_one_is_not_said_to_be_one() -> None:
    from microtome.atlas.topics.images.occlusion_maps import _finding

    finding: Callable[..., Any] = _finding
    text = finding("probability", "7", 1 - 1e-6, 1e-6, torch.tensor([7]), 7, False)
    assert text.endswith("the probability of 7 stays above 99.9 %.")
    assert finding("probability", "7", 0.7, 0.1, torch.tensor([7]), 7, False).endswith("stays at 60.0 % or more.")
