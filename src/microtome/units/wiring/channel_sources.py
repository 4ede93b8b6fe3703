"""Sources of channels: for every value, the weighted operation and unit that computes each of its channels."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from microtome import trace
from microtome.errors import ModelError
from microtome.network import Network
from microtome.trace.axes.axis_reading import smaller
from microtome.trace.axes.value_axes import UNIT
from microtome.trace.graph import Layer
from microtome.trace.operators.nested_tensors import first_tensor, substitute, tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import ELEMENTWISE, those
from microtome.trace.rectifiers.value_function import version

_WEIGHTED = those(role=("convolution", "linear"))
UNKNOWN, IMAGE, NONE = -1, -2, -3  # sources that are no operation
# A unit stays itself, though a norm scales it by the others.
_KEEPING = ELEMENTWISE | those(role=("normalisation", "softmax"))
_MIXING = those(role="attention")
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
class Weighted:
    """An operation with weights between units.

    Attributes
    ----------
    name : str
        Name of the operation.
    weight : Tensor
        (units, inputs of one unit, taps): the kernel; a linear map has one tap.
    groups : int
        Groups of the convolution.
    reads : list of Branch
        Sources of its input's channels; several branches if the input is a sum.
    """

    name: str
    weight: Tensor
    groups: int
    reads: list[Branch]

    def strengths(self, branch: Branch) -> Strengths | None:
        """Kernel norms and sums by source; None if the branch does not fit this input."""
        units, each, _ = self.weight.shape
        if len(branch.unit) != each * self.groups:
            return None
        identity = torch.stack((branch.source, branch.unit), 1)
        sources, column = torch.unique(identity, dim=0, return_inverse=True)
        column = column.to(self.weight.device)
        square = torch.zeros(units, len(sources), dtype=torch.float32, device=self.weight.device)
        total = torch.zeros_like(square)
        rows = units // self.groups
        for group in range(self.groups):
            part = slice(group * rows, (group + 1) * rows)
            columns = column[group * each : (group + 1) * each].expand(rows, each)
            square[part].scatter_add_(1, columns, self.weight[part].float().square().sum(2))
            total[part].scatter_add_(1, columns, self.weight[part].float().sum(2))
        return Strengths([(int(source), int(unit)) for source, unit in sources], square.sqrt().cpu(), total.cpu())


@dataclass(frozen=True)
class Strengths:
    """Strengths of the connections between a weighted operation and the sources of one branch.

    Attributes
    ----------
    sources : list of (int, int)
        Weighted operation and unit of each column.
    norm, total : Tensor
        (units, sources) norms and sums of the kernels; 0 without a connection.
    """

    sources: list[tuple[int, int]]
    norm: Tensor
    total: Tensor


@dataclass(frozen=True)
class Wiring:
    """All weighted operations of a network in execution order, and the sources of every operation's output.

    ``after`` holds for every operation the number of weighted operations up to and including it.
    """

    weighted: list[Weighted]
    origin: dict[str, list[Branch]]
    after: dict[str, int]


@dataclass(frozen=True)
class _Known:
    """A value of the pass, the axes that together count its channels, and their sources: several if it is a sum."""

    value: Tensor
    axes: tuple[int, ...]
    branches: list[Branch]

    @property
    def channels(self) -> int:
        """The number of channels."""
        return math.prod(self.value.shape[axis] for axis in self.axes)


def wiring(net: Network) -> Wiring:
    """Trace the sources of all channels through one forward pass.

    Operations number by number, norms and a softmax keep the channels; a sum joins branches. Every other operation is
    run again on random numbers, see ``_measured``: an output channel that depends on one channel alone has its sources.
    A network is traced once for its weights: it can take as long as 40 passes.
    """
    found: Wiring = _once(net, "wiring", lambda: _traced(net))
    return found


# What was found about a network, for its present weights.
_FOUND: WeakKeyDictionary[Network, tuple[tuple[tuple[int, int], ...], dict[Any, Any]]] = WeakKeyDictionary()


def _once(net: Network, what: Any, find: Callable[[], Any]) -> Any:
    weights = tuple((weight.data_ptr(), version(weight)) for weight in net.model.parameters())
    if net not in _FOUND or _FOUND[net][0] != weights:
        _FOUND[net] = weights, {}
    found = _FOUND[net][1]
    if what not in found:
        found[what] = find()
    return found[what]


def _traced(net: Network) -> Wiring:
    height, width = net.input_shape[1:]
    for small in smaller((height, width)):  # the channels are the same there
        with suppress(ModelError):
            follower = _followed(net, small)
            if {layer.operation for layer in net.layers.values() if layer.leaf} <= follower.seen:
                return Wiring(follower.weighted, follower.named, follower.after)
    follower = _followed(net, (height, width))
    return Wiring(follower.weighted, follower.named, follower.after)


def _followed(net: Network, size: tuple[int, ...], *, source: Layer | None = None, until: str = "") -> _Follower:
    """The pass over a gray image: channels are followed from the image or a layer, up to an operation or the end."""
    follower = _Follower(source, until)
    image = net.normalise(net.probe[:, :, : size[0], : size[1]])
    if source is None:
        follower.begin(image, (1,))
    with torch.no_grad():
        trace.Tracer(net.model, observer=follower)(image)
    return follower


def channels_from(net: Network, source: str, layer: str) -> Tensor | None:
    """The channel of an earlier layer, or of the ``"input"``, for each channel that a layer reads; None if unknown.

    Examples
    --------
    >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ChannelShuffle(2), nn.Conv2d(4, 2, 3)), (3, 8, 8))
    >>> channels_from(net, "0", "2")
    tensor([0, 2, 1, 3])
    """

    def find() -> Tensor | None:
        size, until = net.input_shape[1:], net.layer(layer).operation
        read = _followed(net, size, source=None if source == "input" else net.layer(source), until=until).read
        known = len(read) == 1 and bool((read[0].source == IMAGE).all())
        return read[0].unit if known else None

    found: Tensor | None = _once(net, (source, layer), find)
    return found


def reads_pixels(net: Network, layer: str) -> bool:
    """Whether a layer with weights reads the image, channel by channel: scaled, padded or resized at most.

    Examples
    --------
    >>> net = Network(nn.Sequential(nn.ZeroPad2d(1), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 3)), (3, 8, 8))
    >>> reads_pixels(net, "1"), reads_pixels(net, "3")
    (True, False)
    """
    found = net.layer(layer)
    if found.operator not in _WEIGHTED or _behind_weights(net, found):
        return False
    order = channels_from(net, "input", found.name)
    return order is not None and torch.equal(order, torch.arange(net.input_shape[0], device="cpu"))


def _behind_weights(net: Network, layer: Layer) -> bool:
    """Whether a layer reads what other weights have made."""
    waiting, seen = [*layer.inputs], {layer.name}
    while waiting:
        name = waiting.pop()
        if name in seen or name not in net.layers:
            continue
        seen.add(name)
        if net.layers[name].operator in _WEIGHTED:
            return True
        waiting += net.layers[name].inputs
    return False


class _Follower:
    """An observer of the pass that stores the sources of every value."""

    def __init__(self, source: Layer | None = None, until: str = "") -> None:
        self._source, self._until, self._ended = source, until, False
        self.read: list[Branch] = []  # by the operation at the end
        self.weighted: list[Weighted] = []
        self.named: dict[str, list[Branch]] = {}
        self.after: dict[str, int] = {}
        self.known: dict[int, _Known] = {}
        self.seen: set[str] = set()  # all operations, also those on no known value

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Do nothing when a module starts."""

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """Do nothing when a module returns."""

    def begin(self, value: Tensor, axes: tuple[int, ...]) -> None:
        """Follow the channels of a value."""
        known = _Known(value, axes, [])
        places = torch.full((known.channels,), IMAGE, device="cpu")
        known.branches.append(Branch(places, torch.arange(known.channels, device="cpu")))
        self.known[id(value)] = known

    def operation(self, call: Call, output: Any) -> None:
        """Store the sources of an operation's outputs."""
        if self._ended:
            return
        self.seen.add(call.name)
        self._ended = call.name == self._until
        if self._ended:
            known = self.known.get(id(call.input))
            axis = call.input.dim() - (3 if call.kind == "conv2d" else 1)
            self.read = known.branches if known is not None and known.axes == (axis,) else []
        if self._source is not None and call.name == self._source.operation:
            axes = self._source.axes.factors
            units = tuple(k for k, one in enumerate(axes) if one and all(factor.role == UNIT for factor in one))
            if units and math.prod(tensors(output)[0].shape[k] for k in units) == self._source.units:
                self.begin(tensors(output)[0], units)
            return
        outputs = tensors(output) or ([call.input] if call.kind == "setitem" else [])
        read = [self.known[key] for key in dict.fromkeys(map(id, call.tensors)) if key in self.known]
        if not outputs or not read:
            return
        if call.kind in _WEIGHTED:
            found = [self._weighted(call, outputs[0])]
        elif call.kind in _KEEPING:
            found = [_kept(outputs[0], read)]
        elif call.kind in _MIXING:
            found = []
        else:
            found = _measured(call, read, outputs)
        self.named[call.name] = found[0].branches if found else []
        self.after[call.name] = len(self.weighted)
        for value in outputs:
            self.known[id(value)] = _Known(value, (1,), [])
        for one in found:
            self.known[id(one.value)] = one

    def _weighted(self, call: Call, output: Tensor) -> _Known:
        arguments = call.arguments
        known = self.known.get(id(arguments["input"]))
        weight = arguments["weight"].detach()
        units, from_end = weight.shape[0], weight.dim() - 1  # of the axis of channels: 1 for a linear map
        fits = known is not None and known.axes == (known.value.dim() - from_end,)
        self.weighted.append(
            Weighted(call.name, weight.flatten(2) if weight.dim() > 2 else weight[:, :, None],
                     int(arguments.get("groups") or 1), known.branches if known is not None and fits else [])
        )  # fmt: skip
        made = Branch(torch.full((units,), len(self.weighted) - 1, device="cpu"), torch.arange(units, device="cpu"))
        return _Known(output, (output.dim() - from_end,), [made])


def _kept(output: Tensor, read: list[_Known]) -> _Known:
    """The sources of an output whose channels are those of what is read."""
    # A gate (one number per channel) scales the channels; it is not their source.
    whole = [one for one in read if one.value.shape == output.shape] or read[:1]
    further = output.dim() - whole[0].value.dim()
    made = _Known(output, tuple(axis + further for axis in whole[0].axes), [])
    fitting = [branch for one in whole for branch in one.branches if one.axes == whole[0].axes]
    made.branches.extend(branch for branch in fitting if len(branch.unit) == made.channels)
    return made


def _measured(call: Call, read: list[_Known], outputs: list[Tensor]) -> list[_Known]:
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
        written = call.inplace or call.kind == "setitem"
        values = {id(value): value.detach().clone() for value in call.tensors} if written else {}
        for one, (usual, other), chosen in zip(read, random, exchanged.split(counts), strict=True):
            sizes = [size if axis in one.axes else 1 for axis, size in enumerate(usual.shape)]
            values[id(one.value)] = torch.where(chosen.to(usual.device).reshape(sizes), other, usual)
        args, kwargs = substitute(call.args, values), substitute(call.kwargs, values)
        made = call.func(*args, **kwargs)
        return tensors(made) or [first_tensor(args, kwargs)]

    usual = run(torch.zeros_like(number, dtype=torch.bool))
    runs = [[run(number >> digit & 1 == side) for side in (0, 1)] for digit in range(digits)]
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
                best, known = share, _Known(output, axes, _taken(read, counts, torch.where(single, spelt, other)))
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


def _taken(read: list[_Known], counts: list[int], number: Tensor) -> list[Branch]:
    """The branches of channels that are those with these numbers among all that is read; others are below zero."""
    branches = []
    for place in range(max(len(one.branches) for one in read)):
        parts = [_of_place(one, count, place) for one, count in zip(read, counts, strict=True)]
        source, unit = torch.cat([part.source for part in parts]), torch.cat([part.unit for part in parts])
        taken = number.clamp(min=0)
        branches.append(Branch(torch.where(number < 0, number, source[taken]), unit[taken]))
    return branches


def _of_place(one: _Known, count: int, place: int) -> Branch:
    """A branch of a value; unknown if it has fewer."""
    if place < len(one.branches):
        return one.branches[place]
    return Branch(torch.full((count,), UNKNOWN, device="cpu"), torch.zeros(count, dtype=torch.long, device="cpu"))
