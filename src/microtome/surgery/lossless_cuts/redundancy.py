"""Redundant channels, each with a reason: dead, copies of others, unread, or in a null space."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.network import Network
from microtome.surgery.channels.channel_families import Channels, Family, Operation
from microtome.surgery.compression.moments import Moments
from microtome.surgery.compression.refit import columns_of, weights_of
from microtome.trace.graph import Layer

_SAME = 1e-12  # share of a channel's energy that two rounded products may differ by


@dataclass(frozen=True)
class Redundant:
    """One removable channel.

    Attributes
    ----------
    channel : int
        Index of the channel in ``Channels``.
    reason : str
        The reason in words.
    into : dict of int to float
        Channels that get its outgoing weights, with a factor: it equals the factor times them.
    always : bool
        Whether the reason holds for every image of the pixel range (up to rounding), or only on the data.
    """

    channel: int
    reason: str
    into: dict[int, float]
    always: bool


def unread(net: Network, channels: Channels, family: Family) -> list[Redundant]:
    """Channels whose outgoing weights are zero in all layers that read them."""
    found = []
    for channel in family.channels:
        weights = [weight for name in family.readers for weight in _outgoing(net, channels.operations[name], channel)]
        if weights and not any(bool(weight.count_nonzero()) for weight in weights):
            found.append(Redundant(channel, "its outgoing weights are zero", {}, True))
    return found


def rejected(net: Network, channels: Channels, family: Family, follower: dict[str, str]) -> list[Redundant]:
    """Channels whose outgoing weights lie in the null space of the layer after the next, both linear."""
    if not all(name in follower for name in family.readers):
        return []
    found = []
    for channel in family.channels:
        lost = True
        for name in family.readers:
            reader, after = channels.operations[name], channels.operations[follower[name]]
            out = weights_of(net, reader)[0][:, columns_of(reader)[channel]]  # (outputs, taps)
            then = weights_of(net, after)[0][:, :-1].view(-1, len(after.read), after.area)
            passed = torch.einsum("kct,cb->ktb", then, out)
            loud = then.abs().amax() * out.abs().sum()
            lost = lost and bool(out.count_nonzero()) and float(passed.abs().max()) <= 1e-7 * float(loud)
        if lost:
            found.append(
                Redundant(channel, "its outgoing weights lie in the null space of the layer after the next", {}, True)
            )
    return found


def silent(net: Network, channels: Channels, family: Family, moments: dict[str, Moments]) -> list[Redundant]:
    """Channels that are zero wherever they are read: on the data, or for every image of the pixel range."""
    energy = energies(channels, family, moments)
    proof = _never_positive(net, channels, family)
    found = []
    for channel in family.channels:
        if energy[channel] == 0:
            always = channel in proof
            why = "no image of the pixel range can excite it" if always else "it is zero on all images of the data"
            found.append(Redundant(channel, f"dead: {why}", {}, always))
    return found


def doubled(
    net: Network, channels: Channels, family: Family, moments: dict[str, Moments], numbers: list[int]
) -> list[Redundant]:
    """Channels that are a positive multiple of another: by their weights, or on the data.

    ``numbers`` are the names of the units, one for each channel of the family.
    """
    energy = energies(channels, family, moments)
    alive = [channel for channel in family.channels if energy[channel] > 0]
    if len(alive) < 2:
        return []
    inner = _inner(channels, family, moments, alive)
    diagonal = inner.diagonal()
    scale = inner / diagonal[None, :]  # row = scale * column, in the least-squares sense
    rest = (diagonal[:, None] - inner.square() / diagonal[None, :]) / diagonal[:, None]
    incoming = {channel: _incoming(net, channels, channel) for channel in alive}
    straight = len(family.makers) == 1 and _rectified(net, channels.operations[family.makers[0]]) is not None
    found: list[Redundant] = []
    gone: set[int] = set()
    for first, one in enumerate(alive):
        if one in gone:
            continue
        for second in range(first + 1, len(alive)):
            other, factor = alive[second], float(scale[second, first])
            if other in gone or factor <= 0 or float(rest[second, first]) > _SAME * 1e4:
                continue
            twin = all(torch.equal(a, b) for a, b in zip(incoming[one], incoming[other], strict=True))
            if not twin and float(rest[second, first]) > _SAME:
                continue
            name = f"unit {numbers[family.channels.index(one)]}"
            always = twin or (straight and _multiple(incoming[one], incoming[other], factor))
            factor = _factor(incoming[one], incoming[other]) if always else factor
            where = ", behind a rectifier" if always else " on all images of the data"
            reason = f"a copy of {name}" if twin else f"{factor:.4g} times {name}{where}"
            found.append(Redundant(other, reason, {one: factor}, always))
            gone.add(other)
    return found


def energies(channels: Channels, family: Family, moments: dict[str, Moments]) -> dict[int, float]:
    """Mean square of each channel at the inputs of its readers."""
    found = dict.fromkeys(family.channels, 0.0)
    for name in family.readers:
        if name in moments:
            for channel, columns in columns_of(channels.operations[name]).items():
                if channel in found:
                    found[channel] += float(moments[name].read[:, columns, columns].sum())
    return found


def _inner(channels: Channels, family: Family, moments: dict[str, Moments], alive: list[int]) -> Tensor:
    """Mean products of channels, summed over taps, over all layers that read them."""
    total = torch.zeros(len(alive), len(alive), dtype=torch.float64, device="cpu")
    for name in family.readers:
        columns = columns_of(channels.operations[name])
        index = torch.stack([columns[channel] for channel in alive])  # (c, b)
        block = moments[name].read[:, index[:, None, :], index[None, :, :]]
        total += block.double().sum((0, 3)).cpu()
    return total


def _multiple(one: list[Tensor], other: list[Tensor], factor: float) -> bool:
    """Whether all incoming weights are a multiple of those of another unit, up to rounding."""
    return len(one) == len(other) and all(
        a.shape == b.shape and bool(torch.allclose(factor * a, b, rtol=1e-5, atol=1e-7 * float(b.abs().max())))
        for a, b in zip(one, other, strict=True)
    )


def _factor(one: list[Tensor], other: list[Tensor]) -> float:
    """The factor between two lists of weights, by least squares."""
    a, b = (torch.cat([part.double().flatten() for part in parts]) for parts in (one, other))
    return float(a @ b / (a @ a))


def _outgoing(net: Network, operation: Operation, channel: int) -> list[Tensor]:
    if "transpose" in operation.kind:  # the weights of an input lie in one row
        weight = getattr(net.model.get_submodule(operation.owner), operation.weight).detach()
        return [weight[row] for row in (operation.read == channel).nonzero()[:, 0].tolist()]
    columns = columns_of(operation).get(channel)
    return [] if columns is None else [weights_of(net, operation)[:, :, columns]]


def _incoming(net: Network, channels: Channels, channel: int) -> list[Tensor]:
    """All entries that compute and scale a channel."""
    found = []
    for slot in channels.slots:
        if not slot.reads:
            place = (slot.channels == channel).nonzero()[:, 0]
            if len(place):
                tensor = getattr(net.model.get_submodule(slot.owner), slot.key).detach()
                found.append(tensor.index_select(slot.axis, place.to(tensor.device)))
    return found


def _never_positive(net: Network, channels: Channels, family: Family) -> set[int]:
    """Channels behind a rectifier whose largest possible value, over the pixel range, is not above zero."""
    proof: set[int] = set()
    if len(family.makers) != 1:
        return proof
    maker = channels.operations[family.makers[0]]
    layer = _rectified(net, maker) if "transpose" not in maker.kind else None  # each place has other taps
    if layer is None:
        return proof
    rows = weights_of(net, maker)
    low, high = _range(net, layer, len(maker.read) // maker.groups)
    weight = rows[..., :-1].view(*rows.shape[:2], -1, maker.area)
    low, high = low.to(weight.device), high.to(weight.device)
    top = torch.maximum(weight * low[:, None], weight * high[:, None])
    # Zero padding may replace a pixel: a tap contributes its largest value or nothing.
    largest = top.clamp(min=0).where(weight != 0, 0.0).sum((2, 3)) + rows[..., -1]
    for channel, value in zip(maker.made.tolist(), largest.reshape(-1).tolist(), strict=True):
        if value <= 0:
            proof.add(channel)
    return proof


def _rectified(net: Network, maker: Operation) -> Layer | None:
    """The layer of an operation if all its readers are rectifiers; else None."""
    layer = next((one for one in net.layers.values() if one.operation == maker.name and one.leaf), None)
    readers = [one for one in net.layers.values() if layer is not None and layer.name in one.inputs and one.leaf]
    if layer is None or not readers or any(one.operator != "relu" for one in readers):
        return None
    return layer


def _reads_pixels_alone(net: Network, layer: Layer) -> bool:
    """Whether all that a layer reads are normalised pixels of the same channels, and zeros: seen on a random image."""
    if layer.inputs != ("input",) or net.pixels is None:
        return False
    low, high = net.pixels
    draws = torch.Generator().manual_seed(0)
    image = torch.rand(1, *net.input_shape, generator=draws, dtype=torch.float32, device="cpu") * (high - low) + low
    read = net.activations(image, f"{layer.name}@input")[f"{layer.name}@input"]
    pixels = net.normalise(net.images(image))
    zero = torch.zeros(1, dtype=pixels.dtype, device=pixels.device)
    return read.shape[:2] == pixels.shape[:2] and all(
        bool(torch.isin(one, torch.cat([own.flatten(), zero])).all())
        for one, own in zip(read[0], pixels[0], strict=True)
    )


def _range(net: Network, layer: Layer, count: int) -> tuple[Tensor, Tensor]:
    """The range of a layer's input: the pixel range for the image, unbounded otherwise."""
    if net.pixels is not None and count == net.input_shape[0] and _reads_pixels_alone(net, layer):
        mean, std = (
            torch.tensor(net.mean, dtype=torch.float32, device="cpu").double(),
            torch.tensor(net.std, dtype=torch.float32, device="cpu").double(),
        )
        return (net.pixels[0] - mean) / std, (net.pixels[1] - mean) / std
    endless = torch.full((count,), 1e300, dtype=torch.float64, device="cpu")
    return -endless, endless
