"""Find the head of a network: by the last operations of a pass, proved by their numbers."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from microtome.errors import InputError, ModelError
from microtome.trace.axes.axis_reading import smaller
from microtome.trace.graph import Layer
from microtome.trace.heads.head import OUTPUTS, Head, as_rows, choose, described, tensors_by_path
from microtome.trace.operator_table import those
from microtome.trace.operators import Call, tensors
from microtome.trace.shared_pass import SharedPass, seeded_pass
from microtome.trace.tracer import Tracer

_NEAR = 48  # operations before the end among which a closing softmax or sigmoid is looked for
_SMALL = 2**18  # numbers of a value that may be scores
_TIGHT = 1e-3  # a clamp that comes this close to 0 and 1 only keeps logarithms finite

_CLOSINGS: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "softmax": ("softmax", lambda x: x.softmax(1)),
    "log_softmax": ("softmax", lambda x: x.log_softmax(1)),
    "sigmoid": ("sigmoid", torch.sigmoid),
    "log_sigmoid": ("sigmoid", nn.functional.logsigmoid),
}

# Operators that let some values through unchanged and not others: behind one, equal numbers prove nothing.
_BENDING = (those(function="step") | those(function="piecewise", alone=True)) - {"hardsigmoid"}
# Operators that hand numbers on: their input is the same score, and often the value of a module.
_HANDING_ON = those(role=("view", "copy", "cast"))
# Operators whose values lie in [0, 1], and those that mix such values: averages, products, choices.
_PROBABILITIES = frozenset(("sigmoid", "hardsigmoid", "softmax"))
_MIXING = those(activation="clipping") | those(
    role=tuple(
        """arithmetic function mask product reduction view rearrangement selection split join copy cast
        repetition""".split()
    )
)

_RANDOM = frozenset(
    "dropout bernoulli rand randn randint randperm normal uniform exponential poisson multinomial rrelu gumbel_softmax "
    "rand_like randn_like randint_like cauchy geometric log_normal fractional_max_pool2d stochastic_depth".split()
)


@dataclass
class _Node:
    """One value of the pass."""

    kind: str
    name: str
    inputs: tuple[int, ...]
    bends: bool
    drawn: bool
    recordable: bool


@dataclass
class Ending:
    """Notes what every value of a pass is made of, and the last small ones themselves."""

    nodes: list[_Node] = field(default_factory=list)
    value: dict[int, Tensor] = field(default_factory=dict)
    reader: dict[int, str] = field(default_factory=dict)
    _made: dict[int, tuple[Tensor, int]] = field(default_factory=dict)
    _read: dict[str, tuple[int, ...]] = field(default_factory=dict)  # by each running module

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts."""
        self._read[name] = self._known(tensors(args))

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        made = tensors(output) or ([call.input] if call.kind == "setitem" else [])
        inputs = self._known(call.tensors)
        for node in inputs:
            self.reader.setdefault(node, call.name)
        drawn = call.kind in _RANDOM and not any(value is output or _same(value, output) for value in call.tensors)
        for place, value in enumerate(made):
            noted = _Node(call.kind, call.name, inputs, _bends(call), drawn, place == 0)
            self._add(value, noted, value.detach().clone() if value.numel() <= _SMALL else value)

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned; a scripted one is one operation of unknown kind."""
        inputs = self._read.pop(name, ())
        for place, value in enumerate(tensors(output)):
            if id(value) not in self._made:
                # A copy made here, between operations, would be seen as the model's own.
                self._add(value, _Node("", name, inputs, False, False, place == 0), value)

    def node_of(self, value: Tensor) -> int | None:
        """Which node made a value."""
        found = self._made.get(id(value))
        return None if found is None else found[1]

    def behind(self, node: int) -> set[int]:
        """All nodes that a node is made of."""
        found: set[int] = set()
        waiting = [node]
        while waiting:
            for source in self.nodes[waiting.pop()].inputs:
                if source not in found:
                    found.add(source)
                    waiting.append(source)
        return found

    def _known(self, values: list[Tensor]) -> tuple[int, ...]:
        return tuple(dict.fromkeys(self._made[id(value)][1] for value in values if id(value) in self._made))

    def _add(self, value: Tensor, node: _Node, kept: Tensor) -> None:
        self._made[id(value)] = value, len(self.nodes)
        if value.is_floating_point() and 0 < value.numel() <= _SMALL:
            self.value[len(self.nodes)] = kept
            self.value.pop(len(self.nodes) - _NEAR, None)
        self.nodes.append(node)


@dataclass(frozen=True)
class Reading:
    """What is found when a network is read: its head, and whether its answers are random.

    Attributes
    ----------
    head : Head
        The head.
    random : str
        Which operations draw random numbers that change the scores; empty where none do.
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
        What the model returned for the first of the images alone; None where it does not take one image.
    make : function
        Makes prepared images of a height and width, two or more.
    size : (int, int)
        Height and width that the model takes.
    shared : SharedPass, optional
        A pass that has been observed by an ``Ending``; it is read where nothing in it is doubtful.
    output : str, optional
        What the numbers mean, where the user says so.
    head : str or int, optional
        Which output, where the user says so.
    names : int, optional
        How many classes have names.

    Raises
    ------
    InputError
        When the given ``output`` or ``head`` does not fit the model.

    Notes
    -----
    Cost: none where the shared pass tells all. Otherwise one watched pass over two images, of 64 pixels where the
    model runs the same operations on such images; one more where random numbers are drawn or the first image gets
    other scores than it got alone.
    """
    if output is not None and output not in OUTPUTS:
        raise InputError(f'output is one of {", ".join(OUTPUTS)}, got "{output}".')
    first, images, seen = (
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
    if not bool(rows.isfinite().all()):  # an error when scores are asked for; no number tells what they mean
        return Reading(
            Head(int(rows.shape[1]), path, output or "logits", reason="scores, which hold NaN or infinity"), ""
        )
    alone = _same_path(first, path, rows.shape[1])
    random = ""
    if drew or alone is None or not _close(alone, rows[:1], 1e-3):
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
    bounded = functools.partial(_stays_in_range, model, images, path)
    return Reading(_meaning(ending, layers, found[path], path, rows, output, bounded), random)


Seen = tuple["Ending", Any, bool]  # what a pass showed, what it returned, whether random numbers were drawn


def _clear(
    first: Any, shared: SharedPass | None, head: str | int | None, names: int | None
) -> tuple[Any, Tensor, Seen] | None:
    """The first output and the pass of a shared reading; None where it leaves any doubt."""
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
    if rows is None or alone is None or not _close(alone, rows[:1], 1e-3):
        return None
    return shared.alone, shared.images, (shared.observer, shared.returned, False)


def _small(
    model: nn.Module,
    layers: Mapping[str, Layer],
    first: Any,
    make: Callable[[tuple[int, int]], Tensor],
    size: tuple[int, int],
) -> tuple[Any, Tensor, Seen] | None:
    """The first output and a pass for small images; None where the model does something else with them."""
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
    return (alone, images, seen) if same and next(shapes) == next(shapes) else None


def _whole(model: nn.Module, first: Any, images: Tensor) -> tuple[Any, Tensor, Seen]:
    """The first output and a pass for images of the size that the model takes."""
    try:
        return first, images, _pass(model, images, seed=1)
    except ModelError:  # the model takes one image only
        return first, images[:1], _pass(model, images[:1], seed=1)


_TRANSPOSED = (
    "class scores of shape (N, classes) were expected, one row per image; the images lie along the second axis of what "
    "the network gives. Wrap the model so that it returns its transpose."
)


_SORTED = (
    'class scores were expected, each class in a place of its own; the network sorts its scores ("{}"), so that '
    "a place is a rank. Wrap the model so that it returns one score per class and image."
)


def _ranked(ending: Ending, node: int | None) -> str:
    """The operation by which an output is sorted; empty where it is not."""
    while node is not None:
        made = ending.nodes[node]
        if made.kind in ("topk", "sort", "msort"):
            return made.name
        passes = made.kind in _HANDING_ON or made.kind in _PROBABILITIES
        node = made.inputs[0] if passes and len(made.inputs) == 1 else None
    return ""


def _detector(came: str) -> str:
    return (
        f"class scores of shape (N, classes) were expected, one row per image; {came}, a part for each image, as "
        "detectors do. Wrap the model so that it returns one score per class and image."
    )


def _one_part_per_image(first: Any, second: Any, images: int) -> str:
    """What a model returns that gives a list with one entry for each image; empty where it does not."""
    both = isinstance(first, list | tuple) and isinstance(second, list | tuple)
    return described(second) if both and images > 1 and (len(first), len(second)) == (1, images) else ""


def _pass(model: nn.Module, images: Tensor, seed: int) -> Seen:
    """One watched pass under random states of its own: what was seen, what was returned, whether numbers were drawn."""
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
    return listed or "an operation that shows nothing of its inside"


# -- what the numbers mean -----------------------------------------------------------------------------------------


def _meaning(
    ending: Ending,
    layers: Mapping[str, Layer],
    value: Tensor,
    path: tuple[str | int, ...],
    rows: Tensor,
    output: str | None,
    bounded: Callable[[], bool],
) -> Head:
    count = int(rows.shape[1])
    node = ending.node_of(value)
    closed = None if output == "value" else _closing(ending, node, rows)
    if closed is not None:
        squash, _ = _CLOSINGS[closed[0]]
        kind = "logits" if squash == "softmax" else "sigmoid"
        if (output, squash) == ("sigmoid", "softmax"):
            raise InputError(
                'output="sigmoid" was given, but the model ends in a softmax; leave output out, or give "logits".'
            )
        if (output, squash) != ("logits", "sigmoid"):
            layer, cut = _recorded(ending, layers, closed[1])
            reason = f'logits, which the closing {closed[0]} reads ("{layer}")'
            return Head(count, path, output or kind, squash, layer, closed[0], cut, reason)
    kind, reason = _measured(ending, node, rows, bounded)
    if output is None:
        return Head(count, path, kind, {"logits": "softmax", "sigmoid": "sigmoid"}.get(kind, ""), reason=reason)
    if output == "probabilities" and kind != "probabilities" and not _in_range(rows):
        low, high = (float(edge) for edge in rows.aminmax())
        raise InputError(
            f'output="probabilities" was given, but the network gives values from {low:.3g} to {high:.3g}; '
            '"logits", "sigmoid" or "value" may be meant.'
        )
    squash = {"logits": "softmax", "sigmoid": "" if kind == "probabilities" else "sigmoid"}.get(output, "")
    return Head(count, path, output, squash, reason=f"{_PLURAL.get(output, output)}, as given")


_PLURAL = {"value": "values", "sigmoid": "logits of a sigmoid"}


def _measured(ending: Ending, node: int | None, rows: Tensor, bounded: Callable[[], bool]) -> tuple[str, str]:
    """What the numbers of an open head are."""
    several = rows.shape[1] > 1
    wide = rows.double()
    rough = 1e-2 if rows.dtype in (torch.float16, torch.bfloat16) else 1e-4
    if several and _in_range(rows) and bool(((wide.sum(1) - 1).abs() < rough).all()):
        return "probabilities", "probabilities, since they lie in [0, 1] and sum to 1 for each image"
    if several and bool((wide <= rough).all()) and bool(((wide.exp().sum(1) - 1).abs() < rough).all()):
        return "logits", "logarithms of probabilities, since their exponentials sum to 1 for each image"
    if several and bool((wide >= -rough).all()) and _same_sums(wide, rough):
        total = float(wide.sum(1)[0])
        return "value", f"values, since they are not negative and sum to {total:.4g} for each image, as shares do"
    if node is not None and _in_range(rows) and _of_probabilities(ending, node):
        return "probabilities", "probabilities, since they are made of sigmoids or softmaxes alone and lie in [0, 1]"
    if _in_range(rows) and bounded():
        return "probabilities", "probabilities, since they stay in [0, 1] for images far outside of the pixel range"
    if several:
        return "logits", "logits, since no softmax or sigmoid closes the model"
    return "value", 'a value; give output="sigmoid" where it is the logit of one class'


def _same_sums(rows: Tensor, rough: float) -> bool:
    """Whether different rows have one sum, as per cent have."""
    sums = rows.sum(1)
    differ = float((rows - rows[:1]).abs().max()) > 100 * rough * float(rows.abs().max())
    return len(rows) > 1 and differ and float((sums - sums[0]).abs().max()) <= rough * float(sums[0].abs())


def _stays_in_range(model: nn.Module, images: Tensor, path: tuple[str | int, ...]) -> bool:
    """Whether outputs change, but stay in [0, 1], where the images are stretched far beyond their range."""
    stretched = torch.cat([1e2 * images[:2], -1e2 * images[:2]])
    try:
        returned = torch.cat([rows for part in stretched.split(1) if (rows := _alone(model, part, path)) is not None])
    except (ModelError, RuntimeError):
        return False
    return bool(returned.isfinite().all()) and _in_range(returned) and float(returned.max() - returned.min()) > 1e-3


def _alone(model: nn.Module, image: Tensor, path: tuple[str | int, ...]) -> Tensor | None:
    value = dict(tensors_by_path(Tracer(model)(image))).get(path)
    return None if value is None else value.detach().reshape(-1)


def _closing(ending: Ending, node: int | None, rows: Tensor) -> tuple[str, int] | None:
    """The softmax or sigmoid, in any spelling, that makes the output, and the value that it reads."""
    # An output that no operation is seen to make, as of a scripted function, may be made of any of the last values.
    before = sorted(ending.value if node is None else ending.behind(node), reverse=True)
    for source in before:
        read = None if source not in ending.value else as_rows(ending.value[source], len(rows), rows.shape[1])
        if read is None or torch.equal(read, rows):
            continue
        between = [] if node is None else [node, *(one for one in before if one > source)]
        if any(ending.nodes[one].bends for one in between):
            break
        if node is not None and not _all_through(ending, source, node):
            continue
        for closing in _CLOSINGS:
            if _gives(closing, read, rows):
                return closing, _handed_on(ending, source, closing, rows)
    return None


def _all_through(ending: Ending, source: int, node: int) -> bool:
    """Whether a value is made of one other value alone: then equal numbers are no accident of the images tried."""
    waiting, seen = [node], {node}
    while waiting:
        made = ending.nodes[waiting.pop()]
        if not made.inputs:  # of weights alone, or of the images themselves
            return False
        for one in made.inputs:
            if one < source:
                return False
            if one != source and one not in seen:
                seen.add(one)
                waiting.append(one)
    return True


def _gives(closing: str, read: Tensor, rows: Tensor) -> bool:
    if rows.shape[1] == 1 and "softmax" in closing:
        return False  # of one class it is 1 whatever it reads
    expected = _CLOSINGS[closing][1](read.double())
    exact = 1e-2 if rows.dtype in (torch.float16, torch.bfloat16) else 2 * _TIGHT if "log" not in closing else 1e-4
    clear = 1e-2 if rows.dtype in (torch.float16, torch.bfloat16) else 1e-5
    away = (expected - rows.double()).abs() / (1 + rows.double().abs())
    # Of every image: the scores of a gray one may also be those of its mirror image.
    return bool((away <= exact).all()) and bool((away.median(1).values <= clear).all())


def _handed_on(ending: Ending, node: int, closing: str, rows: Tensor) -> int:
    """The value before operations that hand the scores on unchanged, or shift all of an image's by one number."""
    while len(ending.nodes[node].inputs) >= 1:
        kind, before = ending.nodes[node].kind, ending.nodes[node].inputs[0]
        value = ending.value.get(before)
        read = None if value is None else as_rows(value, len(rows), rows.shape[1])
        same = as_rows(ending.value[node], len(rows), rows.shape[1])
        if read is None or same is None:
            break
        unchanged = kind in _HANDING_ON and read.dtype == same.dtype and torch.equal(read, same)
        if not unchanged and not (kind in ("log_softmax", "sub") and _gives(closing, read, rows)):
            break
        node = before
    return node


def _recorded(ending: Ending, layers: Mapping[str, Layer], node: int) -> tuple[str, str]:
    """The name by which a value is recorded, a module's where there is one, and the first operation that reads it."""
    made, cut = ending.nodes[node], ending.reader.get(node, "")
    if not made.recordable:  # one of several values of an operation
        return f"{cut}@input", cut
    owner = next((one.name for one in layers.values() if one.leaf and one.operation == made.name), made.name)
    return owner, cut


def _of_probabilities(ending: Ending, node: int) -> bool:
    """Whether a value is mixed of sigmoids and softmaxes alone."""
    waiting, seen = [node], {node}
    any_found = False
    while waiting:
        at = waiting.pop()
        made = ending.nodes[at]
        if made.kind in _PROBABILITIES:
            any_found = True
            continue
        if made.kind not in _MIXING or not made.inputs:
            return False
        fresh = [source for source in made.inputs if source not in seen]
        seen.update(fresh)
        waiting += fresh
    return any_found


def _bends(call: Call) -> bool:
    if call.kind not in _BENDING:
        return False
    if not call.kind.startswith(("clamp", "rectifying_clamp")):
        return True
    bound = call.arguments
    low, high = bound.get("min", bound.get("min_val")), bound.get("max", bound.get("max_val"))
    numbers = all(edge is None or isinstance(edge, int | float) for edge in (low, high))
    return not (numbers and (low is None or low <= _TIGHT) and (high is None or high >= 1 - _TIGHT))


def _in_range(rows: Tensor) -> bool:
    low, high = (float(edge) for edge in rows.aminmax())
    return low >= -1e-6 and high <= 1 + 1e-6


def _close(a: Tensor, b: Tensor, tolerance: float) -> bool:
    scale = float(b.abs().max())
    return bool((a.double() - b.double()).abs().max() <= tolerance * scale + 1e-12)


def _same(value: Tensor, output: Any) -> bool:
    return isinstance(output, Tensor) and value.shape == output.shape and torch.equal(value, output)
