"""What was asked for? Channels, directions and reductions from a caller's words, with one error each."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.synthesis import objectives
from microtome.synthesis.objectives import Objective, Where


@dataclass(frozen=True)
class Asked:
    """Problems of one kind: their rows, their names, and the objective for a reduction over positions."""

    layer: str
    rows: list[int]
    names: list[str]
    make: Callable[[Where, int], Objective]


def asked_of(net: Network, layer: str, channels: int | Iterable[int] | None, directions: Tensor | None) -> Asked:
    """The problems behind channels or directions of a layer.

    Raises
    ------
    LayerError
        When the layer is unknown or its values are no maps, tokens or neurons.
    InputError
        When channels or directions do not fit it.
    """
    found = net.layer(layer)
    if not found.units or found.axes.image_axis is None:
        raise LayerError(
            f'layer "{layer}" has shape {found.shape} without units; maps, tokens or neurons were expected.'
        )
    if directions is None:
        rows = chosen(channels, found.units, f'channels of layer "{layer}"')
        names = [f"{layer}:{row}" for row in rows]
        return Asked(layer, rows, names, lambda of, sign: objectives.channel(layer, rows, of=of, sign=sign))
    if channels is not None:
        raise InputError("give channels or directions, not both.")
    if directions.dim() not in (1, 2) or directions.shape[-1] != found.units:
        raise InputError(f"directions of shape (n, {found.units}) were expected, got {tuple(directions.shape)}.")
    count = len(torch.atleast_2d(directions))
    names = [f"{layer}, direction {row}" for row in range(count)]
    vectors = directions
    return Asked(
        layer, list(range(count)), names, lambda of, sign: objectives.direction(layer, vectors, of=of, sign=sign)
    )


def reading(net: Network, layer: str, of: str | None, position: tuple[int, ...] | None) -> Where:
    """What is read off a unit's map: as asked, or by the size of the picture."""
    if position is not None:
        if of is not None:
            raise InputError("give of or position, not both.")
        return tuple(int(at) for at in position)
    found = net.layer(layer)
    if of is None:
        of = "center" if max(net.input_shape[1:]) <= 64 else "positive"
    if of == "center" and found.spatial:
        return found.axes.grid[0] // 2, found.axes.grid[1] // 2
    return of


def chosen(asked: int | Iterable[int] | None, count: int, what: str) -> list[int]:
    """Indices below ``count``; None for all of them.

    Raises
    ------
    InputError
        When there is none, or one is out of range.
    """
    rows = list(range(count)) if asked is None else [asked] if isinstance(asked, int) else [int(row) for row in asked]
    if not rows:
        raise InputError(f"no {what} were asked for; give at least one.")
    wrong = [row for row in rows if not 0 <= row < count]
    if wrong:
        raise InputError(f"{what} are 0 to {count - 1}, got {wrong[:5]}.")
    return rows


def checked_sign(sign: int) -> int:
    """1 or -1, or an error."""
    if sign not in (1, -1):
        raise InputError(f"sign is 1 or -1, got {sign}.")
    return sign


def at_least(value: int, least: int, what: str) -> int:
    """A number that is not too small, or an error."""
    if value < least:
        raise InputError(f"{what} is at least {least}, got {value}.")
    return value
