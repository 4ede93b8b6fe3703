"""Find the head of a network from the last operations of a pass, confirmed by their numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from microtome.errors import InputError, ModelError
from microtome.trace.axes.axis_reading import smaller
from microtome.trace.graph import Layer
from microtome.trace.heads.closing_softmax import HANDING_ON
from microtome.trace.heads.head import OUTPUTS, Head, as_rows, choose, described, tensors_by_path
from microtome.trace.heads.last_operations import Ending
from microtome.trace.heads.score_meaning import PROBABILITIES, meaning, stays_in_range
from microtome.trace.shared_pass import SharedPass, seeded_pass
from microtome.trace.tracing.tracer import Tracer


@dataclass(frozen=True)
class Reading:
    """The reading of a network: its head, and whether its scores are random.

    Attributes
    ----------
    head : Head
        The head.
    random : str
        The operations that draw random numbers and change the scores; empty if there are none.
    """

    head: Head
    random: str


def read_head(
    model: nn.Module,
    layers: Mapping[str, Layer],
    first: Any,
    make: Callable[[tuple[int, int]], Tensor],
    size: tuple[int, int],
    shared: SharedPass | None = None,
    *,
    output: str | None = None,
    head: str | int | None = None,
    names: int | None = None,
) -> Reading:
    """Find which output holds the scores, what its numbers mean and whether they are random.

    Parameters
    ----------
    model : nn.Module
        Any module; it is run as written and left as found.
    layers : mapping of str to Layer
        The layers by name.
    first : object
        Output of the model for the first image alone; None if it does not take single images.
    make : function
        Makes prepared images of a height and width, two or more.
    size : (int, int)
        Height and width that the model takes.
    shared : SharedPass, optional
        A pass that an ``Ending`` has observed; it is used if it leaves no doubt.
    output : str, optional
        The meaning of the numbers, if the user gives it.
    head : str or int, optional
        The output, if the user gives it.
    names : int, optional
        Number of class names.

    Raises
    ------
    InputError
        When the given ``output`` or ``head`` does not fit the model.

    Notes
    -----
    Cost: none if the shared pass is sufficient. Otherwise one watched pass over two images, of 64 pixels if the
    model runs the same operations on such images; one more if random numbers are drawn or the first image gets
    other scores than alone.
    """
    if output is not None and output not in OUTPUTS:
        raise InputError(f'output must be one of {", ".join(OUTPUTS)}, got "{output}".')
    first, place, images, seen = (
        _clear(first, shared, head, names)
        or _small(model, layers, first, make, size)
        or _whole(model, first, make(size))
    )
    ending, returned, drew = seen
    found = dict(tensors_by_path(returned))
    behind = _behind(ending, found)
    path, problem = choose(returned, len(images), names, behind, head)
    if problem and head is not None:
        raise InputError(problem)
    per_image = _one_part_per_image(first, returned, len(images))
    if problem or per_image:
        came = f"the network gives {per_image}" if per_image else ""
        return Reading(Head(problem=_detector(came) if per_image else problem), "")
    rows = as_rows(found[path], len(images))
    assert rows is not None  # noqa: S101 - choose takes no other
    rows = rows.detach()
    if not bool(rows.isfinite().all()):  # using the scores is an error later; their meaning cannot be read from NaN
        return Reading(
            Head(int(rows.shape[1]), path, output or "logits", reason="scores, which hold NaN or infinity"), ""
        )
    alone = _same_path(first, path, rows.shape[1])
    random = ""
    if drew or alone is None or not _close(alone, rows[place : place + 1], 1e-3):
        again, other, _ = _pass(model, images, seed=2)
        second = dict(tensors_by_path(other)).get(path)
        second = None if second is None else as_rows(second, len(images))
        if second is None or second.shape != rows.shape or not _close(rows, second, 1e-6):
            random = _drawn(again)
        elif alone is not None and rows.shape == (2, 2) and _close(alone[0], rows[:, 0], 1e-3):
            return Reading(Head(problem=_TRANSPOSED), "")
    ranked = _ranked(ending, ending.node_of(found[path]))
    if ranked and rows.shape[1] > 1:
        return Reading(Head(problem=_SORTED.format(ranked)), "")
    bounded = functools.partial(stays_in_range, model, images, path)
    return Reading(meaning(ending, layers, found[path], path, rows, output, bounded), random)


Seen = tuple["Ending", Any, bool]  # what a pass showed, what it returned, whether random numbers were drawn
Beginning = tuple[Any, int, Tensor, Seen]  # output for one image alone, index of this image, a pass


def _clear(first: Any, shared: SharedPass | None, head: str | int | None, names: int | None) -> Beginning | None:
    """The output for one image and the pass of a shared reading; None if in doubt."""
    if shared is None or first is None or shared.drew or not isinstance(shared.observer, Ending):
        return None
    shapes = ([(path, value.shape) for path, value in tensors_by_path(one)] for one in (shared.alone, first))
    if next(shapes) != next(shapes):
        return None
    count, found = len(shared.images), dict(tensors_by_path(shared.returned))
    path, problem = choose(shared.returned, count, names, _behind(shared.observer, found), head)
    if problem or _one_part_per_image(shared.alone, shared.returned, count):
        return None
    rows = as_rows(found[path], count)
    alone = None if rows is None else _same_path(shared.alone, path, rows.shape[1])
    if rows is None or alone is None or not _close(alone, rows[shared.place : shared.place + 1], 1e-3):
        return None
    return shared.alone, shared.place, shared.images, (shared.observer, shared.returned, False)


def _small(
    model: nn.Module,
    layers: Mapping[str, Layer],
    first: Any,
    make: Callable[[tuple[int, int]], Tensor],
    size: tuple[int, int],
) -> Beginning | None:
    """The first output and a pass for small images; None if the model does something else with them."""
    reduced = smaller(size)
    if not reduced or first is None:
        return None
    images = make(reduced[0])
    try:
        alone = Tracer(model)(images[:1])
        seen = _pass(model, images, seed=1)
    except ModelError:
        return None
    names = {node.name for node in seen[0].nodes}
    shapes = ([(path, value.shape) for path, value in tensors_by_path(one)] for one in (alone, first))
    same = all(layer.operation in names for layer in layers.values() if layer.leaf)
    return (alone, 0, images, seen) if same and next(shapes) == next(shapes) else None


def _whole(model: nn.Module, first: Any, images: Tensor) -> Beginning:
    """The first output and a pass for images of the size that the model takes."""
    try:
        return first, 0, images, _pass(model, images, seed=1)
    except ModelError:  # the model takes one image only
        return first, 0, images[:1], _pass(model, images[:1], seed=1)


_TRANSPOSED = (
    "class scores of shape (N, classes) were expected, one row per image; the images lie along the second axis of the "
    "output. Wrap the model so that it returns its transpose."
)


_SORTED = (
    'class scores were expected, each class at a fixed position; the network sorts its scores ("{}"), so '
    "a position is a rank. Wrap the model so that it returns one score per class and image."
)


def _ranked(ending: Ending, node: int | None) -> str:
    """The operation that sorts an output; empty if there is none."""
    while node is not None:
        operation = ending.nodes[node]
        if operation.kind in ("topk", "sort", "msort"):
            return operation.name
        passes = operation.kind in HANDING_ON or operation.kind in PROBABILITIES
        node = operation.inputs[0] if passes and len(operation.inputs) == 1 else None
    return ""


def _detector(came: str) -> str:
    return (
        f"class scores of shape (N, classes) were expected, one row per image; {came}, a part for each image, as "
        "detectors do. Wrap the model so that it returns one score per class and image."
    )


def _one_part_per_image(first: Any, second: Any, images: int) -> str:
    """The entry of a model's output if it is a list with one entry per image; empty otherwise."""
    both = isinstance(first, list | tuple) and isinstance(second, list | tuple)
    return described(second) if both and images > 1 and (len(first), len(second)) == (1, images) else ""


def _pass(model: nn.Module, images: Tensor, seed: int) -> Seen:
    """One watched pass under its own random states: the observer, the output, whether random numbers were drawn."""
    ending = Ending()
    returned, drew = seeded_pass(model, images.clone(), ending, seed)
    return ending, returned, drew


def _behind(ending: Ending, found: Mapping[Any, Tensor]) -> dict[int, frozenset[int]]:
    nodes = {id(value): ending.node_of(value) for value in found.values()}
    if len(nodes) < 2:
        return {}
    made_of = {key: ending.behind(node) for key, node in nodes.items() if node is not None}
    return {
        key: frozenset(other for other, node in nodes.items() if node in sources and other != key)
        for key, sources in made_of.items()
    }


def _same_path(returned: Any, path: tuple[str | int, ...], classes: int) -> Tensor | None:
    value = dict(tensors_by_path(returned)).get(path)
    return None if value is None else as_rows(value, 1, classes)


def _drawn(ending: Ending) -> str:
    names = [node.name for node in ending.nodes if node.drawn]
    listed = ", ".join(f'"{name}"' for name in names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")
    return listed or "an operation that hides its inside"


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    scale = float(b.abs().max())
    return bool((a.double() - b.double()).abs().max() <= tolerance * scale + 1e-12)
