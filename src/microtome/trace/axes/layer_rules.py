"""How layers with weights and products carry the axes of images, units, rows and columns."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from microtome.trace.axes.axis_labels import Known, Labels, Size, alike, claimed, is_unit, places
from microtome.trace.axes.value_axes import COLUMN, PLACE, ROW, UNIT, Axis, Factor
from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_calls import Call


def convolution(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels:
    """A convolution: output channels are the units, rows and columns stay."""
    weight = known(call.arguments["weight"])
    images = known(call.arguments["input"])
    labels = images.labels or Labels(((),) * len(shape))
    place = len(shape) - (len(weight.shape) - 2) - 1
    axes = list(labels.axes)
    if len(weight.shape) == 4 and place == 1:
        others = [f for axis in axes[:-2] for f in axis if f.role in (ROW, COLUMN)]
        if _may_be_picture(axes[-2], axes[-1]) and not others and all(f.role != PLACE for f in axes[0]):
            axes[-2:] = [(Factor(ROW, images.shape[-2]),), (Factor(COLUMN, images.shape[-1]),)]
    return claimed(Labels(tuple(axes)), place, shape[place], step)


def _may_be_picture(rows: Axis, columns: Axis) -> bool:
    """Whether two axes can be the picture's: rows that were taken one by one are not known as such."""
    return all(
        (f.role == PLACE and f.origin >= 0) or (f.role == role and len(axis) == 1)
        for role, axis in ((ROW, rows), (COLUMN, columns))
        for f in axis
    )


# The frequencies of rows and columns, as the origin of what is then no position on the picture; by the direction.
_FREQUENCIES = {(ROW, False): -2, (COLUMN, False): -3, (ROW, True): -4, (COLUMN, True): -5}
_ROLES = {origin: found for found, origin in _FREQUENCIES.items()}


def transform(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """A Fourier transform: rows and columns become frequencies; the inverse makes rows and columns of these."""
    labels = known(call.arguments["input"]).labels
    dim = call.arguments["dim"]
    if dim is None:
        sizes = call.arguments["s"]
        dim = range(len(shape)) if sizes is None else range(-len(sizes), 0)
    if labels is None:
        return None
    axes, inverse = list(labels.axes), "_i" in call.kind
    for place in [dim] if isinstance(dim, int) else dim:
        axes[place] = tuple(_transformed(f, shape[place], step, inverse=inverse) for f in axes[place])
    return Labels(tuple(axes), labels.since)


def _transformed(f: Factor, size: int, step: int, *, inverse: bool) -> Factor:
    if f.role in (ROW, COLUMN):
        return Factor(PLACE, size, f.step, _FREQUENCIES[f.role, inverse])
    role, before = _ROLES.get(f.origin, ("", inverse))
    if f.role == PLACE and before != inverse:
        return Factor(role, size, f.step)
    return Factor(PLACE, f.size, 1, step) if f.role == PLACE else f


def linear(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels:
    """A linear layer: the last axis holds the units."""
    labels = known(call.arguments["input"]).labels or Labels(((),) * len(shape))
    return claimed(labels, len(shape) - 1, shape[-1], step)


def norm(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """A norm: the axes stay; the units are those of the axis that it scales."""
    labels = known(call.arguments["input"]).labels
    if labels is None:
        return None
    if call.kind in ("layer_norm", "rms_norm"):
        normalised = call.arguments.get("normalized_shape", call.arguments.get("argument1"))
        if len(list(normalised or ())) != 1:
            return labels
        place = len(shape) - 1
    else:
        place = 1
    return labels if _only_unit(labels, place) else claimed(labels, place, shape[place], step)


def _only_unit(labels: Labels, place: int) -> bool:
    """Whether the units lie on this axis alone, so that a norm changes nothing about them."""
    held = [k for k, axis in enumerate(labels.axes) for f in axis if f.role == UNIT]
    return held == [place] and len(labels.axes[place]) == 1


def product(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """``a @ b``: rows of the first, columns of the second; a matrix of weights makes units of its side."""
    first, second = (known(value) for value in call.tensors[-2:])
    if len(first.shape) < 2 or len(second.shape) < 2:
        return None
    batch = shape[:-2]
    ahead = [
        Known(one.shape[:-2], Labels(one.labels.axes[:-2], one.labels.since))
        for one in (first, second)
        if one.labels is not None
    ]
    axes = list(_batch(ahead, batch))
    since = [one.labels.since for one in (first, second) if one.labels is not None]
    if first.labels is not None and second.labels is None and len(second.shape) == 2:
        labels = Labels((*axes, first.labels.axes[-2], ()))
        return claimed(labels, len(shape) - 1, shape[-1], step)
    if first.labels is None and second.labels is not None:
        labels = Labels((*axes, (), second.labels.axes[-1]))
        if len(first.shape) == 2 and is_unit(second.labels.axes[-2]):
            return claimed(labels, len(shape) - 2, shape[-2], step)
        return Labels((*axes, places(shape[-2]), second.labels.axes[-1]), min(since))
    rows = first.labels.axes[-2] if first.labels is not None else places(shape[-2])
    columns = second.labels.axes[-1] if second.labels is not None else places(shape[-1])
    if is_unit(rows) and is_unit(columns):
        columns = places(shape[-1])
    return Labels((*axes, rows, columns), min(since))


def _batch(parts: list[Known], shape: Size) -> tuple[Axis, ...]:
    axes: list[Axis] = []
    for place, size in enumerate(shape):
        back = place - len(shape)
        fitting = [
            one.labels.axes[back]
            for one in parts
            if one.labels is not None and -back <= len(one.shape) and one.shape[back] == size and one.labels.axes[back]
        ]
        axes.append(fitting[0] if fitting else places(size))
    return tuple(axes)


def attention(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """Attention: positions of the query, features of the value."""
    query, value = known(call.arguments["query"]).labels, known(call.arguments["value"]).labels
    if query is None or value is None:
        return alike([known(tensor) for tensor in call.tensors], shape)
    return Labels((*query.axes[:-1], value.axes[-1]), min(query.since, value.since))


def multi_head(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """Whole attention and recurrent layers: the last axis holds the units."""
    labels = known(call.tensors[0]).labels
    return None if labels is None else claimed(labels, len(shape) - 1, shape[-1], step)


def einsum(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """Einstein summation: each letter of the output as in the operand that has it; a new one holds the units."""
    equation = call.args[0]
    operands = [known(value) for value in tensors(call.args[1:])]
    reads, _, makes = equation.replace(" ", "").partition("->")
    if "." in equation or not makes:
        return None
    letters = [(word, one) for word, one in zip(reads.split(","), operands, strict=True)]
    axes: list[Axis] = []
    new: int | None = None
    for place, letter in enumerate(makes):
        found = [
            one.labels.axes[word.index(letter)] for word, one in letters if letter in word and one.labels is not None
        ]
        if not found and new is None:
            new = place
        axes.append(found[0] if found else places(shape[place]))
    since = min(one.labels.since for one in operands if one.labels is not None)
    labels = Labels(tuple(axes), since)
    return labels if new is None else claimed(labels, new, shape[new], step)


def contracted(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """``tensordot`` and ``inner``: the remaining axes of both operands in order; a new axis holds the units."""
    first, second = (known(value) for value in call.tensors[-2:])
    pairs = _contracted(call, len(first.shape), len(second.shape))
    axes: list[Axis] = []
    new: list[int] = []
    for one, summed in zip((first, second), pairs, strict=True):
        for place in range(len(one.shape)):
            if place not in summed:
                if one.labels is None and one.shape[place] > 1:
                    new.append(len(axes))
                axes.append(places(one.shape[place]) if one.labels is None else one.labels.axes[place])
    labels = Labels(tuple(axes), min(one.labels.since for one in (first, second) if one.labels is not None))
    return claimed(labels, new[0], shape[new[0]], step) if len(new) == 1 else labels


def _contracted(call: Call, first: int, second: int) -> tuple[set[int], set[int]]:
    """The summed axes of both operands."""
    if call.kind == "inner":
        return {first - 1}, {second - 1}
    dims = call.arguments.get("argument2", call.arguments.get("dims", 2))
    if isinstance(dims, int):
        return set(range(first - dims, first)), set(range(dims))
    one, other = ([axes] if isinstance(axes, int) else axes for axes in dims)
    return {axis % first for axis in one}, {axis % second for axis in other}


def embedding(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """An embedding: a new last axis holds the units."""
    labels = known(call.tensors[0]).labels
    return None if labels is None else claimed(Labels((*labels.axes, ())), len(shape) - 1, shape[-1], step)
