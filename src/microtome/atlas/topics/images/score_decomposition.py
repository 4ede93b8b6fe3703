"""How the score comes about: the class score of each shown image as a sum over units, for its page."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from microtome.atlas.album import Album
from microtome.atlas.planning.plan import Plan
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.units.unit_superstimuli import unit_picture
from microtome.atlas.topics.units.unit_tuning import label
from microtome.atlas.widgets import Decomposition, Part, Section, Step, to_class, to_unit
from microtome.attribution.relevance.unit_sums import ScoreDecomposition, decompose
from microtome.loading import Subject

__all__ = ["SCORE_DECOMPOSITION"]

_PASSES = 60  # approximate cost of a decomposition in forward passes


# -- tasks and job -------------------------------------------------------------------------------------------------


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    layers, cost = list(plan.layers), _PASSES * plan.seconds
    return [
        plan.task("score-decomposition", cost=cost, image=index, target=chosen.predicted[index], layers=layers)
        for index in chosen.images
    ]


def score_decomposition(subject: Subject, *, image: int, target: int, layers: Sequence[str]) -> ScoreDecomposition:
    """Decompose the class score of one image."""
    return decompose(subject.net, subject.pictures([image]), target, layers)


# -- pages ---------------------------------------------------------------------------------------------------------


def _image(album: Album, index: int) -> list[Section]:
    found = album.one(ScoreDecomposition, "score-decomposition", image=index)
    shown = _tree(album, found) if isinstance(found, ScoreDecomposition) else found
    use = "It writes the class score as a sum over units, and those as sums over their inputs."
    return [Section("How the score comes about", (Part(shown, "the score decomposition", use),))]


def _tree(album: Album, found: ScoreDecomposition) -> Decomposition:
    parts = tuple(_step(album, entry) for entry in found.steps)
    name = f"score of {album.class_name(found.target)}"
    root = Step(name, found.score, to_class(found.target), None, "", parts, found.rest, found.bias)
    caption = (
        "The class score as a sum over the units that feed it, and each of the largest as a sum over the units that "
        "feed that one. Amounts add up: the named parts, all others, and the biases."
    )
    if not found.held:
        caption += " An operation of this network has no relevance rule: amounts are gradient times activation."
    return Decomposition(root, caption, album.made(found))


def _step(album: Album, entry: Sequence[Any]) -> Step:
    layer, unit, amount, bias, rest, below = entry
    if layer == "input":
        return Step("the picture", amount)
    parts = tuple(_step(album, part) for part in below)
    picture = unit_picture(album, layer, unit)
    return Step(f"{layer}:{unit}", amount, to_unit(layer, unit), picture, label(album, layer, unit), parts, rest, bias)


SCORE_DECOMPOSITION = Topic(
    "score decomposition",
    tasks=_tasks,
    jobs={"score-decomposition": score_decomposition},
    sections={"image": _image},
)
