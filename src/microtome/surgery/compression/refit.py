"""Least-squares refitting: after a cut, each layer in turn is fitted to give what it gave before."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from microtome.data import Dataset
from microtome.network import Network
from microtome.progress import Clock, Listener
from microtome.surgery.channels.channel_families import Channels, Operation
from microtome.surgery.compression.moments import FITTED, Moments, paired_moments
from microtome.surgery.compression.optimal_brain_surgeon import least_squares


def weights_of(net: Network, operation: Operation) -> Tensor:
    """A layer's weights and bias as (groups, outputs of a group, inputs of a group times taps + 1), float64."""
    module = net.model.get_submodule(operation.owner)
    weight = getattr(module, operation.weight).detach().double()
    held = getattr(module, operation.bias or "bias", None) if takes_bias(net, operation) else None
    bias = weight.new_zeros(len(weight)) if held is None else held.detach().double()
    groups = module.groups if isinstance(module, nn.Conv2d) else operation.groups
    rows = weight.reshape(groups, len(weight) // groups, -1)
    return torch.cat([rows, bias.view(groups, -1, 1)], 2)


def put_weights(net: Network, operation: Operation, rows: Tensor) -> None:
    """Write weights in the form of ``weights_of``; a convolution or matrix product without a bias gets one."""
    module = net.model.get_submodule(operation.owner)
    weight = getattr(module, operation.weight)
    with torch.no_grad():
        weight.data.copy_(rows[..., :-1].reshape(weight.shape))
        bias = rows[..., -1].reshape(-1).to(weight)
        if not takes_bias(net, operation):
            return
        held = getattr(module, operation.bias or "bias")
        if held is not None:
            held.data.copy_(bias)
        elif bool(bias.count_nonzero()):
            module.register_parameter("bias", nn.Parameter(bias, requires_grad=weight.requires_grad))


def takes_bias(net: Network, operation: Operation) -> bool:
    """Whether a bias can be written: there is one, or the module is of torch's own kind and has room for it."""
    module = net.model.get_submodule(operation.owner)
    return bool(operation.bias) or (isinstance(module, nn.Conv2d | nn.Linear) and operation.weight == "weight")


def shared(channels: Channels) -> set[str]:
    """Layers whose weights are used more than once in a pass."""
    uses = Counter((operation.owner, operation.weight) for operation in channels.operations.values())
    return {name for name, operation in channels.operations.items() if uses[operation.owner, operation.weight] > 1}


def columns_of(operation: Operation) -> dict[int, Tensor]:
    """For each channel that a layer reads the columns of ``weights_of`` that weigh it (those of a group)."""
    row = operation.read.view(operation.groups, -1)[0]
    taps = torch.arange(operation.area, device="cpu")
    found: dict[int, list[Tensor]] = {}
    for place, channel in enumerate(row.tolist()):
        found.setdefault(channel, []).append(place * operation.area + taps)
    return {channel: torch.cat(parts) for channel, parts in found.items()}


def absorbed(net: Network, operation: Operation, moments: Tensor, gone: Iterable[int], damping: float) -> Tensor:
    """The weights on the channels that stay, fitted so that the layer gives what it gave, (groups, outputs, kept)."""
    whole = weights_of(net, operation).to(moments)
    row = operation.read.view(operation.groups, -1)[0]
    stays = ~torch.isin(row, torch.tensor(sorted(gone), dtype=torch.int64, device="cpu"))
    keep = torch.cat(
        [stays.repeat_interleave(operation.area), torch.ones(1, dtype=torch.bool, device="cpu")]
    ).nonzero()[:, 0]
    kept = moments[:, keep][:, :, keep]
    return least_squares(kept, whole @ moments[:, :, keep], whole[:, :, keep], damping=damping)


def refit(
    net: Network,
    small: Network,
    channels: Channels,
    gone: Iterable[int],
    dataset: Dataset,
    *,
    damping: float,
    batch: int = 64,
    progress: Listener | None = None,
) -> None:
    """Fit the layers that lost inputs one after another, in place, each to what it gave in the whole network.

    What a layer reads already bears the errors of the layers before, which it so corrects as far as it can.
    """
    removed = torch.tensor(sorted(gone), dtype=torch.int64, device="cpu")
    several = shared(channels)
    clock = Clock(progress, len(channels.operations))
    for done, (name, operation) in enumerate(channels.operations.items(), start=1):
        depthwise = operation.groups == len(operation.read) > 1
        touched = bool(torch.isin(operation.read, removed).any())
        if not touched or depthwise or name in several or operation.kind not in FITTED:
            continue
        made = (~torch.isin(operation.made, removed)).nonzero()[:, 0]
        moments = paired_moments(net, small, operation, made, dataset, batch=batch)
        anchor = weights_of(small, operation).to(moments.cross)
        put_weights(small, operation, fitted(small, operation, moments, anchor, damping))
        clock.step(name, done)


def fitted(net: Network, operation: Operation, moments: Moments, anchor: Tensor, damping: float) -> Tensor:
    """New weights of a layer; its bias stays where it cannot be written."""
    if takes_bias(net, operation):
        return least_squares(moments.read, moments.cross, anchor, damping=damping)
    inner = least_squares(moments.read[:, :-1, :-1], moments.cross[:, :, :-1], anchor[:, :, :-1], damping=damping)
    return torch.cat([inner, anchor[:, :, -1:]], 2)
