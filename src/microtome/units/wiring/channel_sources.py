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
from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import ELEMENTWISE, those
from microtome.trace.rectifiers.value_function import version
from microtome.units.wiring.channel_dependence import IMAGE, Branch, Channels, kept, measured

_WEIGHTED = those(role=("convolution", "linear"))
# A unit stays itself, though a norm scales it by the others.
_KEEPING = ELEMENTWISE | those(role=("normalisation", "softmax"))
_MIXING = those(role="attention")


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


def wiring(net: Network) -> Wiring:
    """Trace the sources of all channels through one forward pass.

    Elementwise operations, norms and a softmax keep the channels; a sum joins branches. Every other operation is
    run again on random numbers, see ``channel_dependence.measured``: an output channel that depends on one channel
    alone has its sources. A network is traced once for its weights: it can take as long as 40 passes.
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


def channels_from(net: Network, source: str, layer: str, *, made: bool = False) -> Tensor | None:
    """The channel of an earlier layer, or of the ``"input"``, for each channel that a layer reads; None if unknown.

    With ``made``, for each channel of its own value.

    Examples
    --------
    >>> net = Network(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ChannelShuffle(2), nn.Conv2d(4, 2, 3)), (3, 8, 8))
    >>> channels_from(net, "0", "2")
    tensor([0, 2, 1, 3])
    """

    def find() -> Tensor | None:
        size, until = net.input_shape[1:], net.layer(layer).operation
        followed = _followed(net, size, source=None if source == "input" else net.layer(source), until=until)
        branches = followed.named.get(until, []) if made else followed.read
        known = len(branches) == 1 and bool((branches[0].source == IMAGE).all())
        return branches[0].unit if known else None

    found: Tensor | None = _once(net, (source, layer, made), find)
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
    return same_channels(net, "input", found.name)


def same_channels(net: Network, source: str, layer: str, *, made: bool = False) -> bool:
    """Whether the channels that a layer reads (``made``: has) are all those of an earlier one, in their order."""
    order = channels_from(net, source, layer, made=made)
    count = net.input_shape[0] if source == "input" else net.layer(source).units
    return order is not None and torch.equal(order, torch.arange(count, device="cpu"))


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
        self.known: dict[int, Channels] = {}
        self.seen: set[str] = set()  # all operations, also those on no known value

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Do nothing when a module starts."""

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """Do nothing when a module returns."""

    def begin(self, value: Tensor, axes: tuple[int, ...]) -> None:
        """Follow the channels of a value."""
        known = Channels(value, axes, [])
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
            known = self.known.get(id(call.arguments.get("input", call.input)))  # addmm names its bias first
            from_end = 3 if call.kind == "conv2d" else 1
            fits = known is not None and known.axes == (known.value.dim() - from_end,)
            self.read = known.branches if known is not None and fits else []
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
            found = [kept(outputs[0], read)]
        elif call.kind in _MIXING:
            found = []
        else:
            found = measured(call, read, outputs)
        self.named[call.name] = found[0].branches if found else []
        self.after[call.name] = len(self.weighted)
        for value in outputs:
            self.known[id(value)] = Channels(value, (1,), [])
        for one in found:
            self.known[id(one.value)] = one

    def _weighted(self, call: Call, output: Tensor) -> Channels:
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
        return Channels(output, (output.dim() - from_end,), [made])
