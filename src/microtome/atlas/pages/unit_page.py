"""The pages of units, with the sections of all topics."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from microtome.atlas.album import Album
from microtome.atlas.pages.page_sections import arranged, numbers, unit_state
from microtome.atlas.topic import Topic
from microtome.atlas.topics.units.unit_tuning import confidence, label, layer_tuning
from microtome.atlas.widgets import UnitPage

__all__ = ["unit_pages"]

_ORDER = (
    "Images made to drive it",
    "What it is tuned to",
    "What drives it in the data",
    "How it responds to each class",
    "How strong its responses are",
    "What changes without it",
    "How one response comes about",
    "What it reads, and what reads it",
    "Units that respond alike",
)


def unit_pages(album: Album, topics: Sequence[Topic]) -> Iterator[UnitPage]:
    """The pages of all units that have one, layer by layer."""
    for layer in album.layers:
        for unit in album.paged(layer):
            yield _page(album, layer, unit, topics)


def _page(album: Album, layer: str, unit: int, topics: Sequence[Topic]) -> UnitPage:
    tuning = layer_tuning(album, layer)
    return UnitPage(
        layer=layer,
        unit=unit,
        label=label(album, layer, unit),
        confidence=confidence(album, layer, unit),
        second=tuning.secondary[unit] if tuning else "",
        state=unit_state(album.tables[layer], unit),
        facts=tuple(numbers(topics, "unit", album, layer, unit)),
        sections=arranged(topics, "unit", _ORDER, album, layer, unit),
    )
