"""The axis of channels after an operation that moves values."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from microtome.trace.operators.axis_order import axis_order
from microtome.trace.operators.operator_calls import Call


@dataclass(frozen=True)
class Axis:
    """The axis of a value along which its channels lie, and the channel of each entry."""

    place: int
    channels: Tensor = field(repr=False)


def reshaped(axis: Axis, before: tuple[int, ...], after: tuple[int, ...]) -> Axis | None:
    """The axis after flatten, reshape or view; None if its entries are spread over several axes.

    Examples
    --------
    >>> import torch
    >>> reshaped(Axis(1, torch.tensor([7, 9])), (1, 2, 2, 2), (1, 8)).channels.tolist()
    [7, 7, 7, 7, 9, 9, 9, 9]
    >>> reshaped(Axis(1, torch.tensor([7, 9])), (1, 2, 3, 3), (1, 2, 9)).place
    1
    >>> reshaped(Axis(1, torch.tensor([7, 9])), (1, 2, 3, 3), (2, 3, 3)) is None  # images and channels are merged
    True
    """
    for first in range(axis.place, 0, -1):
        for last in range(axis.place + 1, len(before) + 1):
            size, ahead = math.prod(before[first:last]), math.prod(before[:first])
            for place in range(1, len(after)):
                if after[place] == size and math.prod(after[:place]) == ahead:
                    inner = axis.channels.repeat_interleave(math.prod(before[axis.place + 1 : last]))
                    return Axis(place, inner.repeat(math.prod(before[first : axis.place])))
    return None


def turned(axis: Axis, call: Call, dims: int) -> Axis | None:
    """The axis after permute, transpose or movedim."""
    place = axis_order(call, dims).index(axis.place)
    return Axis(place, axis.channels) if place else None


def reduced(axis: Axis, given: Mapping[str, Any], dims: int) -> Axis | None:
    """The axis after a mean or a sum over other axes; None if the channels themselves are reduced."""
    dim = given.get("dim", given.get("argument1"))
    if dim is None:
        return None
    over = {int(place) % dims for place in (dim if isinstance(dim, list | tuple) else [dim])}
    if axis.place in over:
        return None
    keep = bool(given.get("keepdim", False))
    return Axis(axis.place - (0 if keep else sum(place < axis.place for place in over)), axis.channels)


def cut(axis: Axis, call: Call, dims: int) -> Axis | None:
    """The axis after indexing or splitting along other axes; None if the channels themselves are cut."""
    arguments = call.arguments
    if call.kind == "getitem":
        return _indexed(axis, arguments["index"], dims)
    if call.kind in ("select", "narrow", "unbind"):
        dim = int(arguments.get("dim", arguments.get("argument1", 0))) % dims
        if dim == axis.place:
            return None
        return Axis(axis.place - (call.kind != "narrow" and dim < axis.place), axis.channels)
    dim = int(arguments.get("dim", arguments.get("argument2", 0))) % dims
    return None if dim == axis.place else axis


def _indexed(axis: Axis, index: Any, dims: int) -> Axis | None:
    parts = list(index) if isinstance(index, tuple) else [index]
    if any(isinstance(part, Tensor | list) for part in parts):
        return None
    named = sum(part is not None and part is not Ellipsis for part in parts)
    full: list[Any] = []
    for part in parts:
        full += [slice(None)] * (dims - named) if part is Ellipsis else [part]
    place, seen = 0, 0
    for part in full:
        if part is None:
            place += 1
            continue
        if seen == axis.place:
            return Axis(place, axis.channels) if part == slice(None) else None
        seen += 1
        place += isinstance(part, slice)
    return Axis(place + axis.place - seen, axis.channels)
