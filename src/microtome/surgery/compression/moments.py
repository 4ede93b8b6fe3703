"""Second moments of layer inputs by tap, with the layer outputs and their influence on the logits."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from microtome.batch_sizes import fitting
from microtome.data import Dataset, batches
from microtome.errors import ModelError
from microtome.network import Network
from microtome.surgery.channels.channel_families import Channels, Operation
from microtome.surgery.compression.layer_samples import drawn, inputs_of, with_one
from microtome.surgery.held_out import held_out, of_samples
from microtome.trace.operators.operator_calls import Call
from microtome.trace.tracing.tracer import Tracer

FITTED = ("conv2d", "linear")
_WIDE = 1700  # fits with at most this many unknowns are solved in float64


@dataclass
class Moments:
    """Second moments over samples (an image at a position of the output): sums, or finally means.

    Attributes
    ----------
    read : Tensor
        (groups, p + 1, p + 1) of x x^T, where x holds the p inputs of a group by tap and a 1 at the end.
    cross : Tensor
        (groups, outputs, p + 1) of y x^T; empty if only ``read`` is needed.
    samples : int
    """

    read: Tensor
    cross: Tensor
    samples: int

    @staticmethod
    def of(x: Tensor, y: Tensor | None = None) -> Moments:
        """Sums over samples x (groups, p + 1, samples), and y (groups, outputs, samples) if given."""
        read = _wide(x @ x.mT)
        return Moments(read, x.new_empty(0) if y is None else (y @ x.mT).to(read), x.shape[2])

    def __add__(self, other: Moments) -> Moments:
        """The sums over these samples and others."""
        return Moments(self.read + other.read, self.cross + other.cross, self.samples + other.samples)

    @property
    def mean(self) -> Moments:
        """Means instead of sums."""
        return Moments(self.read / self.samples, self.cross / self.samples, self.samples)

    @property
    def without_one(self) -> Moments:
        """The moments of the inputs without the 1 at the end."""
        return Moments(self.read[:, :-1, :-1], self.cross[:, :, :-1], self.samples)


def read_moments(
    net: Network,
    channels: Channels,
    dataset: Dataset,
    *,
    exact: bool = False,
    only: Collection[str] | None = None,
    batch: int = 64,
) -> dict[str, Moments]:
    """Moments of the inputs of every convolution and matrix product, in one pass over a data set.

    With ``exact`` all positions are used and products are in float64; else a sample of positions, in the network's
    precision. ``only`` selects layers; by default all.
    """
    seen, other = read_parts(net, channels, dataset, exact=exact, only=only, batch=batch)
    return {name: whole(sums, other.get(name)) for name, sums in seen.items()}


def whole(seen: Moments, other: Moments | None) -> Moments:
    """Means over the samples of both parts, from their sums."""
    return (seen if other is None else seen + other).mean


def read_parts(
    net: Network,
    channels: Channels,
    dataset: Dataset,
    *,
    exact: bool = False,
    only: Collection[str] | None = None,
    batch: int = 64,
) -> tuple[dict[str, Moments], dict[str, Moments]]:
    """Sums over the samples of every layer's inputs, see ``read_moments``, and those over held-out images apart.

    Neighbouring positions of an image are similar, so whole images are held out. With ``exact`` none are.
    """
    asked = {
        name: operation
        for name, operation in channels.operations.items()
        if operation.kind in FITTED and (only is None or name in only)
    }
    observer = _Reading(asked, len(dataset), exact)
    out = held_out(dataset)
    for number, images in normalised(net, dataset, batch):
        observer.seed = first = number
        for part in images.split(together(net, batch)):
            observer.out = out[first : first + len(part)]
            with torch.no_grad():
                Tracer(net.model, list(asked)[-1:], observer=observer)(part)
            first += len(part)
    for name in observer.held_out.keys() - observer.seen.keys():  # fewer samples than images
        observer.seen[name] = observer.held_out.pop(name)
    return observer.seen, observer.held_out


class _Reading:
    """Adds up the moments of the images that pass; ``out`` is the mask of those that are held out."""

    def __init__(self, asked: dict[str, Operation], images: int, exact: bool) -> None:
        self.asked, self.images, self.exact = asked, images, exact
        self.seen: dict[str, Moments] = {}
        self.held_out: dict[str, Moments] = {}
        self.seed = 0
        self.out = torch.zeros(0, dtype=torch.bool, device="cpu")

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
        out = of_samples(self.out, x.shape[2]).to(x.device)
        if not bool(out.any()) or self.exact:
            add(self.seen, call.name, Moments.of(x))
            return
        add(self.held_out, call.name, Moments.of(x[:, :, out]))
        if not bool(out.all()):
            add(self.seen, call.name, Moments.of(x[:, :, ~out]))


def add(found: dict[str, Moments], name: str, moments: Moments) -> None:
    """Add the sums over further samples to those of a layer."""
    if name in found:
        found[name] = found[name] + moments
    else:
        found[name] = moments


def _wide(sums: Tensor) -> Tensor:
    """Sums in float64; in the original precision if there are too many inputs for memory and time."""
    return sums.double() if sums.shape[-1] <= _WIDE else sums


def importance(
    net: Network,
    channels: Channels,
    dataset: Dataset,
    *,
    only: Collection[str] | None = None,
    batch: int = 64,
    seed: int = 0,
) -> dict[str, Tensor]:
    r"""The influence of each output channel of each layer on the logits: mean square of their slope, (outputs,).

    .. math:: \lambda_o = \operatorname{E}_{x, p, r} \Big( \sum_k r_k \frac{\partial S_k}{\partial y_o(p)} \Big)^2

    with random signs r minus their mean: the diagonal of the Gauss-Newton matrix of the differences of logits,
    whose expectation takes one backward pass instead of one per class.
    """
    return slopes(net, channels, dataset, {}, only=only, batch=batch, seed=seed)[0]


def slopes(
    net: Network,
    channels: Channels,
    dataset: Dataset,
    sources: Mapping[str, str],
    *,
    only: Collection[str] | None = None,
    batch: int = 64,
    seed: int = 0,
) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The influence of each layer's outputs, see ``importance``, and for some layers the second moments of slopes.

    ``sources`` names for these layers the operation whose output counts: the layer, or the batch norm behind it. Their
    moments are (outputs, outputs); the diagonal is the influence.
    """
    names = [
        name
        for name, operation in channels.operations.items()
        if operation.kind in FITTED and (only is None or name in only)
    ]
    total: dict[str, Tensor] = {}
    products: dict[str, Tensor] = {}
    recorded = list(dict.fromkeys([*names, *sources.values()]))
    count = 0
    for number, images, _ in batches(dataset, batch):
        signs = _Signs(len(images), seed * 1_000_003 + int(number[0]))
        for rows in torch.arange(len(images), device="cpu").split(together(net, batch, backwards=True)):
            record = net.run(
                images[rows], record=recorded, gradient=True, output_layer=scores_layer(net),
                grad_output=partial(signs.at, rows),
            )  # fmt: skip
            for name in names:
                operation, slope = channels.operations[name], record.gradient[name].double()
                over = [axis for axis in range(slope.dim()) if axis != operation.axis]
                square = slope.square().sum(over)
                total[name] = square if name not in total else total[name] + square
            for name, source in sources.items():
                slope = record.gradient[source].movedim(channels.operations[name].axis, 0).flatten(1)
                product = (slope @ slope.T).double()
                products[name] = product if name not in products else products[name] + product
        count += len(images)
    found: list[dict[str, Tensor]] = [
        {name: value / (count * channels.operations[name].positions) for name, value in sums.items()}
        for sums in (total, products)
    ]
    return found[0], found[1]


class _Signs:
    """Random signs minus their mean, for each image and logit, independent of how the batch is split."""

    def __init__(self, images: int, seed: int) -> None:
        self._images, self._seed = images, seed

    def at(self, rows: Tensor, logits: Tensor) -> Tensor:
        """Those of some images."""
        generator = torch.Generator().manual_seed(self._seed)
        shape = (self._images, *logits.shape[1:])
        drawn = torch.randint(0, 2, shape, generator=generator, device="cpu")[rows].to(logits) * 2 - 1
        return drawn - drawn.mean(1, keepdim=True)


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


def normalised(net: Network, dataset: Dataset, batch: int) -> Iterator[tuple[int, Tensor]]:
    """The index of the first image and the prepared images, batch by batch."""
    for indices, images, _ in batches(dataset, batch):
        yield int(indices[0]), net.normalise(net.images(images))


def together(net: Network, batch: int, *, backwards: bool = False) -> int:
    """The number of images per pass: as many as suit the caches; all if images mix."""
    whole = bool(net.graph.mixes or net.graph.note)
    return batch if whole else min(batch, fitting(net, None, backwards=backwards))
