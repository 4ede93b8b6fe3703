"""Checks of attribution maps: whether they agree, are better than chance, and depend on the learned weights."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from microtome.atlas.album import Album
from microtome.atlas.planning.budget import affordable
from microtome.atlas.planning.plan import Plan, blocks
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.images.attribution_maps import BLOCK, AttributionMaps, explain_tasks, passes
from microtome.atlas.topics.images.map_findings import against_chance, against_noise, agreement
from microtome.atlas.topics.images.method_words import evidence, in_words
from microtome.atlas.widgets import Part, Section, Statement
from microtome.attribution.quality import deletion, insertion, randomisation, rank_correlation
from microtome.errors import InputError, ModelError
from microtome.loading import Subject
from microtome.results import Result, provenance

__all__ = ["MAP_CHECKS", "MapChecks", "RandomWeights"]

_STEPS = 6  # points of a curve after the first
_GRID = 14  # side of the grid on which maps are compared
_NOISE = 2  # random maps for comparison
_RANDOMISED = 4  # number of images for random weights
_CHEAP = 10.0  # methods with at most this many passes are tested with random weights


@dataclass(frozen=True, eq=False, kw_only=True)
class MapChecks(Result):
    """Maps of several methods on some images, compared with each other and with noise.

    Attributes
    ----------
    methods : list of str
        The methods; the last row of the tables is the mean of random maps.
    images : list of int
        The images.
    deletion, insertion : Tensor
        (methods + 1, n) area under the probability while pixels are removed or added, the strongest first.
    agreement : Tensor
        (pairs, n) rank correlation, for each pair of methods, of the positive evidence on a grid.
    """

    methods: list[str]
    images: list[int]
    deletion: Tensor
    insertion: Tensor
    agreement: Tensor


@dataclass(frozen=True, eq=False, kw_only=True)
class RandomWeights(Result):
    """By method the rank correlation (n,) of maps with those of the same network with random weights."""

    correlation: dict[str, Tensor]
    images: int


# -- tasks and jobs ------------------------------------------------------------------------------------------------


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    explaining = explain_tasks(plan, chosen)
    window = plan.occlusion()[0]["window"]
    methods = evidence(dict.fromkeys(str(task.parameters["method"]) for task in explaining))
    if not methods:
        return []
    each = 2 * (_STEPS + 1) * (len(methods) + _NOISE) * plan.seconds
    images = affordable(chosen.images, each, plan.budget.attribution_seconds, least=1)
    found = []
    for block in blocks(images, BLOCK):
        target = [chosen.predicted[index] for index in block]
        needed = [task for task in explaining if _serves(task, methods, dict(zip(block, target, strict=True)), window)]
        places = {name: [_place(needed, name, *pair) for pair in zip(block, target, strict=True)] for name in methods}
        found.append(
            plan.task("map-checks", needs=tuple(task.key for task in needed), cost=len(block) * each,
                      images=block, target=target, places=places)
        )  # fmt: skip
    costs = {name: passes(plan, name, plan.occlusion()[0]) for name in methods if name != "occlusion"}
    cheap = [name for name, cost in costs.items() if cost <= _CHEAP]
    cost = sum(2 * costs[name] for name in cheap) * plan.seconds
    few = affordable(chosen.images[:_RANDOMISED], max(cost, 1e-9), plan.budget.attribution_seconds / 4, least=1)
    if cheap:
        target = [chosen.predicted[index] for index in few]
        found.append(
            plan.task("random-weights", cost=len(few) * cost, images=few, target=target, methods=cheap)
        )  # fmt: skip
    return found


def _serves(task: Task, methods: Sequence[str], target: dict[int, int], window: int) -> bool:
    """Whether a task holds maps of these methods for some of the images and their classes."""
    options = task.parameters
    if options["method"] not in methods or options.get("window", window) != window:
        return False
    return any(target.get(image) == label for image, label in zip(options["images"], options["target"], strict=True))


def _place(tasks: Sequence[Task], method: str, image: int, target: int) -> list[int]:
    """Which of the tasks holds the map of an image, and at which place."""
    for number, task in enumerate(tasks):
        images = task.parameters["images"]
        if task.parameters["method"] == method and image in images:
            place = images.index(image)
            if task.parameters["target"][place] == target:
                return [number, place]
    raise KeyError(f"no map of {method} for image {image}")  # cannot be: every method is planned for every image


def map_checks(
    subject: Subject,
    *maps: Result,
    images: Sequence[int],
    target: Sequence[int],
    places: Mapping[str, Sequence[Sequence[int]]],
) -> MapChecks:
    """Compare the maps of some images with each other and with random maps."""
    pictures = subject.pictures(images)
    wanted = torch.tensor(list(target), device=pictures.device)
    found: dict[str, Tensor] = {}
    for name, where in places.items():
        results = [(maps[number], place) for number, place in where]
        rows = [one.map[place] for one, place in results if isinstance(one, AttributionMaps)]
        if len(rows) == len(results):  # a method that refuses this network has none
            found[name] = _enlarged(torch.stack(rows).to(pictures.device), pictures.shape[-2:])
    generator = torch.Generator().manual_seed(0)
    noise = torch.rand(
        (_NOISE, len(images), *pictures.shape[-2:]), generator=generator, dtype=torch.float32, device="cpu"
    )
    areas = {}
    for trial in (deletion, insertion):
        by_map = [trial(subject.net, pictures, one, wanted, steps=_STEPS).area for one in found.values()]
        chance = torch.stack([trial(subject.net, pictures, one, wanted, steps=_STEPS).area for one in noise]).mean(0)
        areas[trial.__name__] = torch.stack([*by_map, chance]).float()
    pairs = [rank_correlation(_places(one), _places(two)) for one, two in itertools.combinations(found.values(), 2)]
    made = provenance(subject.net, "map-checks", 0, images=list(images), methods=list(found), steps=_STEPS)
    return MapChecks(
        provenance=made,
        methods=list(found),
        images=list(images),
        deletion=areas["deletion"],
        insertion=areas["insertion"],
        agreement=torch.stack(pairs).float()
        if pairs
        else torch.empty(0, len(images), dtype=torch.float32, device="cpu"),
    )


def _enlarged(maps: Tensor, size: Sequence[int]) -> Tensor:
    """Maps at the size of the images; those of large images are stored smaller."""
    if tuple(maps.shape[-2:]) == tuple(size):
        return maps
    return functional.interpolate(maps[:, None], size=tuple(size), mode="bilinear", align_corners=False)[:, 0]


def _places(maps: Tensor) -> Tensor:
    """The evidence for the class on a coarse grid, because methods differ in resolution."""
    grid = (min(_GRID, maps.shape[-2]), min(_GRID, maps.shape[-1]))
    return functional.adaptive_avg_pool2d(maps[:, None].clamp(min=0), grid)[:, 0]


def random_weights(
    subject: Subject, *, images: Sequence[int], target: Sequence[int], methods: Sequence[str]
) -> RandomWeights:
    """The similarity of each method's maps to those with random weights.

    Raises
    ------
    InputError
        The model cannot be copied, or has no weights.
    """
    pictures = subject.pictures(images)
    found = {}
    for name in methods:
        try:
            randomised = randomisation(subject.net, pictures, name, list(target), steps=1)
        except ModelError as error:  # the page gives the reason; the rest of the atlas is not affected
            raise InputError(str(error)) from error
        found[name] = rank_correlation(_places(randomised.maps[0]), _places(randomised.maps[1])).float()
    return RandomWeights(
        provenance=provenance(subject.net, "randomisation", 0, images=list(images), methods=list(methods), steps=1),
        correlation=found,
        images=len(images),
    )


# -- pages ---------------------------------------------------------------------------------------------------------


def _image(album: Album, index: int) -> list[Section]:
    found = album.with_item(MapChecks, "map-checks", "images", index)
    use = "They show whether the maps agree, and whether they are better than chance."
    shown: Any = _statement(album, *found) if isinstance(found, tuple) else found
    return [Section("What in the image decided", (Part(shown, "the checks of the maps", use),))]


def _statement(album: Album, found: MapChecks, place: int) -> Statement | None:
    if not found.methods:
        return None
    names = [in_words(name) for name in found.methods]
    removed, added = found.deletion[:, place].tolist(), found.insertion[:, place].tolist()
    sentences = [agreement(names, found.agreement[:, place].tolist())] if len(names) > 1 else []
    sentences.append(against_chance(names, removed, added))
    weights = album.remembered(("random-weights",), lambda: album.one(RandomWeights, "random-weights"))
    if isinstance(weights, RandomWeights):
        means = {in_words(name): float(value.mean()) for name, value in weights.correlation.items()}
        sentences.append(against_noise(means, weights.images))
    rows = [(name, *numbers) for name, *numbers in zip([*names, "random maps"], removed, added, strict=True)]
    what = album.seen.quantity
    columns = (
        "map",
        f"{what} while its pixels are removed (low is good)",
        f"{what} while they are added (high is good)",
    )
    return Statement(" ".join(sentences), columns, tuple(rows), album.made(found))


MAP_CHECKS = Topic(
    "checks of maps",
    tasks=_tasks,
    jobs={"map-checks": map_checks, "random-weights": random_weights},
    sections={"image": _image},
)
