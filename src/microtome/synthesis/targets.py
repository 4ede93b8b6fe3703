"""Targets of synthesis: checked channels, directions, reductions and counts."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.synthesis import objectives
from microtome.synthesis.objectives import Objective, Reduction


@dataclass(frozen=True)
class Targets:
    """Rows of a layer to maximise: indices, names, and the objective for a reduction over positions and a sign."""

    layer: str
    rows: list[int]
    names: list[str]
    objective: Callable[[Reduction, int], Objective]


def unit_targets(net: Network, layer: str, channels: int | Iterable[int] | None, directions: Tensor | None) -> Targets:
    """The targets for channels or directions of a layer.

    Raises
    ------
    LayerError
        When the layer is unknown or its values are no maps, tokens or neurons.
    InputError
        When channels or directions do not fit it.
    """
    info = net.layer(layer)
    if not info.units or info.axes.image_axis is None:
        raise LayerError(
            f'layer "{layer}" has shape {info.shape} without units; maps, tokens or neurons were expected.'
        )
    if directions is None:
        rows = checked_indices(channels, info.units, f'channels of layer "{layer}"')
        names = [f"{layer}:{row}" for row in rows]
        return Targets(
            layer, rows, names, lambda reduction, sign: objectives.channel(layer, rows, reduction=reduction, sign=sign)
        )
    if channels is not None:
        raise InputError("pass channels or directions, not both.")
    directions = torch.as_tensor(directions, device=net.device)
    if directions.dim() not in (1, 2) or directions.shape[-1] != info.units:
        raise InputError(f"directions of shape (n, {info.units}) were expected, got {tuple(directions.shape)}.")
    count = len(torch.atleast_2d(directions))
    names = [f"{layer}, direction {row}" for row in range(count)]
    vectors = directions
    return Targets(
        layer,
        list(range(count)),
        names,
        lambda reduction, sign: objectives.direction(layer, vectors, reduction=reduction, sign=sign),
    )


def checked_reduction(net: Network, layer: str, reduction: str | None, position: tuple[int, ...] | None) -> Reduction:
    """The reduction of a unit's map to one number: the caller's choice, or the default for the picture's size."""
    if position is not None:
        if reduction is not None:
            raise InputError("pass reduction or position, not both.")
        return tuple(int(at) for at in position)
    info = net.layer(layer)
    if reduction is None:
        reduction = "center" if max(net.input_shape[1:]) <= 64 else "positive"
    if reduction == "center" and info.spatial:
        return info.axes.grid[0] // 2, info.axes.grid[1] // 2
    return reduction


def checked_indices(indices: int | Iterable[int] | None, count: int, what: str) -> list[int]:
    """Indices below ``count``; None stands for all of them.

    Raises
    ------
    InputError
        When there is none, or one is out of range.
    """
    rows = (
        list(range(count))
        if indices is None
        else [indices]
        if isinstance(indices, int)
        else [int(row) for row in indices]
    )
    if not rows:
        raise InputError(f"the list of {what} is empty; pass at least one.")
    wrong = [row for row in rows if not 0 <= row < count]
    if wrong:
        raise InputError(f"{what} are 0 to {count - 1}, got {wrong[:5]}.")
    return rows


def checked_begin(net: Network, begin: Tensor | None, rows: int, size: tuple[int, ...]) -> Tensor | None:
    """The images that ascents start from, (rows, C, h, w).

    Raises
    ------
    InputError
        When their number or shape does not fit.
    """
    if begin is None:
        return None
    begin = torch.as_tensor(begin, device=net.device)
    images = begin[None] if begin.dim() == 3 else begin
    shape = (net.input_shape[0], *size)
    if images.dim() != 4 or tuple(images.shape[1:]) != shape or len(images) not in (1, rows):
        raise InputError(
            f"begin is one image of shape {shape} or {rows} of them, at the size of the canvas; got "
            f"{tuple(begin.shape)}. Pass size= for another canvas."
        )
    return images.detach().float().expand(rows, -1, -1, -1)


def checked_diversity(diversity: float) -> float:
    """Return the weight of the images' similarity, or raise InputError if it would reward similarity or is infinite."""
    if not 0 <= diversity < math.inf:
        raise InputError(f"diversity must be finite and not negative, got {diversity}.")
    return diversity


def checked_sign(sign: int) -> int:
    """Return 1 or -1, or raise InputError."""
    if sign not in (1, -1):
        raise InputError(f"sign is 1 or -1, got {sign}.")
    return sign


def at_least(value: int, least: int, what: str) -> int:
    """Return the number, or raise InputError when it is too small."""
    if value < least:
        raise InputError(f"{what} is at least {least}, got {value}.")
    return value
