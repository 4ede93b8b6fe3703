"""Arrangement of pages: sections and numbers of all topics, joined and in order."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

from microtome.atlas.topic import Topic
from microtome.atlas.widgets import Number, Section
from microtome.units import LayerPatches

__all__ = ["arranged", "joined", "numbers", "unit_state"]


def arranged(topics: Sequence[Topic], page: str, order: Sequence[str], *about: Any) -> tuple[Section, ...]:
    """The sections of all topics for a page: those whose titles are in ``order`` first, then all others."""
    found = [section for topic in topics if page in topic.sections for section in topic.sections[page](*about)]
    return joined(found, order)


def joined(sections: Iterable[Section], order: Sequence[str] = ()) -> tuple[Section, ...]:
    """Sections of equal title as one, in order.

    Examples
    --------
    >>> [section.title for section in joined([Section("b", ()), Section("c", ()), Section("a", ())], ["a", "b"])]
    ['a', 'b', 'c']
    """
    by_title: dict[str, Section] = {}
    for section in sections:
        known = by_title.get(section.title)
        by_title[section.title] = (
            section if known is None else dataclasses.replace(known, parts=(*known.parts, *section.parts))
        )
    named = [title for title in order if title in by_title]
    return tuple(by_title[title] for title in dict.fromkeys([*named, *by_title]))


def numbers(topics: Sequence[Topic], page: str, *about: Any) -> list[Number]:
    """The numbers of all topics for the head of a page."""
    return [number for topic in topics if page in topic.facts for number in topic.facts[page](*about)]


def unit_state(table: LayerPatches, unit: int) -> str:
    """``"dead"``, ``"saturated"`` or empty."""
    return "dead" if bool(table.dead[unit]) else "saturated" if bool(table.saturated[unit]) else ""
