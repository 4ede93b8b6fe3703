"""The page of an image: the predicted classes, and the sections of all topics."""

from __future__ import annotations

from collections.abc import Sequence

from microtome.atlas.album import Album
from microtome.atlas.pages.page_sections import arranged
from microtome.atlas.topic import Topic
from microtome.atlas.topics.network.predictions import probabilities
from microtome.atlas.widgets import ImagePage, Maps

__all__ = ["image_page"]

_ORDER = (
    "Images that look alike to the network",
    "What in the image decided",
    "One class against another",
    "What happens when a part is covered",
    "How the score comes about",
    "What each layer makes of it",
    "What is left of it at each layer",
)


def image_page(album: Album, index: int, topics: Sequence[Topic]) -> ImagePage:
    """The page of one image."""
    predicted, truth = album.chosen.predicted[index], int(album.seen.labels[index])
    sections = arranged(topics, "image", _ORDER, album, index)
    confidence = float(album.seen.readout[index, predicted]) if album.seen.quantity == "probability" else None
    return ImagePage(
        id=album.image_id(index),
        title=_title(album.subject.name(index)),
        picture=album.picture(index, note=""),
        truth=truth if truth >= 0 else None,
        predicted=predicted,
        probability=confidence,
        probabilities=probabilities(album, index),
        overlay=any(isinstance(part.content, Maps) for section in sections for part in section.parts),
        sections=sections,
    )


def _title(name: str) -> str:
    """The name of a file; the number of the image for a data set without names."""
    return f"image {name}" if name.isdigit() else name
