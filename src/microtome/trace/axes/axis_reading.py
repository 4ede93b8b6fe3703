"""Measure the axes of every value: the model is run with one and three images, and with one of the three changed."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from microtome.errors import MicrotomeError
from microtome.trace.axes import axis_rules
from microtome.trace.axes.axis_rules import Known, Labels
from microtome.trace.axes.value_axes import COLUMN, IMAGE, PLACE, ROW, UNIT, Axes, Axis, Factor
from microtome.trace.operators.operator_calls import Call, tensors
from microtome.trace.operators.operator_table import those
from microtome.trace.shared_pass import Both, SharedPass, seeded_pass
from microtome.trace.tracing.tracer import INPUT, Observer, Tracer

_SMALL = (64, 128)  # pixels of the shorter side of the images that are tried first, where they are at most half
_RELATIVE = 1e-4  # changes of the other images below this share of the changed one's are rounding
_PICTURE = -1  # origin of positions that are the picture's rows and columns in one axis
_REDUCING = those(role="reduction")
# They hand on the values of an operation before, which has been measured.
_MOVING = those(role=("view", "split", "copy", "cast", "selection"), layer=False) | {"expand"}

Pictures = Callable[[int, tuple[int, int], bool], Tensor]  # (number, size, whether one is changed) -> prepared images


@dataclass
class _Seen:
    """One value of a pass: its shape, labels, and a number for each index of the axis that varies with the images."""

    kind: str
    shape: tuple[int, ...]
    labels: Labels | None = None
    axis: int | None = None  # the one that varies
    digest: NDArray[np.float64] | None = None
    why: str = ""
    over: bool = False  # an operation that reduces the images of the batch to one value


@dataclass
class _Pass:
    """Follows one pass: shapes always, labels and digests where other batches are known.

    Parameters
    ----------
    images : Tensor
        What the model is given.
    other : mapping of str to shape, with the number of its images
        The shapes of the same values for another number of images; without it no axis is measured.
    """

    images: Tensor
    other: Mapping[str, tuple[int, ...]] | None = None
    other_count: int = 0
    labelled: bool = True
    seen: dict[str, _Seen] = field(default_factory=dict)
    order: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._labels: dict[int, tuple[weakref.ref[Tensor], Labels | None, str]] = {}
        self._note(self.images, axis_rules.pictures(self.images.shape), "input")
        self.seen["input"] = _Seen("input", tuple(self.images.shape), axis_rules.pictures(self.images.shape), 0)
        self._digests = _Digests()
        self._unread: list[str] = []
        self.sources: dict[str, str] = {}  # what a layer reads first -> the value that it is

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts: remember which value it reads."""
        read = tensors(args)
        self._read_by(name, read)
        if not read:  # called by keyword: it reads what its first operation does
            self._unread.append(name)

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        made = tensors(output) or ([call.input] if call.kind == "setitem" else [])
        if not made:
            return
        self.order.append(call.name)
        if self.labelled:
            for name in (call.name, *self._unread):
                self._read_by(name, call.tensors)
            self._unread.clear()
        if not self.labelled and self.other is None:
            self.seen[call.name] = _Seen(call.kind, tuple(made[0].shape))
            return
        found = axis_rules.carried(call, self._known, made, len(self.order)) if self.labelled else [None] * len(made)
        seen = _Seen(call.kind, tuple(made[0].shape), found[0])
        self._measure(call.name, made[0], seen)
        if self.labelled:
            seen.over = self._reduces_images(call, seen)
        self.seen[call.name] = seen
        for value, labels in zip(made, [seen.labels, *found[1:]], strict=True):
            self._note(value, labels, call.name)

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned."""
        made = tensors(output)
        if not made:
            return
        value = made[0]
        known = self._labels.get(id(value))
        if known is not None and known[0]() is value and known[2] in self.seen:
            origin = self.seen[known[2]]
            same = origin.shape == tuple(value.shape)
            seen = _Seen(origin.kind, tuple(value.shape), known[1], origin.axis if same else None, origin.digest)
            seen.why = origin.why
        else:  # an opaque module, or one that hands on what no operation was seen to make
            seen = _Seen(type(module).__name__, tuple(value.shape))
            if self.labelled and name not in self.seen:
                images = Known(self.images.shape, axis_rules.pictures(self.images.shape))
                seen.labels = _opaque(images, seen.shape) if value is not self.images else images.labels
            self._measure(name, value, seen)
            self._note(value, seen.labels, name)
        self.seen[name] = seen

    def _read_by(self, name: str, read: list[Tensor]) -> None:
        if read and name not in self.sources:
            found = self._labels.get(id(read[0]))
            if found is not None and found[0]() is read[0]:
                self.sources[name] = found[2]

    def _note(self, value: Tensor, labels: Labels | None, name: str) -> None:
        self._labels[id(value)] = weakref.ref(value), labels, name

    def _known(self, value: Any) -> Known:
        if not isinstance(value, Tensor):
            return Known((), None)
        found = self._labels.get(id(value))
        return Known(tuple(value.shape), found[1] if found is not None and found[0]() is value else None)

    def _reduces_images(self, call: Call, seen: _Seen) -> bool:
        if call.kind == "batch_norm" and call.arguments.get("training"):
            return True
        if call.kind not in _REDUCING or seen.axis is not None or self.other is None:
            return False
        read = self._known(call.input).labels
        return read is not None and any(f.role == IMAGE for axis in read.axes for f in axis)

    # -- what varies with the number of images ---------------------------------------------------------------------

    def _measure(self, name: str, value: Tensor, seen: _Seen) -> None:
        """Find the axis that grows with the images, mark it, and take a number for each of its indices."""
        if self.other is None:
            return
        before = self.other.get(name)
        count, other = len(self.images), self.other_count
        if before is None or len(before) != len(seen.shape):
            seen.labels, seen.why = None, "it has other axes for other numbers of images"
            return
        varying = [k for k, (a, b) in enumerate(zip(seen.shape, before, strict=True)) if a != b]
        if len(varying) == 1:
            place = varying[0]
            step, rest = divmod(seen.shape[place] - before[place], count - other)
            if rest or step < 1 or step * count != seen.shape[place]:
                seen.labels, seen.why = _without_images(seen.labels), "images and other things share an axis"
            else:
                seen.axis = place
                seen.labels = _with_images(seen.labels, seen.shape, place, count, step)
        elif len(varying) > 1:
            seen.labels, seen.why = _without_images(seen.labels), "more than one axis grows with the images"
        else:
            seen.labels = _without_images(seen.labels)
        plain = seen.axis is not None and seen.shape[seen.axis] == count
        if not (plain and seen.kind in _MOVING):
            seen.digest = self._digests.of(value, seen.axis)


class _Digests:
    """Random projections of values: one number for every index of an axis, which changes when the values do."""

    def __init__(self) -> None:
        self._weights = torch.empty(0, device="cpu")

    def of(self, value: Tensor, axis: int | None) -> NDArray[np.float64]:
        """One number per index of the axis, or one for all."""
        if value.is_sparse or value.is_quantized or value.numel() == 0:
            return np.zeros(1)
        value = torch.view_as_real(value) if value.is_complex() else value
        value = value if value.dtype in (torch.float32, torch.float64) else value.float()
        rows = value.reshape(1, -1) if axis is None else value.movedim(axis, 0).reshape(value.shape[axis], -1)
        weights = self._up_to(rows.shape[1]).to(rows)
        found = (rows @ weights).double().cpu().numpy()
        if not np.isfinite(found).all():  # masks of minus infinity
            found = (rows.nan_to_num(nan=3.0, posinf=5.0, neginf=-5.0) @ weights).double().cpu().numpy()
        return found

    def _up_to(self, length: int) -> Tensor:
        if len(self._weights) < length:
            # Multiples of the golden ratio are spread evenly over [0, 1); no random state is touched.
            spread = torch.arange(1, length + 1, dtype=torch.float64, device="cpu") * 0.6180339887498949
            self._weights = (spread.frac() - 0.5).float()
        return self._weights[:length]


def _with_images(labels: Labels | None, shape: tuple[int, ...], place: int, count: int, rest: int) -> Labels:
    """Labels with the images on the axis where they were measured."""
    axes: list[Axis] = list(labels.axes) if labels is not None else [()] * len(shape)
    axis = axes[place]
    known = any(f.role == IMAGE and f.size == count for f in axis) and math.prod(f.size for f in axis) == count * rest
    if not known:
        role = UNIT if axis and all(f.role == UNIT for f in axis) else PLACE
        axes[place] = (Factor(IMAGE, count), *([Factor(role, rest)] if rest > 1 else []))
    alone = [axis if k == place else _replaced(axis) for k, axis in enumerate(axes)]
    return Labels(tuple(alone), labels.since if labels is not None else 0)


def _without_images(labels: Labels | None) -> Labels | None:
    if labels is None:
        return None
    return Labels(tuple(_replaced(axis) for axis in labels.axes), labels.since)


def _replaced(axis: Axis) -> Axis:
    """An axis whose images were taken for such and are none."""
    return tuple(Factor(PLACE, f.size) if f.role == IMAGE else f for f in axis)


def _opaque(images: Known, shape: tuple[int, ...]) -> Labels:
    """What a module of unknown inside most likely gives: maps with channels first, or features last."""
    if len(shape) == 4:
        return Labels(((Factor(IMAGE, images.shape[0]),), (Factor(UNIT, shape[1]),),
                       (Factor(ROW, shape[2]),), (Factor(COLUMN, shape[3]),)))  # fmt: skip
    axes: list[Axis] = [(Factor(PLACE, size),) if size > 1 else () for size in shape]
    if shape:
        axes[-1] = (Factor(UNIT, shape[-1]),)
        axes[0] = (Factor(IMAGE, images.shape[0]),) if len(shape) > 1 else axes[0]
    return Labels(tuple(axes))


# -- the readings together -----------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Reading:
    """Axes of all values of a model.

    Attributes
    ----------
    axes : mapping of str to Axes
        By layer or operation, and with ``@input`` for what it reads; what belongs to no single image has axes without
        images.
    mixes : str
        Where the images of a batch begin to influence each other; empty where they never do.
    note : str
        What could not be measured; empty where all was.
    shared : SharedPass or None
        The pass that others read, too; None where they need one of their own.
    """

    axes: Mapping[str, Axes]
    mixes: str = ""
    note: str = ""
    shared: SharedPass | None = None


def read_axes(
    model: nn.Module,
    pictures: Pictures,
    size: tuple[int, int],
    shapes: Mapping[str, tuple[int, ...]],
    count: int,
    output: Any,
    beside: Callable[[], Observer],
) -> Reading:
    """Measure the axes of a model's values.

    Parameters
    ----------
    model : nn.Module
        The model.
    pictures : function
        Makes prepared images: how many, of which height and width, and whether one of them is changed.
    size : (int, int)
        Height and width that the model takes.
    shapes : mapping of str to shape
        The values of a pass over ``count`` images of that size, in the order they arose.
    count : int
        How many that were: the least that the model admits.
    output : object
        What the model returned for them.
    beside : function
        Makes another observer of the pass over unchanged images.

    Notes
    -----
    Cost: passes over one, three and three images of 64 pixels where the model runs the same operations on such
    images; two over two images of its own size otherwise.
    """
    for attempt in _attempts(model, pictures, size, shapes, count, output, beside):
        with suppress(MicrotomeError, _UnlikeError):
            return attempt()
    single = _Pass(pictures(count, size, False))
    Tracer(model, observer=single)(single.images)
    axes = {name: _settled(seen, count, seen.shape, measured=False) for name, seen in single.seen.items()}
    note = f"the model admits batches of {count} only, so images and units follow from its operators, unmeasured"
    return Reading(axes | _of_inputs(single, axes), "", note)


class _UnlikeError(Exception):
    """Two passes did not run the same operations on values of the same kind."""


def _attempts(
    model: nn.Module,
    pictures: Pictures,
    size: tuple[int, int],
    shapes: Mapping[str, tuple[int, ...]],
    count: int,
    output: Any,
    beside: Callable[[], Observer],
) -> Iterator[Callable[[], Reading]]:
    measured = partial(_measured, model, pictures, beside)
    for small in smaller(size) if count == 1 else []:
        yield partial(measured, small, (1, 3), None, shapes)
    yield partial(measured, size, (count, count + 1), (shapes, output), shapes)
    yield partial(measured, size, (count + 1, count + 2), None, None)


def smaller(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Sizes of fewer pixels and nearly the same proportions, for faster readings; none for small images."""
    found = []
    for side in _SMALL:
        if min(size) >= 2 * side:
            height, width = (max(side, round(length * side / min(size) / 32) * 32) for length in size)
            found.append((height, width))
    return found


def _measured(
    model: nn.Module,
    pictures: Pictures,
    beside: Callable[[], Observer],
    size: tuple[int, int],
    counts: tuple[int, int],
    before: tuple[Mapping[str, tuple[int, ...]], Any] | None,
    full: Mapping[str, tuple[int, ...]] | None,
) -> Reading:
    """Two numbers of images, and the larger one with an image changed; ``before`` holds what the smaller one gave."""
    fewer, more = counts
    if before is None:
        first = _Pass(pictures(fewer, size, False), labelled=False)
        fewer_returned = Tracer(model, observer=first)(first.images)
        known: Mapping[str, tuple[int, ...]] = {name: seen.shape for name, seen in first.seen.items()}
    else:
        known, fewer_returned = before
    if full is not None and not _alike(known, full):
        raise _UnlikeError
    images, other = pictures(more, size, False), beside()
    plain = _Pass(images.clone(), known, fewer)  # the model may write on its input
    returned, drew = seeded_pass(model, plain.images, Both(plain, other), seed=1)
    shapes = {name: seen.shape for name, seen in plain.seen.items()}
    if full is not None and not _alike(shapes, full):
        raise _UnlikeError
    changed = _Pass(pictures(more, size, True), known, fewer, labelled=False)
    seeded_pass(model, changed.images, changed, seed=1)
    which = changed_image(more)
    mixes, axes = "", {}
    for name, seen in plain.seen.items():
        after = changed.seen.get(name)
        mixed = _resolve(seen, after, more, which)
        if (mixed or seen.over) and not mixes:
            mixes = name
        shape = seen.shape if full is None or name not in full else full[name]
        axes[name] = _settled(seen, more, shape, mixed=bool(mixed))
    shared = SharedPass(images, other, returned, fewer_returned, drew) if fewer == 1 else None
    return Reading(axes | _of_inputs(plain, axes), mixes, shared=shared)


def _of_inputs(followed: _Pass, axes: Mapping[str, Axes]) -> dict[str, Axes]:
    return {name + INPUT: axes[source] for name, source in followed.sources.items() if source in axes}


def changed_image(count: int) -> int:
    """Which image of a batch is changed: one with others on both sides where there are three."""
    return 1 if count > 2 else 0


def _alike(one: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]]) -> bool:
    names = one.keys() | other.keys()
    return all(name in one and name in other and len(one[name]) == len(other[name]) for name in names - {"input"})


def _resolve(seen: _Seen, after: _Seen | None, count: int, which: int) -> bool:
    """Set the order of what is folded together with the images by what a changed image changes; whether they mix."""
    if after is None or seen.digest is None or after.digest is None or seen.digest.shape != after.digest.shape:
        return False
    if seen.axis is None or seen.labels is None:
        return False
    moved = np.abs(after.digest - seen.digest)
    largest = float(moved.max())
    if largest == 0:
        return False
    rest = seen.shape[seen.axis] // count
    given = best = _around(seen.labels.axes[seen.axis])
    leak = _leak(moved, given, count, which)
    if leak > _RELATIVE and rest > 1:  # not as the operators say
        orders = [(outer, rest // outer) for outer in range(1, rest + 1) if rest % outer == 0]
        least, order = min((_leak(moved, order, count, which), order) for order in orders)
        leak, best = (least, order) if least <= _RELATIVE else (leak, given)
    if best != given:
        axes = list(seen.labels.axes)
        roles = {f.role for f in axes[seen.axis] if f.role != IMAGE}
        role = UNIT if roles == {UNIT} else PLACE
        outer, inner = best
        ends = [Factor(role, size) if size > 1 else None for size in (outer, inner)]
        axes[seen.axis] = tuple(f for f in (ends[0], Factor(IMAGE, count), ends[1]) if f is not None)
        seen.labels = Labels(tuple(axes), seen.labels.since)
    return leak > _RELATIVE


def _leak(moved: NDArray[np.float64], order: tuple[int, int], count: int, which: int) -> float:
    """The largest change outside the changed image, as a share of the largest of all."""
    by_image = moved.reshape(order[0], count, order[1])
    others = [part.max() for part in (by_image[:, :which], by_image[:, which + 1 :]) if part.size]
    return float(max(others) / moved.max())


def _around(axis: Axis) -> tuple[int, int]:
    at = next(k for k, f in enumerate(axis) if f.role == IMAGE)
    return math.prod(f.size for f in axis[:at]), math.prod(f.size for f in axis[at + 1 :])


def _settled(seen: _Seen, count: int, shape: tuple[int, ...], *, mixed: bool = False, measured: bool = True) -> Axes:
    """Axes of a value from its labels, with the lengths that it has for images of the full size."""
    labels = seen.labels if seen.labels is not None else Labels(((),) * len(shape))
    factors = [_lengths(axis, length, count) for axis, length in zip(labels.axes, shape, strict=True)]
    if not any(f.role == UNIT for axis in factors for f in axis):
        free = [k for k, axis in enumerate(factors) if axis and all(f.role != IMAGE and f.size > 1 for f in axis)]
        if len(free) == 1:
            factors[free[0]] = (Factor(UNIT, shape[free[0]]),)
    return Axes(tuple(factors), mixed=mixed, measured=measured)


def _lengths(axis: Axis, length: int, count: int) -> Axis:
    if not any(f.role == IMAGE for f in axis):
        if any(f.role == UNIT for f in axis):
            return (Factor(UNIT, length),)
        if len(axis) == 1:
            return (Factor(axis[0].role, length, axis[0].step, axis[0].origin),)
        picture = [f.role for f in axis] == [ROW, COLUMN] and all(f.step == 1 for f in axis)
        return (Factor(PLACE, length, 1, _PICTURE if picture else 0),) if length > 1 else ()
    found: list[Factor] = []
    for f in axis:
        if f.role == IMAGE:
            found.append(Factor(IMAGE, 0))
        elif f.role == UNIT or not found or found[-1].role in (IMAGE, UNIT):
            found.append(f if f.role == UNIT else Factor(PLACE, f.size))
        else:
            found[-1] = Factor(PLACE, found[-1].size * f.size)
    now = math.prod(f.size for f in found if f.role != IMAGE)
    # Small images have fewer windows than those of the full size; the reading had ``count`` images, or one.
    for images in (1, count):
        if length == now * images:
            return tuple(found)
    places = [k for k, f in enumerate(found) if f.role == PLACE]
    others = math.prod(f.size for f in found if f.role == UNIT)
    if len(places) != 1 or length % others:
        raise _UnlikeError
    found[places[0]] = Factor(PLACE, length // others)
    return tuple(found)
