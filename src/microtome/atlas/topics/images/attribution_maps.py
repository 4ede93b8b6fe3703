"""Attribution maps: every method on every image that has a page, for two classes and their difference."""

from __future__ import annotations

import dataclasses
import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from microtome import registry
from microtome.atlas.album import Album
from microtome.atlas.pictures.downscaling import downscaled_signal
from microtome.atlas.planning.plan import Plan, blocks
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.images.map_certificates import COMPLETE, certificates
from microtome.atlas.topics.images.method_words import evidence, file_name, in_words, meaning
from microtome.atlas.widgets import Made, MapRow, Maps, MethodMap, Part, Picture, Section, Sprite
from microtome.attribution.own_method import resolve
from microtome.errors import InputError
from microtome.loading import Subject
from microtome.loading.own_functions import is_own, own_function, source_digest
from microtome.network import Network
from microtome.registry import quantity
from microtome.results import Result

__all__ = ["ATTRIBUTION_MAPS", "BLOCK", "AttributionMaps", "explain_tasks", "explained", "maps_of", "passes"]

BLOCK = 4  # images in one task
_POINTS = (450, 150)  # largest numbers of points of integrated gradients: usual, and if time is short
_FEW_PASSES = 10  # a method with at most this many passes is cheap
_ATTENTION = frozenset(("softmax", "scaled_dot_product_attention", "multi_head_attention_forward"))
_NO_DIFFERENCE = frozenset({"guided-backprop", "deconvnet"})  # not linear in the score
_EXTRA = ("probability", "winner", "unoccluded", "steps")  # fields of some results that pages show
_SIDE = 128  # pixels a side of a map
_WITHIN = 0.995  # share of the pixels of a photo within the scale of its map


@dataclass(frozen=True, eq=False, kw_only=True)
class AttributionMaps(Result):
    """The maps of one method for some images, at the size and precision at which pages show them.

    ``scaled`` (n, h, w) is the map by ``size`` (n,), its largest absolute value, in steps of 1/127; of large images it
    is averaged to at most 128 pixels a side. ``extra`` are tensors of some methods (occlusion: probability, winner,
    unoccluded; integrated gradients: steps), ``numbers`` the certificates (n,) of the exact map, ``unrecognised``
    operations of unknown kind.
    """

    scaled: Tensor
    size: Tensor
    target: Tensor
    score: Tensor
    layer: str
    extra: dict[str, Tensor]
    numbers: dict[str, Tensor]
    unrecognised: list[str] = field(default_factory=list)

    @property
    def notes(self) -> list[str]:
        """Notes of the method, in addition to those of the network."""
        return [*super().notes, *self.unrecognised]

    @property
    def map(self) -> Tensor:
        """The maps (n, h, w)."""
        return self.scaled.float() / 127 * self.size[:, None, None]


# -- tasks and job -------------------------------------------------------------------------------------------------


def explain_tasks(plan: Plan, chosen: Selection) -> list[Task]:
    """Every method for the predicted class of each image, and for the other class if time suffices."""
    found = []
    for name in [*plan.methods, *_methods(plan.net)]:
        for options in _options(plan, name, len(chosen.images)):
            each = passes(plan, name, options) * plan.seconds
            both = 2 * len(chosen.images) * each <= plan.budget.attribution_seconds
            cheap = passes(plan, name, options) <= _FEW_PASSES
            first = name != "occlusion" or options == plan.occlusion()[0]  # other windows: the predicted class only
            classes = (chosen.predicted, chosen.other) if first and (cheap or both) else (chosen.predicted,)
            alone = not cheap and not plan.small  # many windows or samples of several images take gigabytes
            for block in blocks(chosen.images, 1 if alone else BLOCK):
                for target_class in classes:
                    target = [target_class[index] for index in block]
                    cost = len(block) * each
                    found.append(plan.task("explain", cost=cost, method=name, images=block, target=target, **options))
    return found


def _options(plan: Plan, method: str, count: int) -> list[dict[str, Any]]:
    """The options of a method for this number of images; occlusion has two sizes of its window."""
    if method == "occlusion":
        return plan.occlusion()
    if is_own(method):
        return [{"source": source_digest(method)}]
    if method != "integrated-gradients":
        return [{}]
    usual, fewer = _POINTS
    longest = count * usual / 50 * passes(plan, method, {}) * plan.seconds
    most = usual if longest <= plan.budget.attribution_seconds else fewer
    return [{"rule": "cosine", "within": COMPLETE, "max_steps": most}]


def _methods(net: Network) -> list[str]:
    """Every attribution method, and those that read attention where the network has any."""
    operations = {layer.operator for layer in net.layers.values()}
    return list(registry.methods(registry.EXPLAINING if operations & _ATTENTION else ("attribution",)))


def _method(name: str) -> registry.Method:
    """A registered method, or the user's own function."""
    return resolve(own_function(name) if is_own(name) else name)


def passes(plan: Plan, method: str, options: dict[str, Any]) -> float:
    """How many forward passes a map costs, about."""
    if method == "occlusion":
        places = [(side - options["window"]) // options["stride"] + 1 for side in plan.net.input_shape[1:]]
        return float(math.prod(places))
    return _method(method).cost


def explain(
    subject: Subject,
    *,
    method: str,
    images: Sequence[int],
    target: Sequence[int],
    source: str = "",
    **options: Any,
) -> AttributionMaps:
    """One attribution method on some images; ``source`` identifies the version of the user's own function."""
    found = _method(method)
    pictures = subject.pictures(images)
    result: Any = explained(subject.net, found, pictures, target, options)
    values = downscaled_signal(result.map, _SIDE)
    size = values.flatten(1).abs().amax(1).clamp(min=1e-30)
    extra = {name: getattr(result, name) for name in _EXTRA if hasattr(result, name)}
    named = ("conservation", "pixel_share", "mass", "completeness_gap", "baseline_score")
    numbers = {name: getattr(result, name) for name in named if hasattr(result, name)}
    return AttributionMaps(
        provenance=result.provenance,
        scaled=(values / size[:, None, None] * 127).round().to(torch.int8),
        size=size,
        target=result.target,
        score=result.score,
        layer=getattr(result, "layer", ""),
        extra=extra,
        numbers=numbers,
        unrecognised=list(getattr(result, "unrecognised", [])),
    )


def explained(net: Network, method: registry.Method, images: Tensor, target: Any, options: dict[str, Any]) -> Result:
    """Call an attribution method with the options that it takes.

    Raises
    ------
    InputError
        The method has no such option.
    """
    known = inspect.signature(method.function).parameters
    unknown = [name for name in options if name not in known]
    if unknown:
        raise InputError(f'"{method.name}" has no option "{unknown[0]}"; it has {", ".join(list(known)[3:])}.')
    result: Result = method.function(net, images, target, **options)
    return result


# -- pages ---------------------------------------------------------------------------------------------------------


def _image(album: Album, index: int) -> list[Section]:
    maps, differences = _maps(album, index), _differences(album, index)
    use, against = (
        "Each method marks the pixels that contribute to the score of a class.",
        "They show evidence for one class against the other.",
    )
    return [
        Section("What in the image decided", (Part(maps, "maps of what decided", use),)),
        Section("One class against another", (Part(differences, "differences of classes", against),)),
    ]


def maps_of(album: Album, index: int, target: int) -> list[tuple[Task, AttributionMaps, int]]:
    """The results of all methods for an image and a class, with the position of the image in each.

    For occlusion the first size of the window is used.
    """
    found, first = [], album.plan.occlusion()[0]["window"]
    for task in album.find("explain"):
        images, targets = task.parameters["images"], task.parameters["target"]
        if task.parameters.get("window", first) != first:
            continue
        if index in images and targets[images.index(index)] == target:
            result = album.load(task)
            if isinstance(result, AttributionMaps):
                found.append((task, result, images.index(index)))
    return found


def _maps(album: Album, index: int) -> Maps | None:
    rows = []
    for target in dict.fromkeys((album.chosen.predicted[index], album.chosen.other[index])):
        found = _row(album, maps_of(album, index, target))
        if found:
            score = float(album.seen.logits[index, target])
            rows.append(MapRow(f"What speaks for {album.class_name(target)}?", found, score))
    caption = (
        "Red is evidence for the class, blue against it; for methods without a sign, bright pixels matter most. Each "
        "map has its own scale. A click lays a map over the image above."
    )
    return Maps(tuple(rows), caption, album.picture(index)) if rows else None


def _row(album: Album, entries: list[tuple[Task, AttributionMaps, int]]) -> tuple[MethodMap, ...]:
    """The maps of one class: first those that count as evidence, then all others, last those that fail a check."""
    maps = {str(task.parameters["method"]): _one(album, task, result, place) for task, result, place in entries}
    sound = [name for name, one in maps.items() if all(number.ok for number in one.numbers)]
    large = evidence(sound)
    order = [*large, *(name for name in maps if name not in large and name in sound)]
    found = [dataclasses.replace(maps[name], shown="large" if name in large else "folded") for name in order]
    return (*found, *(dataclasses.replace(one, shown="refused") for name, one in maps.items() if name not in sound))


def _one(album: Album, task: Task, result: AttributionMaps, place: int) -> MethodMap:
    name, image = str(task.parameters["method"]), int(task.parameters["images"][place])
    target = int(result.target[place])
    sprite = _sprite(album, f"image-{album.image_id(image)}-{file_name(name)}-{target}", result.map[place][None], name)
    alt = f"{in_words(name)}: what speaks for {album.class_name(target)} in image {album.image_id(image)}"
    numbers = certificates(result.numbers, result.score, place)
    return MethodMap(
        in_words(name), Picture(sprite, 0, alt), result.layer, numbers, made_of(album, task, result, place),
        meaning(name),
    )  # fmt: skip


def _differences(album: Album, index: int) -> Maps | None:
    predicted, other = album.chosen.predicted[index], album.chosen.other[index]
    against = {task.parameters["method"]: (result, place) for task, result, place in maps_of(album, index, other)}
    found: dict[str, MethodMap] = {}
    for task, result, place in maps_of(album, index, predicted):
        name = task.parameters["method"]
        if name in against and name not in _NO_DIFFERENCE and _signed(name):
            second, where = against[name]
            if not (_sound(result, place) and _sound(second, where)):
                continue
            difference = result.map[place] - second.map[where]
            sprite = _sprite(
                album, f"image-{album.image_id(index)}-{file_name(name)}-difference", difference[None], name
            )
            alt = f"{in_words(name)}: what speaks for {album.class_name(predicted)} and against "
            picture = Picture(sprite, 0, alt + album.class_name(other))
            made = made_of(album, task, result, place)
            found[name] = MethodMap(in_words(name), picture, result.layer, (), made, meaning(name))
    if not found:
        return None
    question = f"What speaks for {album.class_name(predicted)} rather than {album.class_name(other)}?"
    score = float(album.seen.logits[index, predicted] - album.seen.logits[index, other])
    large = evidence(found)
    maps = [found[name] for name in large]
    maps += [dataclasses.replace(one, shown="folded") for name, one in found.items() if name not in large]
    caption = "The map of the first class minus that of the second: red is evidence for the first, blue for the second."
    return Maps((MapRow(question, tuple(maps), score),), caption, album.picture(index))


def _sound(result: AttributionMaps, place: int) -> bool:
    """Whether a map passes its checks, so that it counts as evidence."""
    return all(number.ok for number in certificates(result.numbers, result.score, place))


def _signed(name: str) -> bool:
    return _method(name).signed


def _sprite(album: Album, file: str, values: Tensor, name: str) -> Sprite:
    """A map on its own scale; for photos the scale ignores a few extreme pixels that would hide all others."""
    most = float(values.abs().max())
    limit = most if album.pixelated else float(values.abs().flatten().quantile(_WITHIN))
    limit = limit if limit > 0.01 * most else most
    unit = quantity(name)
    if limit < 0.95 * most:
        unit += f"; {100 * (1 - _WITHIN):.1f} % of the pixels lie beyond, up to {most:.3g}"
    if not _signed(name):
        return album.sprites.scaled(file, values, "sequential", unit, limits=(0.0, limit or 1.0))
    return album.sprites.scaled(file, values, "diverging", unit, limits=(-(limit or 1.0), limit or 1.0))


def made_of(album: Album, task: Task, result: AttributionMaps, place: int) -> Made:
    """How the map of one image of a task was made."""
    options = task.parameters
    takes_layer = "layer" in inspect.signature(_method(str(options["method"])).function).parameters
    layer = result.provenance.parameters.get("layer") if takes_layer else None
    command = album.commands.line(
        "explain", album.image_file(int(options["images"][place])), method=options["method"], layer=layer,
        window=options.get("window"), stride=options.get("stride"), rule=options.get("rule"),
        steps=int(result.extra["steps"][place]) if "steps" in result.extra else None,
        target=int(result.target[place]), to="map.png",
    )  # fmt: skip
    return album.made(result, command)


ATTRIBUTION_MAPS = Topic("attribution maps", tasks=explain_tasks, jobs={"explain": explain}, sections={"image": _image})
