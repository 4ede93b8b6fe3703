"""The page of a class, with the sections of all topics."""

from __future__ import annotations

from collections.abc import Sequence

from microtome.atlas.album import Album
from microtome.atlas.pages.page_sections import arranged, numbers
from microtome.atlas.topic import Topic
from microtome.atlas.widgets import ClassPage

__all__ = ["class_page"]

_ORDER = (
    "Images made for it",
    "Its average image",
    "What it is confused with",
    "Its images",
    "Taken for another class, or falsely for this one",
    "Units that respond most to it",
)


def class_page(album: Album, index: int, topics: Sequence[Topic]) -> ClassPage:
    """The page of one class."""
    return ClassPage(
        index=index,
        facts=tuple(numbers(topics, "class", album, index)),
        sections=arranged(topics, "class", _ORDER, album, index),
    )
