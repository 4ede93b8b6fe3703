"""How are dissected activations of many units kept small? The rows that matter, maps at the size they are shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from microtome import units
from microtome.atlas.walk import amounts
from microtome.errors import LayerError
from microtome.loading import Subject
from microtome.results import Result, provenance
from microtome.spaces.operators.linear_layer import linear_layers

__all__ = ["Sheets", "image_sheet", "sheets_of"]

_ROWS = 64  # rows of a sheet; the rest is one sum
_SIDE = 56  # pixels a side of a map


@dataclass(frozen=True, eq=False, kw_only=True)
class Sheets(Result):
    """Dissections of some units of a layer, each on the image that drives it most; by unit, as text.

    Attributes
    ----------
    layer, source : str
        The layer, and the one it reads.
    image : dict of str to int
        On which image.
    channels : dict of str to Tensor
        (J',) the channels with a row, in order.
    x, w, a, c, ranked : dict of str to Tensor
        (J', h, w) inputs, weights, contributions, running sums in the order of the channels and in the
        order of falling contribution.
    y : dict of str to Tensor
        (h', w').
    amount : dict of str to Tensor
        (J',) contributions at ``position``.
    position : dict of str to list of int
        Where y is largest.
    numbers : dict of str to list of float
        Bias, y at the position, the sum of channels without a row there, gap, and its bound.
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


def sheets_of(subject: Subject, table: units.LayerPatches, chosen: Sequence[int]) -> Sheets:
    """Dissect units on the images that drive them most; those that no image drives are left out.

    Raises
    ------
    LayerError
        The layer is neither a convolution nor fully connected.
    """
    strongest = {unit: table.entry(unit, 0)[0] for unit in chosen}
    return _dissected(subject, table.layer, {unit: image for unit, image in strongest.items() if image >= 0})


def image_sheet(subject: Subject, image: int, target: int) -> Sheets:
    """Dissect the unit that speaks most for a class, by gradient times value, in the last convolution or else layer.

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
    unit = int(amounts(record.value[linear[-1]], record.gradient[linear[-1]]).argmax())
    return _dissected(subject, linear[-1], {unit: image})


def _dissected(subject: Subject, layer: str, on: dict[int, int]) -> Sheets:
    """Dissect units of a layer, each on one image."""
    kept = {unit: units.dissect(subject.net, subject.pictures([image]), layer, unit) for unit, image in on.items()}
    parts = {str(unit): _parts(made) for unit, made in kept.items()}

    def of(name: str) -> dict[str, Any]:
        return {unit: part[name] for unit, part in parts.items()}

    return Sheets(
        provenance=provenance(subject.net, "dissect", layer=layer, units=list(on)),
        layer=layer,
        source=next(iter(kept.values())).source if kept else "",
        image={str(unit): image for unit, image in on.items()},
        channels=of("channels"),
        x=of("x"),
        w=of("w"),
        a=of("a"),
        c=of("c"),
        ranked=of("ranked"),
        y=of("y"),
        amount=of("amount"),
        position=of("position"),
        numbers=of("numbers"),
    )


def _parts(made: units.Dissection) -> dict[str, Any]:
    where = int(made.output.flatten().argmax())
    row, column = divmod(where, made.output.shape[1])
    amount = made.at(row, column)
    order = amount.abs().argsort(descending=True, stable=True)
    rows = order[:_ROWS].sort().values
    ranked = made.contributions[order].cumsum(0)
    place = torch.empty_like(order)
    place[order] = torch.arange(len(order))
    rest = float(amount.double().sum() - amount[rows].double().sum())
    return {
        "channels": made.channels[rows],
        "x": _small(made.inputs[rows]),
        "w": made.weights[rows],
        "a": _small(made.contributions[rows]),
        "c": _small(made.cumulative[rows]),
        "ranked": _small(ranked[place[rows]]),
        "y": _small(made.output[None])[0],
        "amount": amount[rows],
        "position": [row, column],
        "numbers": [made.bias, float(made.output[row, column]), rest, made.gap, made.bound],
    }


def _small(maps: Tensor) -> Tensor:
    """Maps (n, h, w) of at most ``_SIDE`` pixels a side, in half precision: they are only looked at."""
    if max(maps.shape[1:]) > _SIDE:
        size = (min(_SIDE, maps.shape[1]), min(_SIDE, maps.shape[2]))
        maps = functional.adaptive_avg_pool2d(maps[:, None].float(), size)[:, 0]
    return maps.float().clamp(-6e4, 6e4).half()
