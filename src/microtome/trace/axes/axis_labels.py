"""The known roles of the axes of one value, and how operators that keep positions pass them on."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from microtome.trace.axes.value_axes import COLUMN, IMAGE, PLACE, ROW, UNIT, Axis, Factor

Size = Sequence[int]

# Origin of positions that only a weight has, as ``x[:, None] * weight`` has its rows; less the number of the operation.
WEIGHT = -6


class Labels(NamedTuple):
    """The known roles of a value's axes.

    Attributes
    ----------
    axes : tuple of Axis
        Factors of each axis; empty where nothing is known, or for an axis of length one.
    since : int
        The operation that made the units, so that a residual stream keeps its own beside those of its branches.
    """

    axes: tuple[Axis, ...]
    since: int = 0


class Known(NamedTuple):
    """An input of an operation: its shape and the known roles of its axes."""

    shape: Size
    labels: Labels | None


def pictures(shape: Size) -> Labels:
    """Labels of a batch of images (N, C, H, W)."""
    return Labels(tuple((Factor(role, size),) for role, size in zip((IMAGE, UNIT, ROW, COLUMN), shape, strict=True)))


def resized(axis: Axis, size: int) -> Axis:
    """The axis with another length: its role stays if it is the only one and not that of the images."""
    if math.prod(f.size for f in axis) == size:
        return axis
    roles = {f.role for f in axis}
    if len(roles) == 1 and roles != {IMAGE}:
        return (Factor(roles.pop(), size, 1, min(axis[0].origin, 0)),)
    return (Factor(PLACE, size),) if size > 1 else ()


def has_units(labels: Labels | None) -> bool:
    """Whether any axis holds units."""
    return labels is not None and any(f.role == UNIT for axis in labels.axes for f in axis)


def claimed(labels: Labels, place: int, size: int, step: int) -> Labels:
    """Make the axis at ``place`` the only one that holds units; images folded into it stay there."""
    axes = [tuple(Factor(PLACE, f.size) if f.role == UNIT else f for f in axis) for axis in labels.axes]
    axes[place] = (Factor(UNIT, size),)
    lone = {role: [k for k, axis in enumerate(axes) for f in axis if f.role == role] for role in (ROW, COLUMN)}
    for role, found in lone.items():  # rows whose inner part has become units: the rest are the rows
        if len(found) == 1 and len(axes[found[0]]) == 1:
            axes[found[0]] = (Factor(role, axes[found[0]][0].size),)
    return Labels(tuple(axes), step)


def is_unit(axis: Axis) -> bool:
    """Whether the axis holds units."""
    return any(f.role == UNIT for f in axis)


def places(size: int) -> Axis:
    """An axis of positions without a known role; nothing where the length is one."""
    return (Factor(PLACE, size),) if size > 1 else ()


def alike(read: list[Known], shape: Size) -> Labels | None:
    """Elementwise operations, and all that keep the order of the axes: every axis as in the input that has it."""
    labelled = [(one.shape, one.labels) for one in read if one.labels is not None]
    full = [one for one in labelled if len(one[0]) == len(shape)]
    if not full:
        return _same_ends(*labelled[0], shape)
    weights = [one.shape for one in read if one.labels is None]
    exact = [one for one in full if tuple(one[0]) == tuple(shape)] or full
    base = min((labels for _, labels in exact), key=lambda labels: (not has_units(labels), labels.since))
    axes = list(base.axes)
    for place, size in enumerate(shape):
        if math.prod(f.size for f in axes[place]) == size and (axes[place] or size == 1):
            continue
        for its, labels in labelled:
            back = place - len(shape)
            fits = -back <= len(its) and its[back] == size
            if fits and labels.axes[back] and not (has_units(base) and is_unit(labels.axes[back])):
                axes[place] = labels.axes[back]
                break
        else:
            back = place - len(shape)
            if not axes[place] and any(-back <= len(its) and its[back] == size for its in weights):
                axes[place] = (Factor(PLACE, size, 1, WEIGHT),)
    return Labels(tuple(axes), base.since)


def _same_ends(its: Size, labels: Labels, shape: Size) -> Labels:
    """An unknown operation changed the number of axes: keep the first and last axes that agree in length."""
    found: list[Axis] = [()] * len(shape)
    for k in range(min(len(shape), len(its))):
        if shape[k] != its[k]:
            break
        found[k] = labels.axes[k]
    return Labels(tuple(found), labels.since)
