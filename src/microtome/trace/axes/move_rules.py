"""How operators that move values (views, selections, joins, reductions) carry the axes."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from microtome.trace.axes.axis_labels import (
    WEIGHT,
    Known,
    Labels,
    Size,
    alike,
    claimed,
    has_units,
    places,
    resized,
)
from microtome.trace.axes.value_axes import COLUMN, IMAGE, PLACE, ROW, Axis, Factor
from microtome.trace.operators.axis_order import axis_order
from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_calls import Call


def reshape(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """View, reshape, flatten and similar: the factors are regrouped."""
    one = known(call.input)
    if one.labels is None:
        return None
    found = regrouped(one.labels, one.shape, shape)
    return _torn(one.labels, one.shape, shape) if found is None else found


def _torn(labels: Labels, before: Size, after: Size) -> Labels | None:
    """Labels if rows are cut at other lengths than before: these axes hold places; None if images are cut apart."""
    ahead = next((k for k, (old, new) in enumerate(zip(before, after, strict=False)) if old != new), None)
    if ahead is None:
        return None
    same = (old == new for old, new in zip(before[:ahead:-1], after[:ahead:-1], strict=False))
    behind = next((k for k, alike in enumerate(same) if not alike), min(len(before), len(after)) - ahead - 1)
    torn = labels.axes[ahead : len(before) - behind]
    if any(f.role == IMAGE for axis in torn for f in axis):
        return None
    between = [places(size) for size in after[ahead : len(after) - behind]]
    return Labels((*labels.axes[:ahead], *between, *labels.axes[len(before) - behind :]), labels.since)


def regrouped(labels: Labels, before: Size, after: Size) -> Labels | None:
    """Labels of a reshaped value with the same order of elements; None where a factor would be split.

    Examples
    --------
    >>> from microtome.trace.axes.axis_labels import pictures
    >>> regrouped(pictures((2, 3, 4, 6)), (2, 3, 4, 6), (2, 3, 2, 2, 6)).axes[2:4]
    ((Factor(role='row', size=2, step=2, origin=0),), (Factor(role='row', size=2, step=1, origin=0),))
    """
    queue: list[Factor] = []
    for axis, size in zip(labels.axes, before, strict=True):
        known = math.prod(f.size for f in axis) == size
        queue += [f for f in axis if f.size > 1] if known else places(size)
    single = [(k, f) for k, axis in enumerate(labels.axes) for f in axis if f.size == 1 and f.role == IMAGE]
    axes: list[Axis] = []
    for size in after:
        need, inside = size, list[Factor]()
        while need > 1:
            if not queue:
                return None
            f = queue.pop(0)
            if need % f.size == 0:
                inside.append(f)
                need //= f.size
            elif f.size % need == 0 and f.role != IMAGE:
                inner = f.size // need
                inside.append(Factor(f.role, need, f.step * inner, f.origin))
                queue.insert(0, Factor(f.role, inner, f.step, f.origin))
                need = 1
            else:
                return None
        axes.append(_merged(inside))
    if single and after and after[0] == 1:  # one image: its axis has length one, as others may
        axes[0] = (Factor(IMAGE, 1),)
    return Labels(tuple(axes), labels.since)


def _merged(inside: list[Factor]) -> Axis:
    found: list[Factor] = []
    for f in inside:
        last = found[-1] if found else None
        whole = last is not None and last.role == f.role and last.origin == f.origin and last.step == f.step * f.size
        if last is not None and whole and f.role in (ROW, COLUMN, PLACE):
            found[-1] = Factor(f.role, last.size * f.size, f.step, f.origin)
        else:
            found.append(f)
    return tuple(found)


def permuted(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """Permute, transpose, movedim: the axes in another order."""
    labels = known(call.input).labels
    if labels is None:
        return None
    order = axis_order(call, len(shape))
    return Labels(tuple(labels.axes[k] for k in order), labels.since)


def expanded(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """Expand, repeat, tile: copies along an axis are positions."""
    one = known(call.input)
    if one.labels is None:
        return None
    axes: list[Axis] = []
    for place, size in enumerate(shape):
        back = place - len(shape)
        inside = -back <= len(one.shape)
        length, axis = (one.shape[back], one.labels.axes[back]) if inside else (1, ())
        if length == size:
            axes.append(axis)
        elif any(f.role == IMAGE for f in axis) and size % max(length, 1) == 0:
            axes.append((Factor(PLACE, size // length), *axis))
        else:
            axes.append(resized(axis, size))
    return Labels(tuple(axes), one.labels.since)


def interleaved(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """Repeat each entry of an axis: the copies of an image lie beside each other."""
    one = known(call.input)
    if one.labels is None or len(one.shape) != len(shape):
        return None
    axes = list(one.labels.axes)
    for place, (before, after) in enumerate(zip(one.shape, shape, strict=True)):
        if before != after and any(f.role == IMAGE for f in axes[place]):
            axes[place] = (*axes[place], Factor(PLACE, after // before))
    return Labels(tuple(axes), one.labels.since)


def reduced(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """Reductions and selections of one index: the remaining axes."""
    one = known(call.input)
    if one.labels is None or len(one.shape) == len(shape):
        return alike([known(value) for value in call.tensors], shape) if len(one.shape) == len(shape) else None
    dims = _dims(call)
    if dims is None:
        return Labels(((),) * len(shape), one.labels.since) if not shape else None
    gone = {int(k) % len(one.shape) for k in dims}
    rest = Labels(tuple(axis for k, axis in enumerate(one.labels.axes) if k not in gone), one.labels.since)
    of_weight = [k for k, axis in enumerate(rest.axes) if any(f.origin <= WEIGHT for f in axis)]
    if has_units(one.labels) and not has_units(rest) and len(of_weight) == 1:  # (x[:, None] * weight).sum(-1)
        return claimed(rest, of_weight[0], shape[of_weight[0]], step)
    return rest


def _dims(call: Call) -> list[int] | None:
    if call.kind == "unbind":
        return [int(call.arguments.get("dim", call.arguments.get("argument1", 0)))]
    place = "argument2" if call.kind in ("norm", "vector_norm", "linalg_vector_norm", "quantile") else "argument1"
    dims = call.arguments.get("dim", call.arguments.get(place))
    if dims is None and call.kind in ("max", "min") and isinstance(call.arguments.get("other"), int):
        dims = call.arguments["other"]
    if dims is None or isinstance(dims, bool | Tensor):
        return None
    return list(dims) if isinstance(dims, list | tuple) else [int(dims)]


def selected(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """``x[:, 0]``, ``x[..., 1::2]``, ``x[:, index]``."""
    one = known(call.input)
    if one.labels is None:
        return None
    index = call.arguments["index"]
    parts = list(index) if isinstance(index, tuple) else [index]
    taken = sum(part is not None and part is not Ellipsis for part in parts)
    at = next((k for k, part in enumerate(parts) if part is Ellipsis), len(parts))
    parts[at : at + 1] = [slice(None)] * (len(one.shape) - taken)
    listed = [part for part in parts if isinstance(part, Tensor | list) or hasattr(part, "__array__")]
    if len(listed) > 1 or any(isinstance(part, bool) for part in parts):
        return None
    axes: list[Axis] = []
    source = iter(one.labels.axes)
    for part in parts:
        if part is None:
            axes.append(())
            continue
        axis = next(source)
        if isinstance(part, slice):
            axes.append(axis)
        elif isinstance(part, int):
            continue
        else:
            found = part if isinstance(part, Tensor) else torch.as_tensor(part, device="cpu")
            if found.dtype == torch.bool:
                return None
            axes += [axis] if found.dim() == 1 else [()] * found.dim()
    return Labels(tuple(axes), one.labels.since)


def written(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """``z[...] = y``: the axes of z, or those of y where z has none."""
    onto = known(call.input)
    if onto.labels is not None:
        return onto.labels
    return alike([known(value) for value in call.tensors[1:]], shape)


def concatenated(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """Concatenation along an axis."""
    parts = [known(value) for value in tensors(call.arguments["tensors"])]
    labelled = [(one.shape, one.labels) for one in parts if one.labels is not None and len(one.shape) == len(shape)]
    if not labelled:
        return None
    dim = int(call.arguments["dim"]) % len(shape)
    its, labels = min(labelled, key=lambda one: (not has_units(one[1]), one[1].since))
    axes = list(labels.axes)
    folded = any(f.role == IMAGE for f in axes[dim])
    if folded and all(one.labels is not None and one.shape[dim] == its[dim] for one in parts):
        axes[dim] = (Factor(PLACE, len(parts)), *axes[dim])
    elif not axes[dim]:  # parts of length one
        roles = [other.axes[dim] for _, other in labelled if other.axes[dim]]
        axes[dim] = roles[0] if roles else ()
    return Labels(tuple(axes), labels.since)


def stacked(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """Stack: a new axis of positions."""
    parts = [known(value) for value in tensors(call.arguments["tensors"])]
    inner = list(shape)
    dim = int(call.arguments["dim"]) % len(shape)
    size = inner.pop(dim)
    labels = alike(parts, inner)
    return None if labels is None else Labels((*labels.axes[:dim], places(size), *labels.axes[dim:]), labels.since)


def unfolded(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """``F.unfold`` gives columns of patches as units; ``Tensor.unfold`` gives a new last axis of positions."""
    one = known(call.input)
    if one.labels is None:
        return None
    if len(shape) == len(one.shape) + 1:
        return Labels((*one.labels.axes, places(shape[-1])), one.labels.since)
    return claimed(Labels((one.labels.axes[0], (), ())), 1, shape[1], step)


def folded(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """``F.fold``: a map with channels, rows and columns."""
    labels = known(call.input).labels
    if labels is None or len(shape) != 4:
        return None
    map_axes = ((Factor(ROW, shape[2]),), (Factor(COLUMN, shape[3]),))
    return claimed(Labels((labels.axes[0], (), *map_axes)), 1, shape[1], step)
