"""Superstimuli with credentials: images made to drive a unit or a class score, and the small picture of each unit."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import torch

from microtome import synthesis
from microtome.atlas.album import Album
from microtome.atlas.pictures.downscaling import downscaled
from microtome.atlas.planning.budget import affordable, fair_shares
from microtome.atlas.planning.first_look import patches_task
from microtome.atlas.planning.plan import Plan, blocks
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.units.unit_tuning import label
from microtome.atlas.widgets import Part, Picture, Section, Stimuli, Stimulus, to_unit
from microtome.loading import Subject
from microtome.synthesis import Superstimuli, recommended_size
from microtome.units import TopPatches

__all__ = ["SUPERSTIMULI", "superstimulus_tasks", "unit_picture"]

_BLOCK = 32  # units in one task
_CLASSES = 5  # classes in one task
_FURTHER = 0.05  # minimum share of the time for further images of a unit
_CELL = 160  # pixels a side of a superstimulus on a page
_THUMBNAIL = 96  # side in pixels of the patch that represents a unit
_JUDGED = {True: 3.3, False: 2.5}  # cost of the path of one picture, in forward passes
_IN_ONE_FILE = {False: 16, True: 400}  # units in one file, of photos and of small images: a page loads few files


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    found = [task for layer in plan.layers for task in _unit_tasks(plan, layer, chosen.units[layer])]
    steps = plan.budget.class_steps
    for block in blocks(chosen.classes, _CLASSES):
        cost = len(block) * steps * plan.step_seconds
        found.append(plan.task("maximize-class", cost=cost, sees=False, classes=block, steps=steps))
    return found


def _unit_tasks(plan: Plan, layer: str, shown: list[int]) -> list[Task]:
    """Superstimuli of a layer's units, compared with restarts; if time remains, also images that lower them."""
    raised, further = _times(plan)
    first, rest = raised[layer], further[layer]
    raising = affordable(shown, first.each, first.share, least=1)
    whole = len(raising) == len(shown)
    units, others = sorted(raising), sorted(affordable(shown, rest.each, rest.share)) if whole else []
    steps, more, restarts = plan.budget.stimulus_steps, _diverse(plan), _restarts(plan)
    return [
        plan.task(
            "maximize", cost=len(block) * ((diverse + again) * first.ascent + first.judged),
            needs=(patches_task(plan).key,),
            layer=layer, channels=block, sign=sign, diverse=diverse, steps=steps, restarts=again,
            compared=plan.budget.compared_patches,
        )
        for some, sign, diverse, again in ((units, 1, 1, restarts), (others, -1, 1, 0), (others, 1, more, 0))
        if diverse
        for block in blocks(some, _BLOCK)
    ]  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Time:
    """Expected seconds on one core.

    Attributes
    ----------
    each : float
        Time of a unit: its ascents, and the comparison with patches.
    ascent, judged : float
        Time of one ascent, and of the comparison.
    share : float
        Available time for all units of the layer.
    """

    each: float
    ascent: float
    judged: float
    share: float


@functools.lru_cache(maxsize=1)  # called for every layer
def _times(plan: Plan) -> tuple[dict[str, _Time], dict[str, _Time]]:
    """By layer: the times for superstimuli, and for further images from the remaining time."""
    seconds, more = plan.budget.superstimulus_seconds, _diverse(plan)
    whole = plan.budget.stimulus_steps * plan.step_seconds / plan.seconds
    ascent = {name: whole * plan.seconds_up_to(name) * _canvas(plan, name) for name in plan.layers}
    compared = (1 + plan.budget.compared_patches) * _JUDGED[plan.small]
    judged = {name: compared * plan.seconds_up_to(name) * _read(plan, name) for name in plan.layers}
    found = []
    for images in (1 + _restarts(plan), 1 + more):
        each = {name: images * ascent[name] + judged[name] for name in plan.layers}
        costs = {name: plan.unit_count(name) * each[name] for name in plan.layers}
        shares = fair_shares(costs, seconds)
        found.append({name: _Time(each[name], ascent[name], judged[name], shares[name]) for name in plan.layers})
        seconds -= sum(min(costs[name], shares[name]) for name in plan.layers)
        seconds = max(seconds, _FURTHER * plan.budget.superstimulus_seconds)
    return found[0], found[1]


def superstimulus_tasks(plan: Plan, layer: str, shown: list[int]) -> list[Task]:
    """The tasks that make the first superstimulus of each unit of a layer."""
    return [
        task
        for task in _unit_tasks(plan, layer, shown)
        if task.parameters["sign"] == 1 and task.parameters["diverse"] == 1
    ]


def _diverse(plan: Plan) -> int:
    """Number of further superstimuli of a unit: small images are cheap enough for two in any budget."""
    return max(plan.budget.diverse_stimuli, 2 if plan.small else 0)


def _restarts(plan: Plan) -> int:
    """Number of other starts for comparison: for small images one is cheap enough in any budget."""
    return max(plan.budget.restarts, 1 if plan.small else 0)


def _canvas(plan: Plan, layer: str) -> float:
    """Pixels of a superstimulus by those of the network's input."""
    side = recommended_size(plan.net, layer)
    _, height, width = plan.net.input_shape
    return 1.0 if side is None else side * side / (height * width)


def _read(plan: Plan, layer: str) -> float:
    """The share of the picture that one position reads, on which it is judged."""
    info = plan.net.layer(layer)
    if info.field is None or info.gated:
        return 1.0
    sides = zip(info.field.size, info.field.stride, plan.net.input_shape[1:], strict=True)
    return math.prod(min(1.0, (size + stride) / whole) for size, stride, whole in sides)


def maximize(subject: Subject, tables: TopPatches, *, restarts: int, compared: int, **options: Any) -> Superstimuli:
    """Superstimuli of some units, checked against the data; failed ones that raise a unit are recomputed."""
    superstimuli = synthesis.maximize(subject.net, **options)
    patches = tables[options["layer"]].with_images(subject.images)
    retry = options["sign"] > 0 and options["diverse"] == 1
    checked = synthesis.credentials(subject.net, superstimuli, patches, restarts=restarts, retry=retry, k=compared)
    return _small(checked, _CELL)


def maximize_class(subject: Subject, **options: Any) -> Superstimuli:
    """Images made for class scores."""
    return _small(synthesis.maximize_class(subject.net, **options), 2 * _CELL)


def _small(found: Superstimuli, side: int) -> Superstimuli:
    """The images at the size of a page, in half precision."""
    return dataclasses.replace(found, images=downscaled(found.images, side).half())


# -- units ---------------------------------------------------------------------------------------------------------

# By unit: the result that holds its images, and the place of the first of them.
_Found = dict[int, tuple[Superstimuli, int]]


def _stimuli(album: Album, layer: str, sign: int, diverse: int = 1) -> _Found:
    """The superstimuli of a layer by unit."""
    return album.remembered(("stimuli", layer, sign, diverse), lambda: _gathered(album, layer, sign, diverse))


def _gathered(album: Album, layer: str, sign: int, diverse: int) -> _Found:
    found: _Found = {}
    for task in album.find("maximize", layer=layer, sign=sign, diverse=diverse):
        result = album.load(task)
        if isinstance(result, Superstimuli):
            for place, unit in enumerate(result.channel.tolist()):
                found.setdefault(unit, (result, place))
    return found


def _unit(album: Album, layer: str, unit: int) -> list[Section]:
    use = "They are images optimised for the strongest and the weakest response of the unit."
    part = Part(_unit_stimuli(album, layer, unit), "superstimuli", use)
    return [Section("Images made to drive it", (part,), half=True, beside=True)]


def _unit_stimuli(album: Album, layer: str, unit: int) -> Stimuli | None:
    """The superstimuli of a unit, those that raise it first, in their own file."""
    found = [
        (role, result, place + step)
        for role, sign, count in (("positive", 1, 1), ("diverse", 1, _diverse(album.plan)), ("negative", -1, 1))
        if count
        for result, place in [_stimuli(album, layer, sign, count).get(unit, (None, 0))]
        if result is not None
        for step in range(count)
    ]
    if not found:
        return None
    cells = torch.cat([downscaled(result.images[place : place + 1].float(), _CELL) for _, result, place in found])
    sprite = album.sprites.natural(f"stimuli-{album.slug(layer)}-{unit}", cells, columns=len(cells))
    items = []
    for cell, (role, result, place) in enumerate(found):
        reached = float(result.peak[place])
        picture = Picture(sprite, cell, f"{_ROLES[role]} unit {unit} of {layer}", to_unit(layer, unit))
        items.append(
            Stimulus(picture, role, reached, _share(album, layer, result, place), *_credentials(result, place))
        )
    first = found[0][1]
    command = album.commands.line(
        "maximize", layer, channels=unit, steps=first.provenance.parameters["steps"], seed=first.provenance.seed,
        to="unit.png",
    )  # fmt: skip
    lowers = any(role == "negative" for role, _, _ in found)
    caption = (
        f"Optimised to {'raise and to lower' if lowers else 'raise'} the response of this unit as far as possible. "
        f"Below each image: the response, and the share of {album.tables[layer].sampled:,} images of the data whose "
        "response is less extreme at every position. Marked images may not show what drives the unit in the data."
    )
    return Stimuli(tuple(items), caption, album.made(first, command))


def _share(album: Album, layer: str, result: Superstimuli, row: int) -> float | None:
    """Percentage of the images of the data with a less extreme response; None if unknown."""
    if result.percentile is not None:
        return float(result.percentile[row])
    if result.sign < 0:
        return None  # the table counts the highest responses of images
    return album.tables[layer].percentile(int(result.channel[row]), float(result.peak[row]))


_ROLES = {
    "positive": "image made to raise",
    "diverse": "another image made to raise",
    "negative": "image made to lower",
}


def _credentials(result: Superstimuli, row: int) -> tuple[bool | None, str, str]:
    """Whether an image is trusted, the reason, and its measurements in words; empty if not computed."""
    if result.trusted is None or result.path_similarity is None or result.agreement is None:
        return None, "", ""
    numbers = [("path similarity", float(result.path_similarity[row])), ("agreement", float(result.agreement[row]))]
    words = [f"{name} {value:.2f}" for name, value in numbers if not math.isnan(value)]
    origin = result.origin[row] if result.origin else ""
    words += [f"made from {origin}"] if origin not in ("", "first start") else []
    return bool(result.trusted[row]), result.reasons[row] if result.reasons else "", ", ".join(words)


def unit_picture(album: Album, layer: str, unit: int) -> Picture | None:
    """The small picture of a unit: its superstimulus if that is trusted, otherwise its strongest patch.

    None for layers that are not shown.
    """
    if layer not in album.layers:
        return None
    return album.remembered(("pictures", layer), lambda: _pictures(album, layer)).get(unit)


def _pictures(album: Album, layer: str) -> dict[int, Picture]:
    table, each = album.tables[layer], _IN_ONE_FILE[album.pixelated]
    every = _stimuli(album, layer, 1)
    trusted = {unit: one for unit, one in every.items() if _credentials(*one)[0] is not False}
    rest = [unit for unit in range(table.units) if unit not in trusted]
    found = {}
    for kind, units in (("superstimulus", sorted(trusted)), ("strongest patch", rest)):
        for number, part in enumerate(blocks(units, each)):
            cells = [
                trusted[unit][0].images[trusted[unit][1]].float() if unit in trusted else table.crop(unit, 0).float()
                for unit in part
            ]
            name = f"{kind.split()[0]}-{album.slug(layer)}-{number}"
            sprite = album.sprites.natural(name, downscaled(torch.stack(cells), _THUMBNAIL))
            for place, unit in enumerate(part):
                found[unit] = Picture(sprite, place, f"{kind} of {_about(album, layer, unit)}", to_unit(layer, unit))
    return found


def _about(album: Album, layer: str, unit: int) -> str:
    """A description of a unit: its number, its label, and the class with the highest response."""
    named = label(album, layer, unit)
    strongest = int(album.tables[layer].groups[unit, 0]) if album.classes_measured else -1
    parts = [f"unit {unit} of {layer}"]
    parts += [f"label: {named}"] if named else []
    parts += [f"strongest on {album.class_name(strongest)}"] if strongest >= 0 else []
    return ", ".join(parts)


# -- classes -------------------------------------------------------------------------------------------------------


def _class(album: Album, index: int) -> list[Section]:
    use = "They show the image with the highest score of the class."
    part = Part(_class_stimuli(album, index), "images made for the class score", use)
    return [Section("Images made for it", (part,), half=True)]


def _class_stimuli(album: Album, index: int) -> Stimuli | None:
    """The image made for the score of a class."""
    for task in album.find("maximize-class"):
        result = album.load(task)
        if index in task.parameters["classes"] and isinstance(result, Superstimuli):
            place = int((result.channel == index).nonzero()[0, 0])
            sprite = album.sprites.natural(f"class-{index}", result.images[place : place + 1].float())
            reached = result.activation[place].cpu()
            share = 100 * float((album.seen.logits[:, index] <= reached).float().mean())
            picture = Picture(sprite, 0, f"image made for class {album.class_name(index)}")
            caption = (
                f"An image optimised to raise the score of this class as far as possible. Below it: the score, and the "
                f"share of the {len(album.seen.logits):,} images of the data with a lower score."
            )
            steps, seed = result.provenance.parameters["steps"], result.provenance.seed
            command = album.commands.line("maximize", **{"for": index}, steps=steps, seed=seed, to="class.png")
            item = Stimulus(picture, "positive", float(reached), share)
            return Stimuli((item,), caption, album.made(result, command))
    return None


SUPERSTIMULI = Topic(
    "superstimuli",
    tasks=_tasks,
    jobs={"maximize": maximize, "maximize-class": maximize_class},
    sections={"unit": _unit, "class": _class},
)
