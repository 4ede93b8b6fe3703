"""How each operator carries the axes of images, units, rows and columns from its inputs to its output."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from microtome.trace.axes.value_axes import COLUMN, IMAGE, PLACE, ROW, UNIT, Axis, Factor
from microtome.trace.operators.operator_calls import Call, tensors

Size = Sequence[int]


class Labels(NamedTuple):
    """What is known of a value's axes.

    Attributes
    ----------
    axes : tuple of Axis
        Factors of each axis; none where nothing is known, or for an axis of length one.
    since : int
        The operation that made the units, so that a residual stream keeps its own beside those of its branches.
    """

    axes: tuple[Axis, ...]
    since: int = 0


class Known(NamedTuple):
    """An input of an operation: its shape and what is known of its axes."""

    shape: Size
    labels: Labels | None


def pictures(shape: Size) -> Labels:
    """Labels of a batch of images (N, C, H, W)."""
    return Labels(tuple((Factor(role, size),) for role, size in zip((IMAGE, UNIT, ROW, COLUMN), shape, strict=True)))


def carried(call: Call, known: Callable[[Any], Known], outputs: list[Tensor], step: int) -> list[Labels | None]:
    """Labels of an operation's outputs.

    Parameters
    ----------
    call : Call
        The operation.
    known : function
        Shape and labels of any tensor among its arguments.
    outputs : list of Tensor
        What the operation made.
    step : int
        Its number in the pass.
    """
    read = [known(value) for value in call.tensors]
    if all(one.labels is None for one in read):
        return [None] * len(outputs)
    rule = _RULES.get(call.kind)
    found: list[Labels | None] = []
    for place, output in enumerate(outputs):
        shape = tuple(output.shape)
        try:
            labels = None if rule is None else rule(call, known, shape, step)
        except (IndexError, KeyError, TypeError, ValueError, AttributeError):  # arguments in a form unknown to the rule
            labels = None
        if labels is not None and len(labels.axes) != len(shape):
            labels = None
        if labels is None or (place and call.kind in ("multi_head_attention_forward", "lstm", "gru")):
            labels = _alike(read, shape)
        found.append(_fitted(labels, shape, step, shuffled=call.kind in _SHUFFLING))
    return found


# They change the order of positions and keep their number.
_SHUFFLING = frozenset(
    "roll flip fliplr flipud rot90 sort argsort gather index_select take_along_dim scatter topk renorm".split()
)


def _fitted(labels: Labels | None, shape: Size, step: int, *, shuffled: bool) -> Labels | None:
    """Labels whose sizes are those of the axes: what has changed its length keeps its role where it has one only."""
    if labels is None:
        return None
    axes = [_resized(axis, size) for axis, size in zip(labels.axes, shape, strict=True)]
    return Labels(tuple(tuple(_dated(f, step, shuffled=shuffled) for f in axis) for axis in axes), labels.since)


def _dated(f: Factor, step: int, *, shuffled: bool) -> Factor:
    """Positions laid out anew get this operation as their origin."""
    if shuffled and f.role in (ROW, COLUMN, PLACE):
        return Factor(PLACE, f.size, 1, step)
    return Factor(PLACE, f.size, f.step, step) if f.role == PLACE and not f.origin else f


def _resized(axis: Axis, size: int) -> Axis:
    if math.prod(f.size for f in axis) == size:
        return axis
    roles = {f.role for f in axis}
    if len(roles) == 1 and roles != {IMAGE}:
        return (Factor(roles.pop(), size),)
    return (Factor(PLACE, size),) if size > 1 else ()


def _has_units(labels: Labels | None) -> bool:
    return labels is not None and any(f.role == UNIT for axis in labels.axes for f in axis)


def _claimed(labels: Labels, place: int, size: int, step: int) -> Labels:
    """The axis at ``place`` holds the units from now on, and no other; an image folded into it stays there."""
    axes = [tuple(Factor(PLACE, f.size) if f.role == UNIT else f for f in axis) for axis in labels.axes]
    axes[place] = (Factor(UNIT, size),)
    lone = {role: [k for k, axis in enumerate(axes) for f in axis if f.role == role] for role in (ROW, COLUMN)}
    for role, found in lone.items():  # rows whose inner part has become units: what is left are the rows
        if len(found) == 1 and len(axes[found[0]]) == 1:
            axes[found[0]] = (Factor(role, axes[found[0]][0].size),)
    return Labels(tuple(axes), step)


# -- operators that leave values where they are --------------------------------------------------------------------


def _alike(read: list[Known], shape: Size) -> Labels | None:
    """Elementwise operations, and all that keep the order of the axes: every axis as in the input that has it."""
    given = [one for one in read if one.labels is not None]
    full = [one for one in given if len(one.shape) == len(shape)]
    if not full:
        return _same_ends(given[0], shape)
    exact = [one for one in full if tuple(one.shape) == tuple(shape)] or full
    base = min(exact, key=lambda one: (not _has_units(one.labels), one.labels.since))  # type: ignore[union-attr]
    axes = list(base.labels.axes)  # type: ignore[union-attr]
    for place, size in enumerate(shape):
        if math.prod(f.size for f in axes[place]) == size and (axes[place] or size == 1):
            continue
        for one in given:
            back = place - len(shape)
            fits = -back <= len(one.shape) and one.shape[back] == size
            if fits and one.labels.axes[back] and not (_has_units(base.labels) and _is_unit(one.labels.axes[back])):  # type: ignore[union-attr]
                axes[place] = one.labels.axes[back]  # type: ignore[union-attr]
                break
    return Labels(tuple(axes), base.labels.since)  # type: ignore[union-attr]


def _is_unit(axis: Axis) -> bool:
    return any(f.role == UNIT for f in axis)


def _same_ends(one: Known, shape: Size) -> Labels:
    """Another number of axes by an unknown operation: the first and last axes that agree in length."""
    labels, axes = one.labels, [()] * len(shape)
    assert labels is not None  # noqa: S101 - asked only where there are labels
    found: list[Axis] = list(axes)
    for k in range(min(len(shape), len(one.shape))):
        if shape[k] != one.shape[k]:
            break
        found[k] = labels.axes[k]
    return Labels(tuple(found), labels.since)


# -- operators with weights ----------------------------------------------------------------------------------------


def _convolution(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels:
    weight = known(call.arguments["weight"])
    images = known(call.arguments["input"])
    labels = images.labels or Labels(((),) * len(shape))
    place = len(shape) - (len(weight.shape) - 2) - 1
    axes = list(labels.axes)
    if len(weight.shape) == 4 and place == 1:
        others = [f for axis in axes[:-2] for f in axis if f.role in (ROW, COLUMN)]
        bare = all(f.role == PLACE for axis in axes[-2:] for f in axis)
        if bare and not others and all(f.role != PLACE for f in axes[0]):
            axes[-2:] = [(Factor(ROW, images.shape[-2]),), (Factor(COLUMN, images.shape[-1]),)]
    return _claimed(Labels(tuple(axes)), place, shape[place], step)


def _linear(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels:
    labels = known(call.arguments["input"]).labels or Labels(((),) * len(shape))
    return _claimed(labels, len(shape) - 1, shape[-1], step)


def _norm(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
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
    return labels if _only_unit(labels, place) else _claimed(labels, place, shape[place], step)


def _only_unit(labels: Labels, place: int) -> bool:
    """Whether the units lie on this axis alone, so that a norm changes nothing about them."""
    held = [k for k, axis in enumerate(labels.axes) for f in axis if f.role == UNIT]
    return held == [place] and len(labels.axes[place]) == 1


def _product(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
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
    if second.labels is None and len(second.shape) == 2:
        labels = Labels((*axes, first.labels.axes[-2], ()))  # type: ignore[union-attr]
        return _claimed(labels, len(shape) - 1, shape[-1], step)
    if first.labels is None and second.labels is not None:
        labels = Labels((*axes, (), second.labels.axes[-1]))
        if len(first.shape) == 2 and _is_unit(second.labels.axes[-2]):
            return _claimed(labels, len(shape) - 2, shape[-2], step)
        return Labels((*axes, _places(shape[-2]), second.labels.axes[-1]), min(since))
    rows = first.labels.axes[-2] if first.labels is not None else _places(shape[-2])
    columns = second.labels.axes[-1] if second.labels is not None else _places(shape[-1])
    if _is_unit(rows) and _is_unit(columns):
        columns = _places(shape[-1])
    return Labels((*axes, rows, columns), min(since))


def _places(size: int) -> Axis:
    return (Factor(PLACE, size),) if size > 1 else ()


def _batch(parts: list[Known], shape: Size) -> tuple[Axis, ...]:
    axes: list[Axis] = []
    for place, size in enumerate(shape):
        back = place - len(shape)
        fitting = [
            one.labels.axes[back]
            for one in parts
            if one.labels is not None and -back <= len(one.shape) and one.shape[back] == size and one.labels.axes[back]
        ]
        axes.append(fitting[0] if fitting else _places(size))
    return tuple(axes)


def _attention(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    query, value = known(call.arguments["query"]).labels, known(call.arguments["value"]).labels
    if query is None or value is None:
        return _alike([known(given) for given in call.tensors], shape)
    return Labels((*query.axes[:-1], value.axes[-1]), min(query.since, value.since))


def _multi_head(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    labels = known(call.tensors[0]).labels
    return None if labels is None else _claimed(labels, len(shape) - 1, shape[-1], step)


def _einsum(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
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
        axes.append(found[0] if found else _places(shape[place]))
    since = min(one.labels.since for one in operands if one.labels is not None)
    made = Labels(tuple(axes), since)
    return made if new is None else _claimed(made, new, shape[new], step)


def _embedding(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    labels = known(call.tensors[0]).labels
    return None if labels is None else _claimed(Labels((*labels.axes, ())), len(shape) - 1, shape[-1], step)


# -- operators that move values about ------------------------------------------------------------------------------


def _reshape(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    one = known(call.input)
    return None if one.labels is None else regrouped(one.labels, one.shape, shape)


def regrouped(labels: Labels, before: Size, after: Size) -> Labels | None:
    """Labels of a value read in the same order with other axes; None where a factor would be torn apart.

    Examples
    --------
    >>> regrouped(pictures((2, 3, 4, 6)), (2, 3, 4, 6), (2, 3, 2, 2, 6)).axes[2:4]
    ((Factor(role='row', size=2, step=2, origin=0),), (Factor(role='row', size=2, step=1, origin=0),))
    """
    queue: list[Factor] = []
    for axis, size in zip(labels.axes, before, strict=True):
        known = math.prod(f.size for f in axis) == size
        queue += [f for f in axis if f.size > 1] if known else _places(size)
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


def _permuted(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    labels = known(call.input).labels
    if labels is None:
        return None
    order = _order(call, len(shape))
    return Labels(tuple(labels.axes[k] for k in order), labels.since)


def _order(call: Call, dims: int) -> list[int]:
    """The axis of the input that each axis of the output is."""
    given, named = list(call.args[1:]), call.kwargs
    order = list(range(dims))
    if call.kind == "permute":
        listed = named.get("dims", given[0] if len(given) == 1 and isinstance(given[0], list | tuple) else given)
        return [int(k) % dims for k in listed]
    if call.kind == "movedim":
        one, other = named.get("source", given[0] if given else None), named.get("destination", (given or [0])[-1])
        ends = [[k] if isinstance(k, int) else list(k or ()) for k in (one, other)]
        moved = dict(zip((k % dims for k in ends[1]), (k % dims for k in ends[0]), strict=True))
        rest = iter([k for k in order if k not in moved.values()])
        return [moved[k] if k in moved else next(rest) for k in order]
    if call.kind in ("t", "T", "mT", "adjoint", "H", "mH"):
        return order[::-1] if call.kind in ("t", "T", "H") else [*order[:-2], order[-1], order[-2]]
    pair = [named.get(key) for key in ("dim0", "dim1") if key in named] or [
        named[k] for k in ("axis0", "axis1") if k in named
    ]
    first, second = (int(k) % dims for k in (*given, *pair)[:2])
    order[first], order[second] = second, first
    return order


def _expanded(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
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
            axes.append(_resized(axis, size))
    return Labels(tuple(axes), one.labels.since)


def _interleaved(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    one = known(call.input)
    if one.labels is None or len(one.shape) != len(shape):
        return None
    axes = list(one.labels.axes)
    for place, (before, after) in enumerate(zip(one.shape, shape, strict=True)):
        if before != after and any(f.role == IMAGE for f in axes[place]):
            axes[place] = (*axes[place], Factor(PLACE, after // before))
    return Labels(tuple(axes), one.labels.since)


def _reduced(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    one = known(call.input)
    if one.labels is None or len(one.shape) == len(shape):
        return _alike([known(value) for value in call.tensors], shape) if len(one.shape) == len(shape) else None
    dims = _dims(call)
    if dims is None:
        return Labels(((),) * len(shape), one.labels.since) if not shape else None
    gone = {int(k) % len(one.shape) for k in dims}
    return Labels(tuple(axis for k, axis in enumerate(one.labels.axes) if k not in gone), one.labels.since)


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


def _selected(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
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


def _written(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """``z[...] = y``: the axes of what is written on, or of what is written where that has none."""
    onto = known(call.input)
    if onto.labels is not None:
        return onto.labels
    return _alike([known(value) for value in call.tensors[1:]], shape)


def _concatenated(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    parts = [known(value) for value in tensors(call.arguments["tensors"])]
    given = [one for one in parts if one.labels is not None and len(one.shape) == len(shape)]
    if not given:
        return None
    dim = int(call.arguments["dim"]) % len(shape)
    base = min(given, key=lambda one: (not _has_units(one.labels), one.labels.since))  # type: ignore[union-attr]
    labels = base.labels
    assert labels is not None  # noqa: S101 - of those given
    axes = list(labels.axes)
    folded = any(f.role == IMAGE for f in axes[dim])
    if folded and all(one.labels is not None and one.shape[dim] == base.shape[dim] for one in parts):
        axes[dim] = (Factor(PLACE, len(parts)), *axes[dim])
    elif not axes[dim]:  # parts of length one
        roles = [one.labels.axes[dim] for one in given if one.labels is not None and one.labels.axes[dim]]
        axes[dim] = roles[0] if roles else ()
    return Labels(tuple(axes), labels.since)


def _stacked(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    parts = [known(value) for value in tensors(call.arguments["tensors"])]
    inner = list(shape)
    dim = int(call.arguments["dim"]) % len(shape)
    size = inner.pop(dim)
    labels = _alike(parts, inner)
    return None if labels is None else Labels((*labels.axes[:dim], _places(size), *labels.axes[dim:]), labels.since)


def _unfolded(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    """``F.unfold`` gives columns of patches as units; ``Tensor.unfold`` a new last axis of places."""
    one = known(call.input)
    if one.labels is None:
        return None
    if len(shape) == len(one.shape) + 1:
        return Labels((*one.labels.axes, _places(shape[-1])), one.labels.since)
    return _claimed(Labels((one.labels.axes[0], (), ())), 1, shape[1], step)


def _folded(call: Call, known: Callable[[Any], Known], shape: Size, step: int) -> Labels | None:
    labels = known(call.input).labels
    if labels is None or len(shape) != 4:
        return None
    map_axes = ((Factor(ROW, shape[2]),), (Factor(COLUMN, shape[3]),))
    return _claimed(Labels((labels.axes[0], (), *map_axes)), 1, shape[1], step)


Rule = Callable[[Call, Callable[[Any], Known], Size, int], Labels | None]

_RULES: dict[str, Rule] = {
    **dict.fromkeys([f"conv{d}d" for d in "123"] + [f"conv_transpose{d}d" for d in "123"], _convolution),
    **dict.fromkeys(("linear", "addmm", "bilinear"), _linear),
    **dict.fromkeys(("batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm"), _norm),
    **dict.fromkeys(("matmul", "mm", "bmm", "baddbmm"), _product),
    "scaled_dot_product_attention": _attention,
    **dict.fromkeys(("multi_head_attention_forward", "lstm", "gru", "rnn_tanh", "rnn_relu"), _multi_head),
    "einsum": _einsum,
    "embedding": _embedding,
    **dict.fromkeys(
        "view reshape flatten unflatten squeeze unsqueeze ravel view_as reshape_as".split(), _reshape
    ),
    **dict.fromkeys("permute transpose movedim t T mT adjoint H mH".split(), _permuted),
    **dict.fromkeys("expand expand_as broadcast_to repeat tile".split(), _expanded),
    "repeat_interleave": _interleaved,
    **dict.fromkeys(
        """mean sum amax amin max min var std norm prod logsumexp median any all argmax argmin nansum count_nonzero
        vector_norm linalg_vector_norm var_mean std_mean unbind nanmean quantile select cosine_similarity""".split(),
        _reduced,
    ),
    "getitem": _selected,
    "setitem": _written,
    "cat": _concatenated,
    "stack": _stacked,
    "unfold": _unfolded,
    "fold": _folded,
}  # fmt: skip
