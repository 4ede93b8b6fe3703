"""Measure the axes of every value: the model is run with one and three images, and with one of them changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn

from microtome.errors import MicrotomeError
from microtome.trace.axes.axis_labels import Labels
from microtome.trace.axes.followed_pass import FollowedPass, Seen
from microtome.trace.axes.value_axes import COLUMN, IMAGE, PLACE, ROW, UNIT, Axes, Axis, Factor
from microtome.trace.shared_pass import Both, SharedPass, seeded_pass
from microtome.trace.tracing.tracer import Tracer
from microtome.trace.tracing.watching import INPUT, Observer

_SMALL = (64, 128)  # pixels of the shorter side of the images that are tried first, where they are at most half
_RELATIVE = 1e-4  # changes of the other images below this share of the changed one's are rounding
_PICTURE = -1  # origin of positions that are the picture's rows and columns in one axis


Pictures = Callable[[int, tuple[int, int], bool], Tensor]  # (number, size, whether one is changed) -> prepared images


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
    alone = False
    try:
        found = _first_that_holds(_attempts(model, pictures, size, shapes, count, output, beside))
        if found is not None:
            return found
    except _ApartError:
        alone = True
    single = FollowedPass(pictures(count, size, False))
    Tracer(model, observer=single)(single.images)
    if alone:
        for seen in single.seen.values():
            seen.labels = _of_one(seen)
    axes = {name: _settled(seen, count, seen.shape, measured=False) for name, seen in single.seen.items()}
    note = f"the model admits batches of {count} only, so images and units follow from its operators, unmeasured"
    return Reading(axes | _of_inputs(single, axes), "", _APART if alone else note)


_APART = (
    "the model runs other operations for several images than for one, as where it takes them one by one, so one image "
    "goes through at a time"
)


def _first_that_holds(attempts: Iterable[Callable[[], Reading]]) -> Reading | None:
    for attempt in attempts:
        with suppress(MicrotomeError, _UnlikeError):
            return attempt()
    return None


class _UnlikeError(Exception):
    """Two passes did not run the same operations on values of the same kind."""


class _ApartError(Exception):
    """Several images did not go through the same operations as one, so that a layer's value is not that of all."""


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
        first = FollowedPass(pictures(fewer, size, False), labelled=False)
        fewer_returned = Tracer(model, observer=first)(first.images)
        known: Mapping[str, tuple[int, ...]] = {name: seen.shape for name, seen in first.seen.items()}
    else:
        known, fewer_returned = before
    if full is not None and not _alike(known, full):
        raise _UnlikeError
    images, other = pictures(more, size, False), beside()
    plain = FollowedPass(images.clone(), known, fewer)  # the model may write on its input
    returned, drew = seeded_pass(model, plain.images, Both(plain, other), seed=1)
    shapes = {name: seen.shape for name, seen in plain.seen.items()}
    if fewer == 1 and shapes.keys() - {"input"} != known.keys() - {"input"}:
        raise _ApartError
    if full is not None and not _alike(shapes, full):
        raise _UnlikeError
    changed = FollowedPass(pictures(more, size, True), known, fewer, labelled=False)
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


def _of_inputs(followed: FollowedPass, axes: Mapping[str, Axes]) -> dict[str, Axes]:
    return {name + INPUT: axes[source] for name, source in followed.sources.items() if source in axes}


def changed_image(count: int) -> int:
    """Which image of a batch is changed: one with others on both sides where there are three."""
    return 1 if count > 2 else 0


def _of_one(seen: Seen) -> Labels | None:
    """Labels of a value that is of the one image that goes through, which the model may have taken from its batch."""
    labels = seen.labels
    if labels is None or any(f.role == IMAGE for axis in labels.axes for f in axis):
        return labels
    apart = len(labels.axes) > 1 and labels.axes[0] == () and seen.shape[0] == 1  # images[k][None]
    return Labels(((Factor(IMAGE, 1),), *labels.axes[1:]), labels.since) if apart else labels


def _alike(one: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]]) -> bool:
    names = one.keys() | other.keys()
    return all(name in one and name in other and len(one[name]) == len(other[name]) for name in names - {"input"})


def _resolve(seen: Seen, after: Seen | None, count: int, which: int) -> bool:
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
    outside = _share_outside(moved, given, count, which)
    if outside > _RELATIVE and rest > 1:  # not as the operators say
        orders = [(outer, rest // outer) for outer in range(1, rest + 1) if rest % outer == 0]
        least, order = min((_share_outside(moved, order, count, which), order) for order in orders)
        outside, best = (least, order) if least <= _RELATIVE else (outside, given)
    if best != given:
        axes = list(seen.labels.axes)
        roles = {f.role for f in axes[seen.axis] if f.role != IMAGE}
        role = UNIT if roles == {UNIT} else PLACE
        outer, inner = best
        ends = [Factor(role, size) if size > 1 else None for size in (outer, inner)]
        axes[seen.axis] = tuple(f for f in (ends[0], Factor(IMAGE, count), ends[1]) if f is not None)
        seen.labels = Labels(tuple(axes), seen.labels.since)
    return outside > _RELATIVE


def _share_outside(moved: NDArray[np.float64], order: tuple[int, int], count: int, which: int) -> float:
    """The largest change outside the changed image, as a share of the largest of all."""
    by_image = moved.reshape(order[0], count, order[1])
    others = [part.max() for part in (by_image[:, :which], by_image[:, which + 1 :]) if part.size]
    return float(max(others) / moved.max())


def _around(axis: Axis) -> tuple[int, int]:
    at = next(k for k, f in enumerate(axis) if f.role == IMAGE)
    return math.prod(f.size for f in axis[:at]), math.prod(f.size for f in axis[at + 1 :])


def _settled(seen: Seen, count: int, shape: tuple[int, ...], *, mixed: bool = False, measured: bool = True) -> Axes:
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
