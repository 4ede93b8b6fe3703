"""Measure the axes of every value with passes over one and four images; if in doubt, with one of the four changed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import lru_cache, partial
from typing import Any

from torch import Tensor, nn

from microtome.errors import MicrotomeError
from microtome.trace.axes.axis_labels import Labels
from microtome.trace.axes.followed_pass import Digests, FollowedPass, KeptPass, Seen
from microtome.trace.axes.image_mixing import BesideOthers, resolve
from microtome.trace.axes.value_axes import COLUMN, IMAGE, PLACE, ROW, UNIT, Axes, Axis, Factor
from microtome.trace.shared_pass import Both, SharedPass, seeded_pass
from microtome.trace.tracing.tracer import Tracer
from microtome.trace.tracing.watching import INPUT, Observer

# Pixels of the shorter side of the images that are tried first: how many times fewer pixels they must have in all, so
# that five of them take less time than two of the full size, also where a size is tried in vain.
_SMALL = {64: 4, 128: 5}
_SEVERAL = 4  # images of a batch: models may take them in twos or by halves
_PICTURE = -1  # origin of positions that are the picture's rows and columns in one axis


Pictures = Callable[[int, tuple[int, int], int | None], Tensor]  # (number, size, which is changed) -> prepared images


@dataclass(frozen=True)
class Reading:
    """Axes of all values of a model.

    Attributes
    ----------
    axes : mapping of str to Axes
        By layer or operation, and with ``@input`` for its input; a value that belongs to no single image has axes
        without images.
    mixes : str
        The first layer where the images of a batch influence each other; empty if there is none.
    note : str
        What could not be measured; empty if everything was.
    shared : SharedPass or None
        The pass that other readers share; None if they need their own.
    """

    axes: Mapping[str, Axes]
    mixes: str = ""
    note: str = ""
    shared: SharedPass | None = None


def read_axes(
    model: nn.Module,
    pictures: Pictures,
    size: tuple[int, int],
    values: Mapping[str, Seen],
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
        Makes prepared images: their number, height and width, and which of them is changed, if any.
    size : (int, int)
        Height and width that the model takes.
    values : mapping of str to Seen
        The values of a pass over ``count`` images of that size, in the order they arose.
    count : int
        The smallest batch size that the model takes.
    output : object
        Output of the model for them.
    beside : function
        Makes another observer of the pass over unchanged images.

    Notes
    -----
    Cost: passes over one and four images of 64 pixels if the model runs the same operations on such images; otherwise
    one over two images of its own size. Two more over four or two images if the values of an image change in a batch,
    even by rounding. If an operation reads only some of the images, four are run, and each of them is changed in turn.
    """
    alone = False
    try:
        found = _first_that_holds(_attempts(model, pictures, size, values, count, output, beside))
        if found is not None:
            return found
    except _ApartError:
        alone = True
    single = FollowedPass(pictures(count, size, None))
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
    """Several images run other operations than one image, so a layer's value does not belong to all of them."""


def _attempts(
    model: nn.Module,
    pictures: Pictures,
    size: tuple[int, int],
    values: Mapping[str, Seen],
    count: int,
    output: Any,
    beside: Callable[[], Observer],
) -> Iterator[Callable[[], Reading]]:
    full = {name: seen.shape for name, seen in values.items()}
    measured = partial(_measured, model, pictures, beside)
    for small in smaller(size) if count == 1 else []:
        yield partial(measured, small, (1, _SEVERAL), None, full)
    yield partial(measured, size, (count, count + 1), (values, output), full)
    yield partial(measured, size, (count + 1, count + 2), None, None)
    if count > 1:
        note = f"the model takes {count} images, but not {count + 1} in the same way, so {count} go through at a time"
        yield lambda: replace(measured(size, (count, 2 * count), (values, output), full), note=note)


def smaller(size: tuple[int, int]) -> list[tuple[int, int]]:
    """Smaller sizes of nearly the same proportions, for faster readings; empty for small images."""
    found = []
    for side, fewer in _SMALL.items():
        height, width = (max(side, round(length * side / min(size) / 32) * 32) for length in size)
        if height * width * fewer <= math.prod(size):
            found.append((height, width))
    return found


def _measured(
    model: nn.Module,
    pictures: Pictures,
    beside: Callable[[], Observer],
    size: tuple[int, int],
    counts: tuple[int, int],
    before: tuple[Mapping[str, Seen], Any] | None,
    full: Mapping[str, tuple[int, ...]] | None,
) -> Reading:
    """Run two batch sizes and, if in doubt, the larger one with images changed.

    ``before`` holds the values and the output for the smaller batch if they are known.
    """
    fewer, more = counts
    if before is None:
        first, single = KeptPass(), pictures(fewer, size, None)
        returned, _ = seeded_pass(model, single, first, seed=1)
        before = first.seen, returned
    alone, fewer_returned = before
    if full is not None and not _alike({name: seen.shape for name, seen in alone.items()}, full):
        raise _UnlikeError
    run = partial(_batch, model, alone, fewer, full)
    plain, shared, mixed = None, None, frozenset[str]()
    if fewer == 1:
        # The gray image, whose values alone are known, comes second: this shows what it takes from an image before it.
        images, other, beside_others = pictures(more, size, None).roll(1, 0), beside(), BesideOthers(alone, more, 1)
        plain, returned, drew = run(images, beside_others.look, other)
        if plain.parted and more < _SEVERAL:  # two images do not show in what order more of them are taken
            return _measured(model, pictures, beside, size, (fewer, _SEVERAL), before, full)
        shared = SharedPass(images, other, returned, fewer_returned, 1, drew)
    if plain is None or plain.parted or not beside_others.alike():
        plain, _, _ = run(pictures(more, size, None), Digests().take)
        if plain.parted and fewer > 1 and more % fewer:  # pairs, of which one is not whole
            raise _UnlikeError
        # The middle one of three; any of them where an operation reads some images only.
        for which in range(more) if plain.parted else [(more - 1) // 2]:
            changed, _, _ = run(pictures(more, size, which), Digests().take, labelled=False)
            mixed |= resolve(plain.seen, changed.seen, more, which)
    axes = {}
    for name, seen in plain.seen.items():
        shape, count = (seen.shape, more) if full is None or name not in full else (full[name], fewer)
        axes[name] = _settled(seen, count, shape, mixed=name in mixed)
    mixes = next((name for name, seen in plain.seen.items() if seen.over or name in mixed), "")
    return Reading(axes | _of_inputs(plain, axes), mixes, shared=shared)


def _batch(
    model: nn.Module,
    alone: Mapping[str, Seen],
    fewer: int,
    full: Mapping[str, tuple[int, ...]] | None,
    images: Tensor,
    look: Callable[[str, Seen, Tensor], None],
    beside: Observer | None = None,
    *,
    labelled: bool = True,
) -> tuple[FollowedPass, Any, bool]:
    """Follow a pass over several images; also return the model's output, and whether random numbers were drawn."""
    followed = FollowedPass(images.clone(), alone, fewer, look, labelled)  # the model may write into its input
    returned, drew = seeded_pass(model, followed.images, followed if beside is None else Both(followed, beside), seed=1)
    if fewer == 1 and followed.seen.keys() - {"input"} != alone.keys() - {"input"}:
        raise _ApartError
    if full is not None and not _alike({name: seen.shape for name, seen in followed.seen.items()}, full):
        raise _UnlikeError
    return followed, returned, drew


def _of_inputs(followed: FollowedPass, axes: Mapping[str, Axes]) -> dict[str, Axes]:
    return {name + INPUT: axes[source] for name, source in followed.sources.items() if source in axes}


def _of_one(seen: Seen) -> Labels | None:
    """Labels of a value in a pass over one image, which the model may have taken out of its batch."""
    labels = seen.labels
    if labels is None or any(f.role == IMAGE for axis in labels.axes for f in axis):
        return labels
    apart = len(labels.axes) > 1 and labels.axes[0] == () and seen.shape[0] == 1  # images[k][None]
    return Labels(((Factor(IMAGE, 1),), *labels.axes[1:]), labels.since) if apart else labels


def _alike(one: Mapping[str, tuple[int, ...]], other: Mapping[str, tuple[int, ...]]) -> bool:
    names = one.keys() | other.keys()
    return all(name in one and name in other and len(one[name]) == len(other[name]) for name in names - {"input"})


def _settled(seen: Seen, count: int, shape: tuple[int, ...], *, mixed: bool = False, measured: bool = True) -> Axes:
    """Axes of a value from its labels, with the lengths that it has for ``count`` images of the full size."""
    labels = seen.labels if seen.labels is not None else Labels(((),) * len(shape))
    return _axes(labels.axes, count, shape, mixed, measured)


@lru_cache(maxsize=1024)  # modules return values of operations, and the layers of a network are similar
def _axes(labels: tuple[Axis, ...], count: int, shape: tuple[int, ...], mixed: bool, measured: bool) -> Axes:
    factors = [_lengths(axis, length, count) for axis, length in zip(labels, shape, strict=True)]
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
    if length == now * count:
        return tuple(found)
    # Small images have fewer windows than those of the full size.
    places = [k for k, f in enumerate(found) if f.role == PLACE]
    others = count * math.prod(f.size for f in found if f.role == UNIT)
    if len(places) != 1 or length % others:
        raise _UnlikeError
    found[places[0]] = Factor(PLACE, length // others)
    return tuple(found)
