"""Dissections: the activation of a unit as a sum over its input channels, on one image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from microtome import units as units_of
from microtome.atlas.album import Album
from microtome.atlas.planning.first_look import patches_task
from microtome.atlas.planning.plan import Plan, blocks
from microtome.atlas.planning.selection import Selection
from microtome.atlas.task import Task
from microtome.atlas.topic import Topic
from microtome.atlas.topics.units.unit_superstimuli import unit_picture
from microtome.atlas.topics.units.unit_tuning import label
from microtome.atlas.widgets import (
    Absent,
    DissectionRow,
    DissectionTable,
    Number,
    Part,
    Picture,
    Section,
    Sprite,
    to_unit,
)
from microtome.errors import LayerError
from microtome.loading import Subject
from microtome.results import Result, provenance
from microtome.spaces.operators.linear_layer import linear_layers
from microtome.units import TopPatches

__all__ = ["DISSECTIONS", "Dissections"]

_BLOCK = 32  # units in one task
_ROWS = 64  # stored channels; the others are summed
_OPEN = 8  # rows that are never folded away
_SIDE = 56  # pixels a side of a map


@dataclass(frozen=True, eq=False, kw_only=True)
class Dissections(Result):
    """Dissections of some units of a layer, each on one image; by unit, as text.

    Attributes
    ----------
    layer, source : str
        The layer, and the one it reads.
    image : dict of str to int
        The image.
    channels : dict of str to Tensor
        (J',) the channels that are kept, in order.
    x, w, a, c, ranked : dict of str to Tensor
        (J', h, w) inputs, weights, contributions, running sums in the order of the channels and in the
        order of falling contribution.
    y : dict of str to Tensor
        (h', w') the output.
    amount : dict of str to Tensor
        (J',) contributions at ``position``.
    position : dict of str to list of int
        Where y is largest.
    numbers : dict of str to list of float
        Bias, y at the position, the sum of the other channels there, gap, and its bound.
    """

    layer: str
    source: str
    image: dict[str, int]
    channels: dict[str, Tensor]
    x: dict[str, Tensor]
    w: dict[str, Tensor]
    a: dict[str, Tensor]
    c: dict[str, Tensor]
    ranked: dict[str, Tensor]
    y: dict[str, Tensor]
    amount: dict[str, Tensor]
    position: dict[str, list[int]]
    numbers: dict[str, list[float]]


# -- tasks and jobs ------------------------------------------------------------------------------------------------


def _tasks(plan: Plan, chosen: Selection) -> list[Task]:
    found = [
        plan.task("image-dissection", cost=8 * plan.seconds, image=index, target=chosen.predicted[index])
        for index in chosen.images
    ]
    for layer in filter(plan.single_map, plan.layers):
        units = sorted(chosen.units[layer])[: plan.budget.dissections_per_layer]
        for block in blocks(units, _BLOCK):
            cost = len(block) * plan.seconds_up_to(layer)
            needs = (patches_task(plan).key,)
            found.append(plan.task("dissections", needs=needs, cost=cost, layer=layer, units=block))
    return found


def unit_dissections(subject: Subject, tables: TopPatches, *, layer: str, units: Sequence[int]) -> Dissections:
    """Dissect units, each on its strongest image; units without one are skipped."""
    strongest = {unit: tables[layer].entry(unit, 0)[0] for unit in units}
    return _dissected(subject, layer, {unit: image for unit, image in strongest.items() if image >= 0})


def image_dissection(subject: Subject, *, image: int, target: int) -> Dissections:
    """Dissect the unit of the last convolution (or linear layer) that contributes most to a class score.

    Raises
    ------
    LayerError
        The network has no such layer.
    """
    net = subject.net
    linear = [name for name in linear_layers(net) if net.layer(name).spatial] or linear_layers(net)[:-1]
    if not linear:
        raise LayerError("the network has no linear layer below its scores: there is no activation to take apart.")
    record = net.run(subject.pictures([image]), [target], record=linear[-1], gradient=True)
    amounts = record.value[linear[-1]].double() * record.gradient[linear[-1]].double()
    unit = int(net.layer(linear[-1]).axes.per_unit(amounts, 1)[0].sum(1).argmax())
    return _dissected(subject, linear[-1], {unit: image})


def _dissected(subject: Subject, layer: str, on: dict[int, int]) -> Dissections:
    """Dissect units of a layer, each on one image."""
    dissected = {
        unit: units_of.dissect(subject.net, subject.pictures([image]), layer, unit) for unit, image in on.items()
    }
    fields: dict[str, dict[str, Any]] = {
        name: {} for name in ("channels", "x", "w", "a", "c", "ranked", "y", "amount", "position", "numbers")
    }
    for unit, one in dissected.items():
        for name, value in _reduced(one).items():
            fields[name][str(unit)] = value
    return Dissections(
        provenance=provenance(subject.net, "dissect", layer=layer, units=list(on)),
        layer=layer,
        source=next(iter(dissected.values())).source if dissected else "",
        image={str(unit): image for unit, image in on.items()},
        **fields,
    )


def _reduced(dissection: units_of.Dissection) -> dict[str, Any]:
    """The channels that matter, with maps at the size of a page."""
    where = int(dissection.output.flatten().argmax())
    row, column = divmod(where, dissection.output.shape[1])
    amount = dissection.at(row, column)
    order = amount.abs().argsort(descending=True, stable=True)
    rows = order[:_ROWS].sort().values
    ranked = dissection.contributions[order].cumsum(0)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order), device=order.device)
    rest = float(amount.double().sum() - amount[rows].double().sum())
    return {
        "channels": dissection.channels[rows],
        "x": _small(dissection.inputs[rows]),
        "w": dissection.weights[rows],
        "a": _small(dissection.contributions[rows]),
        "c": _small(dissection.cumulative[rows]),
        "ranked": _small(ranked[place[rows]]),
        "y": _small(dissection.output[None])[0],
        "amount": amount[rows],
        "position": [row, column],
        "numbers": [dissection.bias, float(dissection.output[row, column]), rest, dissection.gap, dissection.bound],
    }


def _small(maps: Tensor) -> Tensor:
    """Maps (n, h, w) of at most ``_SIDE`` pixels a side, in half precision."""
    if max(maps.shape[1:]) > _SIDE:
        size = (min(_SIDE, maps.shape[1]), min(_SIDE, maps.shape[2]))
        maps = functional.adaptive_avg_pool2d(maps[:, None].float(), size)[:, 0]
    return maps.float().clamp(-6e4, 6e4).half()


# -- pages ---------------------------------------------------------------------------------------------------------


def _unit(album: Album, layer: str, unit: int) -> list[Section]:
    use = "It shows what each input channel adds to the response of the unit on one picture."
    return [Section("How one response comes about", (Part(_of_unit(album, layer, unit), "the dissection", use),))]


def _of_unit(album: Album, layer: str, unit: int) -> DissectionTable | Absent | None:
    """The dissected activation of a unit on the image that drives it most."""
    found = album.with_item(Dissections, "dissections", "units", unit, layer=layer)
    if found is None or isinstance(found, Absent):
        return found or album.without_weights(layer)
    return _table(album, found[0], unit) if str(unit) in found[0].y else Absent("No image of the data drives it.")


def _image(album: Album, index: int) -> list[Section]:
    found = album.one(Dissections, "image-dissection", image=index)
    if not isinstance(found, Dissections):
        return []
    why = f"Of the units of {found.layer}, this one has the largest activation times gradient of the predicted class."
    return [Section("How the score comes about", (Part(_table(album, found, int(next(iter(found.y))), why)),))]


def _table(album: Album, found: Dissections, unit: int, why: str = "") -> DissectionTable:
    key = str(unit)
    image = found.image[key]
    bias, value, rest, gap, bound = found.numbers[key]
    row, column = found.position[key]
    caption = (
        "Each row is an input channel: its activation, the weights of the unit on it, its contribution, and the "
        "running sum of contributions. The largest contributions come first; the last sum is the response y."
    )
    caption = f"{why} {caption}".lstrip()
    command = album.commands.line(
        "dissect", album.image_file(image), layer=found.layer, channel=unit, to="dissection.png"
    )
    picture = _picture(album, image)
    rows = _rows(album, found, key)
    y = _maps(album, found, key, "y", found.y[key][None].float(), "activation")
    return DissectionTable(
        unit=to_unit(found.layer, unit),
        image=picture,
        rows=rows,
        bias=bias,
        y=Picture(y, 0, f"output of unit {unit}"),
        value=value,
        position=(row, column),
        size=album.net.layer(found.layer).axes.grid,
        check=Number("largest gap between sum and output", gap, tolerance=f"below {bound:.1g}", ok=gap <= bound),
        caption=caption,
        made=album.made(found, command),
        rest=rest,
    )


def _rows(album: Album, found: Dissections, key: str) -> tuple[DissectionRow, ...]:
    x, w, a, c, ranked = (
        _maps(album, found, key, file, values[key].float(), quantity)
        for file, values, quantity in (
            ("x", found.x, "input"), ("w", found.w, "weight"), ("a", found.a, "contribution"),
            ("c", found.c, "running sum"), ("r", found.ranked, "running sum"),
        )
    )  # fmt: skip
    amounts = found.amount[key]
    strongest = set(amounts.abs().argsort(descending=True, stable=True)[:_OPEN].tolist())
    below = album.source_layer(found.source)
    return tuple(
        DissectionRow(
            channel=channel,
            x=Picture(x, place, f"input, channel {channel}"),
            w=Picture(w, place, f"weights, channel {channel}"),
            a=Picture(a, place, f"contribution, channel {channel}"),
            c=Picture(c, place, f"running sum up to channel {channel}"),
            amount=float(amounts[place]),
            c_ranked=Picture(ranked, place, f"running sum by rank, channel {channel}"),
            label=label(album, below, channel) if below else _colour(album, found.layer, channel),
            link=to_unit(below, channel) if below else None,
            weak=place not in strongest,
            picture=unit_picture(album, below, channel) if below else None,
        )
        for place, channel in enumerate(found.channels[key].tolist())
    )


def _colour(album: Album, layer: str, channel: int) -> str:
    """The colour of an image channel, for a layer that reads the image."""
    colours = {1: ("gray",), 3: ("red", "green", "blue")}.get(album.net.input_shape[0], ())
    reads_image = "input" in album.net.layer(layer).inputs
    return colours[channel] if reads_image and channel < len(colours) else ""


def _maps(album: Album, found: Dissections, key: str, part: str, values: Tensor, quantity: str) -> Sprite:
    file = f"dissection-{album.slug(found.layer)}-{key}-{album.image_id(found.image[key])}-{part}"
    signed = part != "x" or float(values.min()) < 0
    return album.sprites.scaled(file, values, "diverging" if signed else "sequential", quantity, square=True)


def _picture(album: Album, index: int) -> Picture:
    if index in album.thumbnails:
        return album.picture(index)
    sprite = album.sprites.natural(f"image-{album.image_id(index)}", album.small([index]))
    return Picture(sprite, 0, f"image {album.image_id(index)}, {album.answer(index)}", None, album.answer(index))


DISSECTIONS = Topic(
    "dissections",
    tasks=_tasks,
    jobs={"dissections": unit_dissections, "image-dissection": image_dissection},
    sections={"unit": _unit, "image": _image},
)
