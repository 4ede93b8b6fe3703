"""Second moments of what layers read, tap by tap, with what they gave and how much it matters to the logits."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome.data import Dataset, batches
from microtome.errors import InputError, ModelError
from microtome.network import Network
from microtome.surgery.channels.channel_families import Channels, Operation
from microtome.trace.operators.operator_calls import Call
from microtome.trace.tracing.observers import Capture
from microtome.trace.tracing.tracer import Tracer

FITTED = ("conv2d", "linear")
_ROWS = 16  # samples for each unknown of a fit; more positions of an image than that are drawn at random
_WIDE = 1700  # unknowns of a fit up to which it is solved in float64


@dataclass
class Moments:
    """Sums over samples (an image at a position of the output).

    Attributes
    ----------
    read : Tensor
        (groups, p + 1, p + 1) mean of x x^T, where x holds the p inputs of a group tap by tap and a closing 1.
    cross : Tensor
        (groups, outputs, p + 1) mean of y x^T; empty where only ``read`` was asked for.
    samples : int
    """

    read: Tensor
    cross: Tensor
    samples: int


def inputs_of(call: Call, draw: Tensor | None = None) -> Tensor:
    """What each output reads: (groups, p, samples), p = inputs of a group times taps; ``draw`` picks positions."""
    given = call.arguments
    x, weight = given["input"], given["weight"]
    if call.kind == "linear":
        rows = x.reshape(x.shape[0], -1, x.shape[-1]).transpose(1, 2)
        groups = 1
    else:
        x = x[None] if x.dim() == 3 else x
        groups = int(given["groups"])
        rows = _patches(x, weight.shape[2:], given)
    if draw is not None:
        rows = rows[:, :, draw.to(rows.device)]
    n, p, positions = rows.shape
    by_group: Tensor = rows.view(n, groups, p // groups, positions).permute(1, 2, 0, 3)
    return by_group.reshape(groups, p // groups, -1)


def outputs_of(value: Tensor, groups: int, kind: str, draw: Tensor | None = None) -> Tensor:
    """What a layer gave: (groups, outputs of a group, samples), in the order of ``inputs_of``."""
    tokens = kind == "linear"
    rows = value.reshape(len(value), -1, value.shape[-1]).transpose(1, 2) if tokens else value.flatten(2)
    if draw is not None:
        rows = rows[:, :, draw.to(rows.device)]
    n, o, positions = rows.shape
    return rows.view(n, groups, o // groups, positions).permute(1, 2, 0, 3).reshape(groups, o // groups, -1)


def _patches(x: Tensor, kernel: Any, given: dict[str, Any]) -> Tensor:
    stride, dilation, padding = (_pair(given[key]) for key in ("stride", "dilation", "padding"))
    if isinstance(given["padding"], str):
        reach = [d * (k - 1) if given["padding"] == "same" else 0 for d, k in zip(dilation, kernel, strict=True)]
        x = functional.pad(x, (reach[1] // 2, reach[1] - reach[1] // 2, reach[0] // 2, reach[0] - reach[0] // 2))
        padding = (0, 0)
    if tuple(kernel) == (1, 1) and padding == (0, 0):
        return x[:, :, :: stride[0], :: stride[1]].flatten(2)
    return functional.unfold(x, tuple(kernel), dilation, padding, stride)


def _pair(value: Any) -> tuple[int, int]:
    if isinstance(value, str):
        return 0, 0
    return (int(value), int(value)) if isinstance(value, int) else (int(value[0]), int(value[-1]))


def drawn(operation: Operation, unknowns: int, images: int, seed: int) -> Tensor | None:
    """Positions of one batch to sample; None for all of them."""
    wanted = max(4, -(-_ROWS * unknowns // max(images, 1)))
    if operation.positions <= wanted:
        return None
    generator = torch.Generator().manual_seed(seed)
    return torch.randperm(operation.positions, generator=generator, device="cpu")[:wanted].sort().values


def read_moments(
    net: Network,
    channels: Channels,
    dataset: Dataset,
    *,
    exact: bool = False,
    only: Collection[str] | None = None,
    batch: int = 64,
) -> dict[str, Moments]:
    """Moments of what every convolution and matrix product reads, in one pass over a data set.

    With ``exact`` all positions count and products are in float64; else a sample of them, in the network's precision.
    ``only`` names the layers; by default all.
    """
    asked = {
        name: operation
        for name, operation in channels.operations.items()
        if operation.kind in FITTED and (only is None or name in only)
    }
    found: dict[str, Moments] = {}
    for number, images, _ in _normalised(net, dataset, batch):
        observer = _Reading(asked, found, len(dataset), number, exact)
        with torch.no_grad():
            Tracer(net.model, list(asked)[-1:], observer=observer)(images)
    for moments in found.values():
        moments.read /= moments.samples
    return found


class _Reading:
    """Adds up the moments of one batch."""

    def __init__(
        self, asked: dict[str, Operation], found: dict[str, Moments], images: int, seed: int, exact: bool
    ) -> None:
        self.asked, self.found, self.images, self.seed, self.exact = asked, found, images, seed, exact

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts: nothing to do."""

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned: nothing to do."""

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        operation = self.asked.get(call.name)
        if operation is None:
            return
        unknowns = call.arguments["weight"][0].numel()
        draw = None if self.exact else drawn(operation, unknowns, self.images, self.seed)
        x = with_one(inputs_of(call, draw))
        x = x.double() if self.exact else x
        square = _wide(x @ x.mT)
        held = self.found.get(call.name)
        if held is None:
            self.found[call.name] = Moments(square, x.new_empty(0), x.shape[2])
        else:
            held.read += square
            held.samples += x.shape[2]


def with_one(x: Tensor) -> Tensor:
    """The inputs with a closing 1."""
    return torch.cat([x, x.new_ones(x.shape[0], 1, x.shape[2])], 1)


def _wide(sums: Tensor) -> Tensor:
    """Sums in float64; in their own precision where inputs are so many that memory and time forbid it."""
    return sums.double() if sums.shape[-1] <= _WIDE else sums


def paired_moments(
    net: Network, small: Network, operation: Operation, made: Tensor, dataset: Dataset, *, batch: int = 64
) -> Moments:
    """Moments of what a layer of the smaller network reads, and of what the same layer gave in the whole one.

    Parameters
    ----------
    net, small : Network
        The whole network and the smaller one.
    operation : Operation
        The layer, as it is in the whole network.
    made : Tensor
        (outputs,) which of the whole network's output channels the smaller one still has.
    """
    total: Moments | None = None
    for number, images, _ in _normalised(net, dataset, batch):
        before, after = _captured(net, operation.name, images), _captured(small, operation.name, images)
        draw = drawn(operation, after.arguments["weight"][0].numel(), len(dataset), number)
        x = with_one(inputs_of(after, draw))
        channel = before.arguments["input"].dim() - 1 if operation.kind == "linear" else 1
        with torch.no_grad():
            value = before.run().index_select(channel, made.to(images.device))
        y = outputs_of(value, x.shape[0], operation.kind, draw).to(x.dtype)
        read, cross = _wide(x @ x.mT), _wide(y @ x.mT)
        cross = cross.to(read)
        if total is None:
            total = Moments(read, cross, x.shape[2])
        else:
            total.read += read
            total.cross += cross
            total.samples += x.shape[2]
    if total is None:
        raise InputError("the data set is empty: there is no image to run.")
    total.read /= total.samples
    total.cross /= total.samples
    return total


def importance(
    net: Network,
    channels: Channels,
    dataset: Dataset,
    *,
    only: Collection[str] | None = None,
    batch: int = 64,
    seed: int = 0,
) -> dict[str, Tensor]:
    r"""How much the logits move with each output channel of each layer: mean square of their slope, (outputs,).

    .. math:: \lambda_o = \operatorname{E}_{x, p, r} \Big( \sum_k r_k \frac{\partial S_k}{\partial y_o(p)} \Big)^2

    with r random signs less their mean: the diagonal of the Gauss-Newton matrix of the differences of logits,
    whose expectation takes one backward pass instead of one a class.
    """
    names = [
        name
        for name, operation in channels.operations.items()
        if operation.kind in FITTED and (only is None or name in only)
    ]
    total: dict[str, Tensor] = {}
    count = 0
    for number, images, _ in batches(dataset, batch):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + int(number[0]))

        def signs(logits: Tensor, generator: torch.Generator = generator) -> Tensor:
            drawn = torch.randint(0, 2, logits.shape, generator=generator, device="cpu").to(logits) * 2 - 1
            return drawn - drawn.mean(1, keepdim=True)

        record = net.run(images, record=names, gradient=True, output_layer=scores_layer(net), grad_output=signs)
        for name in names:
            operation, slope = channels.operations[name], record.gradient[name].double()
            over = [axis for axis in range(slope.dim()) if axis != operation.axis]
            square = slope.square().sum(over)
            total[name] = square if name not in total else total[name] + square
        count += len(images)
    return {name: value / (count * channels.operations[name].positions) for name, value in total.items()}


def scores_layer(net: Network) -> str:
    """The layer whose value holds the class scores.

    Raises
    ------
    ModelError
        When the model gives none.
    """
    if net.head.problem:
        raise ModelError(net.head.problem)
    return net.head.layer or net.graph.outputs[net.head.path]


def _captured(net: Network, name: str, images: Tensor) -> Call:
    capture = Capture(name)
    with torch.no_grad():
        Tracer(net.model, [name], observer=capture)(images)
    if capture.call is None:
        raise InputError(f'layer "{name}" did not run for these images.')
    return capture.call


def _normalised(net: Network, dataset: Dataset, batch: int) -> Iterator[tuple[int, Tensor, Tensor | None]]:
    for indices, images, labels in batches(dataset, batch):
        yield int(indices[0]), net.normalise(net.images(images)), labels
