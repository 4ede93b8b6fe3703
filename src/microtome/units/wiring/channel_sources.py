"""Sources of channels: for every value, the weighted operation and unit that computes each of its channels."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from microtome import trace
from microtome.network import Network
from microtome.trace.operators.nested_tensors import tensors
from microtome.trace.operators.operator_calls import Call
from microtome.trace.operators.operator_table import those
from microtome.trace.receptive_fields import POINTWISE

_WEIGHTED = those(role=("convolution", "linear"))
_KEEPING = those(role=("pooling", "averaging", "resampling", "padding")) | {"group_norm", "instance_norm"}
_SPLITTING = those(role=("split", "join", "gate")) | {"channel_shuffle", "layer_norm", "expand"}


@dataclass(frozen=True)
class Branch:
    """The source of each channel of a value: a weighted operation and its output unit.

    Attributes
    ----------
    source : Tensor
        (channels,) index of the operation; -1 if it is unknown, -2 for the image.
    unit : Tensor
        (channels,) the operation's output unit, or the image's channel.
    """

    source: Tensor
    unit: Tensor

    def repeated(self, times: int) -> Branch:
        """Every channel repeated ``times`` times, as in a flattened map."""
        return Branch(self.source.repeat_interleave(times), self.unit.repeat_interleave(times))


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

    Pointwise operations, normalisation and pooling preserve channels; a sum joins branches; concatenation
    appends; flattening repeats each channel for its positions. After any other operation sources are unknown.
    """
    follower = _Follower()
    image = net.normalise(net.probe)
    follower.origin_of[id(image)] = (image, [Branch(*_pixels(net.input_shape[0]))])
    with torch.no_grad():
        trace.Tracer(net.model, observer=follower)(image)
    return Wiring(follower.weighted, follower.named, follower.after)


def _pixels(channels: int) -> tuple[Tensor, Tensor]:
    return torch.full((channels,), -2, device="cpu"), torch.arange(channels, device="cpu")


class _Follower:
    """An observer of the pass that stores the sources of every value."""

    def __init__(self) -> None:
        self.weighted: list[Weighted] = []
        self.named: dict[str, list[Branch]] = {}
        self.after: dict[str, int] = {}
        self.origin_of: dict[int, tuple[Tensor, list[Branch]]] = {}

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Do nothing when a module starts."""

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """Do nothing when a module returns."""

    def operation(self, call: Call, output: Any) -> None:
        """Store the sources of an operation's output."""
        outputs = tensors(output)
        read = [value for value in call.tensors if id(value) in self.origin_of]
        if not outputs or not read:
            return
        origin = self._weighted(call) if call.kind in _WEIGHTED else self._preserved(call, outputs[0], read)
        self.named[call.name] = origin
        self.after[call.name] = len(self.weighted)
        for value in outputs:
            self.origin_of[id(value)] = (value, origin)

    def _weighted(self, call: Call) -> list[Branch]:
        arguments = call.arguments
        known = self.origin_of.get(id(arguments["input"]))
        weight = arguments["weight"].detach()
        units = weight.shape[0]
        self.weighted.append(
            Weighted(call.name, weight.flatten(2) if weight.dim() > 2 else weight[:, :, None],
                     int(arguments.get("groups") or 1), [] if known is None else known[1])
        )  # fmt: skip
        return [Branch(torch.full((units,), len(self.weighted) - 1, device="cpu"), torch.arange(units, device="cpu"))]

    def _preserved(self, call: Call, output: Tensor, read: list[Tensor]) -> list[Branch]:
        branches = [self.origin_of[id(value)][1] for value in read]
        channels = _channels(output)
        if call.kind == "cat" and call.arguments["dim"] in (1, 1 - output.dim()):
            return _appended(branches)
        if call.kind in _SPLITTING:
            return []
        if call.kind in POINTWISE or call.kind in _KEEPING:
            # A gate (one number per channel) scales the channels; it is not their source.
            whole = [one for value, one in zip(read, branches, strict=True) if value.numel() == output.numel()]
            joined = [branch for one in whole or branches[:1] for branch in one]
            return [branch for branch in joined if len(branch.unit) == channels]
        before = branches[0]
        if len(read) == 1 and read[0].shape[:2] == output.shape[:2]:
            return before  # a mean over positions, a reshape of the map
        if len(read) == 1 and output.dim() == 2 and call.kind in ("flatten", "view", "reshape"):
            each = channels // read[0].shape[1]
            return [branch.repeated(each) for branch in before if len(branch.unit) * each == channels]
        return []


def _channels(value: Tensor) -> int:
    return int(value.shape[1]) if value.dim() > 1 else 0


def _appended(branches: list[list[Branch]]) -> list[Branch]:
    """Sources of concatenated channels; if the parts have different numbers of branches, missing ones are unknown."""
    if not all(branches):
        return []
    count = max(len(one) for one in branches)
    rows = []
    for place in range(count):
        parts = [one[place] if place < len(one) else _unknown(one[0]) for one in branches]
        rows.append(Branch(torch.cat([part.source for part in parts]), torch.cat([part.unit for part in parts])))
    return rows


def _unknown(like: Branch) -> Branch:
    return Branch(torch.full_like(like.source, -1), torch.zeros_like(like.unit))
