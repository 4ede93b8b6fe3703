"""What does the network say of an image, and why? The page of one image."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from microtome import registry
from microtome.atlas.assemble import spaces
from microtome.atlas.assemble.album import Album
from microtome.atlas.assemble.unit_pictures import unit_picture
from microtome.atlas.assemble.unit_sheet import image_sheet
from microtome.atlas.choice import questions
from microtome.atlas.findings import Maps as MapsResult
from microtome.atlas.findings import Refusal, Strongest
from microtome.atlas.pages import (
    Absent,
    ActivationRow,
    Amount,
    Amounts,
    Colours,
    ImagePage,
    Made,
    MapRow,
    Maps,
    MethodMap,
    Number,
    Occlusion,
    Picture,
    Sprite,
    Step,
    Winner,
    to_class,
    to_unit,
)
from microtome.atlas.task import Task
from microtome.atlas.walk import Walk
from microtome.registry import quantity

__all__ = ["image_page"]

_TOP = 5  # classes in the list of probabilities
_UNSIGNED = frozenset({"saliency", "grad-cam", "smooth-grad-squared", "attention-rollout"})
_WITHIN = 0.995  # share of a photo's pixels that a map's scale reaches over
_COLOURS = (
    "#1f77b4",
    "#ff7f0e",
    "#2ca02c",
    "#d62728",
    "#9467bd",
    "#8c564b",
    "#e377c2",
    "#17becf",
    "#bcbd22",
    "#7f7f7f",
)


def image_page(album: Album, index: int) -> ImagePage:
    """The page of one image."""
    seen = album.seen
    probabilities = seen.readout[index]
    truth = int(seen.labels[index])
    (said,), (other,) = questions(seen, [index])
    return ImagePage(
        id=album.image_id(index),
        title=album.subject.name(index),
        picture=album.picture(index, note=""),
        truth=truth if truth >= 0 else None,
        said=said,
        probability=float(probabilities[said]) if seen.quantity == "probability" else None,
        probabilities=_probabilities(album, probabilities, truth),
        maps=_maps(album, index, said, other),
        differences=_differences(album, index, said, other),
        occlusion=_occlusion(album, index, said),
        activations=_activations(album, index),
        kept=spaces.kept_rows(album, index),
        kept_made=spaces.kept_made(album),
        sheet=image_sheet(album, index),
        walk=_walk(album, index),
        walk_caption=_WALK,
        walk_made=_walk_made(album, index),
        activations_caption="For each layer the units that answer this image most; bright is where they do.",
    )


def _probabilities(album: Album, probabilities: Tensor, truth: int) -> Amounts:
    order = probabilities.argsort(descending=True, stable=True)[:_TOP].tolist()
    if truth >= 0 and truth not in order:
        order = [*order[: _TOP - 1], truth]
    said = order[0]
    marks = {said: "said", truth: "true"} if said != truth else {said: "true and said"}
    probable = album.seen.quantity == "probability"
    scale = 100 if probable else 1
    rows = tuple(
        Amount(album.class_name(i), scale * float(probabilities[i]), to_class(i), mark=marks.get(i, "")) for i in order
    )
    if probable:
        return Amounts(rows, "%", "The most probable classes.")
    return Amounts(rows, "", "The largest values of the output.", signed=True)


# -- maps ----------------------------------------------------------------------------------------------------------


def _maps(album: Album, index: int, said: int, other: int) -> Maps | None:
    rows = []
    for target in dict.fromkeys((said, other)):
        found = tuple(_one(album, task, result, place) for task, result, place in _asked(album, index, target))
        if found:
            score = float(album.seen.logits[index, target])
            rows.append(MapRow(f"What speaks for {album.class_name(target)}?", found, score))
    if not rows:
        return None
    return Maps(
        tuple(rows), "One method a column; red speaks for the class, blue against it, each map on its own scale."
    )


def _differences(album: Album, index: int, said: int, other: int) -> Maps | None:
    """The map of one class less that of the other, for methods whose maps add up."""
    if said == other:
        return None
    against = {task.parameters["method"]: (result, place) for task, result, place in _asked(album, index, other)}
    found = []
    for task, result, place in _asked(album, index, said):
        name = task.parameters["method"]
        if name in against and name not in _UNSIGNED and name not in ("guided-backprop", "deconvnet"):
            second, where = against[name]
            difference = result.map[place] - second.map[where]
            sprite = _map_sprite(album, f"image-{album.image_id(index)}-{name}-difference", difference[None], name)
            found.append(
                MethodMap(
                    name,
                    Picture(sprite, 0, f"{name}, difference of the classes"),
                    result.layer,
                    (),
                    _made(album, task, result, place),
                )
            )
    if not found:
        return None
    question = f"What speaks for {album.class_name(said)} rather than {album.class_name(other)}?"
    score = float(album.seen.logits[index, said] - album.seen.logits[index, other])
    return Maps((MapRow(question, tuple(found), score),), "The map of the first class less that of the second.")


def _asked(album: Album, index: int, target: int) -> list[tuple[Task, MapsResult, int]]:
    """The results of all methods for an image and a class, with the image's place in them."""
    found = []
    for task in album.find("explain"):
        images, targets = task.parameters["images"], task.parameters["target"]
        if index in images and targets[images.index(index)] == target:
            result = album.load(task)
            if isinstance(result, MapsResult):
                found.append((task, result, images.index(index)))
    return found


def _one(album: Album, task: Task, result: MapsResult, place: int) -> MethodMap:
    name, image = str(task.parameters["method"]), int(task.parameters["images"][place])
    target = int(result.target[place])
    file = f"image-{album.image_id(image)}-{name}-{target}"
    sprite = _map_sprite(album, file, result.map[place][None], name)
    alt = f"{name} for {album.class_name(target)}"
    numbers = tuple(_certificate(key, float(value[place])) for key, value in result.numbers.items())
    return MethodMap(name, Picture(sprite, 0, alt), result.layer, numbers, _made(album, task, result, place))


def _map_sprite(album: Album, file: str, values: Tensor, name: str) -> Sprite:
    """A map on its own scale; of photos a few extreme pixels are left beyond it, or they would hide all others."""
    most = float(values.abs().max())
    limit = most if album.pixelated else float(values.abs().flatten().quantile(_WITHIN))
    limit = limit if limit > 0.01 * most else most
    unit = quantity(name)
    if limit < 0.95 * most:
        unit += f", {1 - _WITHIN:.1%} beyond, up to {most:.3g}"
    if name in _UNSIGNED:
        return album.sheet.scaled(file, values, "sequential", unit, limits=(0.0, limit or 1.0))
    return album.sheet.scaled(file, values, "diverging", unit, limits=(-(limit or 1.0), limit or 1.0))


def _certificate(name: str, value: float) -> Number:
    if name == "conservation":
        return Number("conservation", value, tolerance="within 1 % of 1", ok=abs(value - 1) <= 0.01)
    return Number(name.replace("_", " "), value, "logit", tolerance="below 0.1", ok=abs(value) <= 0.1)


def _made(album: Album, task: Task, result: MapsResult, place: int) -> Made:
    """How the map of one image of a task is made."""
    given = task.parameters
    takes_layer = "layer" in inspect.signature(registry.method(str(given["method"])).function).parameters
    layer = result.provenance.parameters.get("layer") if takes_layer else None
    command = album.commands.line(
        "explain", album.image_file(int(given["images"][place])), method=given["method"], layer=layer,
        window=given.get("window"), stride=given.get("stride"), target=int(result.target[place]), to="map.png",
    )  # fmt: skip
    return album.made(result, command)


def refusals(album: Album) -> dict[str, str]:
    """Methods that cannot be used on this network, and why."""
    return {
        str(task.parameters["method"]): result.reason
        for task in album.find("explain")
        if isinstance(result := album.load(task), Refusal)
    }


# -- occlusion -----------------------------------------------------------------------------------------------------


def _occlusion(album: Album, index: int, said: int) -> Occlusion | Absent | None:
    for task, result, place in _asked(album, index, said):
        if task.parameters["method"] != "occlusion" or "winner" not in result.extra:
            continue
        probability, winner = result.extra["probability"][place].float(), result.extra["winner"][place]
        winners = _winners(winner)
        name = f"image-{album.image_id(index)}-occlusion"
        what = album.seen.quantity
        limits, unit, scale = ((0.0, 1.0), "%", 100) if what == "probability" else (None, "", 1)
        low = album.sheet.scaled(f"{name}-probability", probability[None], "sequential", what, limits=limits)
        map_ = album.sheet.classes(f"{name}-winner", winner[None], {entry.index: entry.colour for entry in winners})
        window, stride = task.parameters["window"], task.parameters["stride"]
        return Occlusion(
            probability=Picture(low, 0, f"{what} of {album.class_name(said)} by position of the window"),
            winner=Picture(map_, 0, "the class that wins by position of the window"),
            winners=winners,
            numbers=(
                Number("window", window, "px"),
                Number("step", stride, "px"),
                Number(f"{what} uncovered", scale * float(result.extra["unoccluded"][place]), unit),
                Number(f"lowest {what}", scale * float(probability.min()), unit),
            ),
            caption="Dark is where covering the picture costs the class most; beside it the class that then wins.",
            made=_made(album, task, result, place),
        )
    return None


def _winners(winner: Tensor) -> tuple[Winner, ...]:
    classes, counts = torch.unique(winner, return_counts=True)
    order = (-counts).argsort(stable=True).tolist()
    return tuple(
        Winner(int(classes[i]), _COLOURS[min(rank, len(_COLOURS) - 1)], float(counts[i]) / winner.numel())
        for rank, i in enumerate(order)
    )


# -- the walk down -------------------------------------------------------------------------------------------------

_WALK = (
    "The class score, the units it is made of, and the units those are made of: each amount is the sum of what is "
    "below it and of a rest, in which biases and weaker units lie."
)


def _found_walk(album: Album, index: int) -> Walk | Absent | None:
    return album.one(Walk, "walk", image=index)


def _walk(album: Album, index: int) -> Step | Absent | None:
    found = _found_walk(album, index)
    if not isinstance(found, Walk):
        return found
    parts = tuple(_step(album, part) for part in found.steps)
    name = f"score of {album.class_name(found.target)}"
    return Step(name, found.score, to_class(found.target), None, "", parts, found.rest)


def _step(album: Album, entry: Sequence[Any]) -> Step:
    layer, unit, amount, rest, below = entry
    parts = tuple(_step(album, part) for part in below)
    return Step(
        f"{layer}:{unit}",
        amount,
        to_unit(layer, unit),
        unit_picture(album, layer, unit),
        album.label(layer, unit),
        parts,
        rest if parts else 0.0,
    )


def _walk_made(album: Album, index: int) -> Made | None:
    found = _found_walk(album, index)
    return album.made(found) if isinstance(found, Walk) else None


# -- activation maps -----------------------------------------------------------------------------------------------


def _activations(album: Album, index: int) -> tuple[ActivationRow, ...] | None:
    for task in album.find("strongest"):
        images: Sequence[int] = task.parameters["images"]
        if index in images:
            result = album.load(task)
            if isinstance(result, Strongest):
                return tuple(_row(album, result, layer, images.index(index), index) for layer in result.units)
    return None


def _row(album: Album, result: Strongest, layer: str, place: int, index: int) -> ActivationRow:
    maps = result.maps[layer][place].float()
    file = f"image-{album.image_id(index)}-activation-{album.slug(layer)}"
    low = float(maps.min())
    colours: Colours = "diverging" if low < 0 else "sequential"
    sprite = album.sheet.scaled(file, maps, colours, "activation", columns=len(maps), own=True)
    pictures = tuple(
        Picture(
            sprite,
            k,
            f"unit {unit} of {layer}",
            to_unit(layer, unit),
            f"{unit}: {float(result.peaks[layer][place, k]):.3g}",
        )
        for k, unit in enumerate(result.units[layer][place].tolist())
    )
    return ActivationRow(layer, pictures, album.net.layer(layer).units)
