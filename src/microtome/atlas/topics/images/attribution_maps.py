"""Attribution maps: every method on every image that has a page, for two classes and their difference."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from microtome import registry
from microtome.atlas.album import Album
from microtome.atlas.planning.budget import affordable
from microtome.atlas.planning.plan import Plan, blocks
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.widgets import Made, MapRow, Maps, MethodMap, Number, Part, Picture, Section, Sprite
from microtome.errors import InputError
from microtome.loading import Subject
from microtome.network import Network
from microtome.registry import quantity
from microtome.results import Result

__all__ = ["ATTRIBUTION_MAPS", "AttributionMaps", "explained", "maps_of"]

_BATCH = 4  # images in one task
_FEW_PASSES = 10  # passes up to which a method is cheap
_PASSES = {"integrated-gradients": 120.0, "smooth-grad": 60.0, "lrp": 8.0, "deep-taylor": 8.0}  # 4 for all others
_ATTENTION = frozenset(("softmax", "scaled_dot_product_attention", "multi_head_attention_forward"))
_UNSIGNED = frozenset({"saliency", "grad-cam", "smooth-grad-squared", "attention-rollout"})
_NO_DIFFERENCE = frozenset({"guided-backprop", "deconvnet"})  # not linear in the score
_WITHIN = 0.995  # share of the pixels of a photo within the scale of its map


@dataclass(frozen=True, eq=False, kw_only=True)
class AttributionMaps(Result):
    """The maps of one method for some images.

    ``scaled`` (n, H, W) is the map divided by ``size`` (n,), its largest absolute value; ``extra`` are
    tensors of some methods (occlusion: probability, winner, unoccluded), ``numbers`` the certificates (n,),
    ``unrecognised`` operations of unknown kind.
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
        """What the method could not tell, beside what is to know of the network."""
        return [*super().notes, *self.unrecognised]

    @property
    def map(self) -> Tensor:
        """The maps (n, H, W)."""
        return self.scaled.float() * self.size[:, None, None]


# -- tasks and job -------------------------------------------------------------------------------------------------


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    found = []
    for name in _methods(plan.net):
        passes = _passes(plan, name)
        options: dict[str, Any] = plan.occlusion() if name == "occlusion" else {}
        each = passes * plan.seconds
        both = len(affordable(chosen.images, each, plan.budget.attribution_seconds)) == len(chosen.images)
        classes = (chosen.predicted, chosen.other) if passes <= _FEW_PASSES or both else (chosen.predicted,)
        alone = passes > _FEW_PASSES and not plan.small  # many windows or samples of several images take gigabytes
        for block in blocks(chosen.images, 1 if alone else _BATCH):
            for of in classes:
                target = [of[index] for index in block]
                cost = len(block) * each
                found.append(plan.task("explain", cost=cost, method=name, images=block, target=target, **options))
    return found


def _methods(net: Network) -> list[str]:
    """Every attribution method, and those that read attention where the network has any."""
    operations = {layer.operation.rpartition("/")[2].partition(".")[0] for layer in net.layers.values()}
    return list(registry.methods(registry.EXPLAINING if operations & _ATTENTION else ("attribution",)))


def _passes(plan: Plan, method: str) -> float:
    """How many forward passes a map costs, about."""
    if method == "occlusion":
        options = plan.occlusion()
        places = [(side - options["window"]) // options["stride"] + 1 for side in plan.net.input_shape[1:]]
        return float(math.prod(places))
    return _PASSES.get(method, 4.0)


def explain(
    subject: Subject, *, method: str, images: Sequence[int], target: Sequence[int], **options: Any
) -> AttributionMaps:
    """One attribution method on some images."""
    found = registry.method(method, registry.EXPLAINING)
    made: Any = explained(subject.net, found, subject.pictures(images), target, options)
    values = made.map.float()
    size = values.flatten(1).abs().amax(1).clamp(min=1e-30)
    extra = {name: getattr(made, name) for name in ("probability", "winner", "unoccluded") if hasattr(made, name)}
    named = ("conservation", "pixel_share", "mass", "completeness_gap")
    numbers = {name: getattr(made, name) for name in named if hasattr(made, name)}
    return AttributionMaps(
        provenance=made.provenance,
        scaled=(values / size[:, None, None]).half(),
        size=size,
        target=made.target,
        score=made.score,
        layer=getattr(made, "layer", ""),
        extra=extra,
        numbers=numbers,
        unrecognised=list(getattr(made, "unrecognised", [])),
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
        "Each method marks the pixels that speak for a class.",
        "They show what speaks for one class and against the other.",
    )
    return [
        Section("What in it decided", (Part(maps, "maps of what decided", use),)),
        Section("One class against another", (Part(differences, "differences of classes", against),)),
    ]


def maps_of(album: Album, index: int, target: int) -> list[tuple[Task, AttributionMaps, int]]:
    """The results of all methods for an image and a class, with the place of the image in each."""
    found = []
    for task in album.find("explain"):
        images, targets = task.parameters["images"], task.parameters["target"]
        if index in images and targets[images.index(index)] == target:
            result = album.load(task)
            if isinstance(result, AttributionMaps):
                found.append((task, result, images.index(index)))
    return found


def _maps(album: Album, index: int) -> Maps | None:
    rows = []
    for target in dict.fromkeys((album.chosen.predicted[index], album.chosen.other[index])):
        found = tuple(_one(album, *entry) for entry in maps_of(album, index, target))
        if found:
            score = float(album.seen.logits[index, target])
            rows.append(MapRow(f"What speaks for {album.class_name(target)}?", found, score))
    caption = "One method a column; red speaks for the class, blue against it, each map on its own scale."
    return Maps(tuple(rows), caption) if rows else None


def _one(album: Album, task: Task, result: AttributionMaps, place: int) -> MethodMap:
    name, image = str(task.parameters["method"]), int(task.parameters["images"][place])
    target = int(result.target[place])
    sprite = _sprite(album, f"image-{album.image_id(image)}-{name}-{target}", result.map[place][None], name)
    alt = f"{name} for {album.class_name(target)}"
    numbers = tuple(_certificate(key, float(value[place])) for key, value in result.numbers.items())
    return MethodMap(name, Picture(sprite, 0, alt), result.layer, numbers, made_of(album, task, result, place))


def _differences(album: Album, index: int) -> Maps | None:
    predicted, other = album.chosen.predicted[index], album.chosen.other[index]
    against = {task.parameters["method"]: (result, place) for task, result, place in maps_of(album, index, other)}
    found = []
    for task, result, place in maps_of(album, index, predicted):
        name = task.parameters["method"]
        if name in against and name not in _UNSIGNED | _NO_DIFFERENCE:
            second, where = against[name]
            difference = result.map[place] - second.map[where]
            sprite = _sprite(album, f"image-{album.image_id(index)}-{name}-difference", difference[None], name)
            picture = Picture(sprite, 0, f"{name}, difference of the classes")
            found.append(MethodMap(name, picture, result.layer, (), made_of(album, task, result, place)))
    if not found:
        return None
    question = f"What speaks for {album.class_name(predicted)} rather than {album.class_name(other)}?"
    score = float(album.seen.logits[index, predicted] - album.seen.logits[index, other])
    return Maps((MapRow(question, tuple(found), score),), "The map of the first class minus that of the second.")


def _sprite(album: Album, file: str, values: Tensor, name: str) -> Sprite:
    """A map on its own scale; in photos the scale leaves out a few extreme pixels that would hide all others."""
    most = float(values.abs().max())
    limit = most if album.pixelated else float(values.abs().flatten().quantile(_WITHIN))
    limit = limit if limit > 0.01 * most else most
    unit = quantity(name)
    if limit < 0.95 * most:
        unit += f", {1 - _WITHIN:.1%} beyond, up to {most:.3g}"
    if name in _UNSIGNED:
        return album.sprites.scaled(file, values, "sequential", unit, limits=(0.0, limit or 1.0))
    return album.sprites.scaled(file, values, "diverging", unit, limits=(-(limit or 1.0), limit or 1.0))


def _certificate(name: str, value: float) -> Number:
    if name == "conservation":
        return Number("conservation", value, tolerance="within 1 % of 1", ok=abs(value - 1) <= 0.01)
    if name == "pixel_share":  # conserved relevance may still lie with the biases
        return Number("score at the pixels", 100 * value, "%", tolerance="at least 1 %", ok=abs(value) >= 0.01)
    if name == "mass":
        return Number("absolute relevance / score", value, tolerance="below 1000", ok=value <= 1000)
    return Number(name.replace("_", " "), value, "logit", tolerance="below 0.1", ok=abs(value) <= 0.1)


def made_of(album: Album, task: Task, result: AttributionMaps, place: int) -> Made:
    """How the map of one image of a task was made."""
    given = task.parameters
    takes_layer = "layer" in inspect.signature(registry.method(str(given["method"])).function).parameters
    layer = result.provenance.parameters.get("layer") if takes_layer else None
    command = album.commands.line(
        "explain", album.image_file(int(given["images"][place])), method=given["method"], layer=layer,
        window=given.get("window"), stride=given.get("stride"), target=int(result.target[place]), to="map.png",
    )  # fmt: skip
    return album.made(result, command)


ATTRIBUTION_MAPS = Topic("attribution maps", tasks=_tasks, jobs={"explain": explain}, sections={"image": _image})
