"""A topic of the atlas: its tasks, its jobs, and what it adds to pages."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Job, Task
from microtome.atlas.widgets import Number, Section

__all__ = ["Topic"]


def _no_tasks(plan: Plan, chosen: Selection) -> list[Task]:
    return []


@dataclass(frozen=True)
class Topic:
    """One topic, defined in one file.

    Attributes
    ----------
    name : str
        Name in words, for messages.
    tasks : function
        ``(plan, selection) -> tasks``: the tasks, as many as the budget allows.
    jobs : mapping of str to function
        By name, ``(subject, *needed, **parameters) -> Result``: what computes a task. ``needed`` are the results
        of the tasks that it needs. The function must be importable, so that other processes find it.
    sections : mapping of str to function
        By page, what the topic shows there: ``"overview"``: ``(album)``; ``"layer"``: ``(album, layer)``;
        ``"unit"``: ``(album, layer, unit)``; ``"image"``: ``(album, index)``; ``"class"``: ``(album, index)``.
        Each returns sections.
    facts : mapping of str to function
        With the same pages and arguments: numbers for the head of the page.

    Notes
    -----
    ``docs/howto/atlas_topic.md`` shows a complete topic.
    """

    name: str
    tasks: Callable[[Plan, Selection], Iterable[Task]] = _no_tasks
    jobs: Mapping[str, Job] = field(default_factory=dict)
    sections: Mapping[str, Callable[..., Iterable[Section]]] = field(default_factory=dict)
    facts: Mapping[str, Callable[..., Iterable[Number]]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check the names of pages."""
        known = ("overview", "layer", "unit", "image", "class")
        named: dict[str, Any] = {**self.sections, **self.facts}
        if unknown := [page for page in named if page not in known]:
            raise ValueError(f'topic "{self.name}" names the page "{unknown[0]}"; pages are {", ".join(known)}.')
