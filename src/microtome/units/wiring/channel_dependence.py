"""Which channels does each output channel of an operation depend on? Found by exchanging the channels that it reads."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.trace.operators.nested_tensors import first_tensor, substitute, tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those

UNKNOWN, IMAGE, NONE = -1, -2, -3  # sources that are no operation
_PRODUCTS = those(role=("product", "bilinear"))  # of two values of the pass: each number takes many of both


@dataclass(frozen=True)
class Branch:
    """The source of each channel of a value: a weighted operation and its output unit.

    Attributes
    ----------
    source : Tensor
        (channels,) index of the operation; -1 if it is unknown, -2 for the image, -3 for a constant.
    unit : Tensor
        (channels,) the operation's output unit, or the image's channel.
    """

    source: Tensor
    unit: Tensor


@dataclass(frozen=True)
class Channels:
    """A value of the pass, the axes that together count its channels, and their sources: several if it is a sum."""

    value: Tensor
    axes: tuple[int, ...]
    branches: list[Branch]

    @property
    def channels(self) -> int:
        """The number of channels."""
        return math.prod(self.value.shape[axis] for axis in self.axes)


def kept(output: Tensor, read: list[Channels]) -> Channels:
    """The sources of an output whose channels are those of what is read."""
    # A gate (one number per channel) scales the channels; it is not their source.
    whole = [one for one in read if one.value.shape == output.shape] or read[:1]
    further = output.dim() - whole[0].value.dim()
    made = Channels(output, tuple(axis + further for axis in whole[0].axes), [])
    fitting = [branch for one in whole for branch in one.branches if one.axes == whole[0].axes]
    made.branches.extend(branch for branch in fitting if len(branch.unit) == made.channels)
    return made


def measured(call: Call, read: list[Channels], outputs: list[Tensor]) -> list[Channels]:
    """The sources of outputs, by runs of an operation in which some of the channels that it reads are exchanged.

    The channels of all that is read are numbered. For each binary digit of the number, one run exchanges the channels
    whose digit is 0, and one run the others. An output channel that depends on a single channel changes in one run of
    each pair, which spells the number; one that depends on several changes in both runs of a pair, and one that
    depends on none never changes.
    """
    read = [one for one in read if one.branches and one.value.is_floating_point()]
    counts = [one.channels for one in read]
    if not read or (len(read) > 1 and call.kind in _PRODUCTS):
        return []
    draws = torch.Generator().manual_seed(0)
    random = [[_random(one.value, draws) for _ in range(2)] for one in read]
    number = torch.arange(sum(counts), device="cpu")
    digits = max(1, (len(number) - 1).bit_length())

    def run(exchanged: Tensor) -> list[Tensor]:
        written = call.inplace or call.kind == "setitem" or "out" in call.kwargs
        values = {id(value): value.detach().clone() for value in call.tensors} if written else {}
        for one, (usual, other), chosen in zip(read, random, exchanged.split(counts), strict=True):
            sizes = [size if axis in one.axes else 1 for axis, size in enumerate(usual.shape)]
            values[id(one.value)] = torch.where(chosen.to(usual.device).reshape(sizes), other, usual)
        args, kwargs = substitute(call.args, values), substitute(call.kwargs, values)
        made = call.func(*args, **kwargs)
        return tensors(made) or [first_tensor(args, kwargs)]

    try:
        usual = run(torch.zeros_like(number, dtype=torch.bool))
        runs = [[run(number >> digit & 1 == side) for side in (0, 1)] for digit in range(digits)]
    except torch.cuda.OutOfMemoryError:
        raise
    except Exception:  # it takes no random numbers, such as a Cholesky factor: unknown
        return []
    found = []
    for place, output in enumerate(outputs):
        known, best = None, 0.0
        for axes in _candidates(output.dim()):
            sides = [[_changed(one[place], usual[place], axes) for one in pair] for pair in runs]
            single = torch.stack([first ^ second for first, second in sides]).all(0)
            if (share := float(single.float().mean())) > best:
                spelt = torch.stack([second.long() << digit for digit, (_, second) in enumerate(sides)]).sum(0)
                several = torch.stack([first & second for first, second in sides]).any(0)
                other = torch.where(several, UNKNOWN, NONE)
                best, known = share, Channels(output, axes, _taken(read, counts, torch.where(single, spelt, other)))
        if known is not None:
            found.append(known)
    return found


def _candidates(dims: int) -> list[tuple[int, ...]]:
    """The axes that may count the channels of a value, the usual ones first: two if groups of them stand apart."""
    single, pairs = ((1,), (dims - 1,)), ((1, 2), (dims - 2, dims - 1))
    return [*dict.fromkeys(axes for axes in (*single, *pairs) if axes[0] > 0 and axes[-1] < dims)]


def _random(value: Tensor, draws: torch.Generator) -> Tensor:
    """Positive numbers in the shape of a value, none near zero."""
    made = torch.rand(value.shape, generator=draws, dtype=torch.float32, device="cpu") + 0.25
    return made.to(value)


def _changed(value: Tensor, usual: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Whether each channel of a value has changed, (channels,)."""
    differ = value != usual
    if bool(usual.isnan().any()):
        differ &= ~(value.isnan() & usual.isnan())
    first = differ.movedim(axes, tuple(range(len(axes))))
    return first.reshape(math.prod(first.shape[: len(axes)]), -1).any(1).cpu()


def _taken(read: list[Channels], counts: list[int], number: Tensor) -> list[Branch]:
    """The branches of channels that are those with these numbers among all that is read; others are below zero."""
    branches = []
    for place in range(max(len(one.branches) for one in read)):
        parts = [_of_place(one, count, place) for one, count in zip(read, counts, strict=True)]
        source, unit = torch.cat([part.source for part in parts]), torch.cat([part.unit for part in parts])
        taken = number.clamp(min=0)
        branches.append(Branch(torch.where(number < 0, number, source[taken]), unit[taken]))
    return branches


def _of_place(one: Channels, count: int, place: int) -> Branch:
    """A branch of a value; unknown if it has fewer."""
    if place < len(one.branches):
        return one.branches[place]
    return Branch(torch.full((count,), UNKNOWN, device="cpu"), torch.zeros(count, dtype=torch.long, device="cpu"))
