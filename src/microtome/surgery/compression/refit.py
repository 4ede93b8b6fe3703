"""Least-squares refitting: after a cut, each layer in turn is fitted to its original output."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from microtome.data import Dataset
from microtome.network import Network
from microtome.progress import Clock, Listener
from microtome.surgery.channels.channel_families import Channels, Operation
from microtome.surgery.compression.damping_choice import fitted, summed_parts
from microtome.surgery.compression.fit_targets import Targets, ToFit
from microtome.surgery.compression.fitting_pass import can_go_together, one_pass, read_again
from microtome.surgery.compression.moments import FITTED, Moments
from microtome.surgery.compression.optimal_brain_surgeon import least_squares
from microtome.surgery.held_out import held_out
from microtome.trace.tracing.written_tensors import ours


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
    with torch.no_grad(), ours():
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
    """Whether a bias can be written: there is one, or the module is a torch layer that can have one."""
    module = net.model.get_submodule(operation.owner)
    return bool(operation.bias) or (isinstance(module, nn.Conv2d | nn.Linear) and operation.weight == "weight")


def shared(channels: Channels) -> set[str]:
    """Layers whose weights are used more than once in a pass."""
    uses = Counter((operation.owner, operation.weight) for operation in channels.operations.values())
    return {name for name, operation in channels.operations.items() if uses[operation.owner, operation.weight] > 1}


def columns_of(operation: Operation) -> dict[int, Tensor]:
    """For each input channel of a layer its columns in ``weights_of`` (those of a group)."""
    row = operation.read.view(operation.groups, -1)[0]
    taps = torch.arange(operation.area, device="cpu")
    found: dict[int, list[Tensor]] = {}
    for place, channel in enumerate(row.tolist()):
        found.setdefault(channel, []).append(place * operation.area + taps)
    return {channel: torch.cat(parts) for channel, parts in found.items()}


def absorbed(net: Network, operation: Operation, moments: Tensor, gone: Iterable[int], damping: float) -> Tensor:
    """The weights of the remaining channels, fitted to the layer's original output, (groups, outputs, kept)."""
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
    """Fit the layers behind the first cut one after another, in place, each to its output in the original network.

    A layer reads inputs with the errors of the layers before it and corrects them as far as possible. So layers that
    lost no input are fitted too, and so are depthwise ones, whose kernels correct their own channel.

    All images run through the smaller network together, and each layer is fitted just before it runs. So the network
    runs once, not once for each layer. If the values of all images would take too much memory, images mix, or a value
    does not have one row for each image, there is a separate pass for each layer, batch by batch.
    """
    layers = layers_to_fit(small, channels, gone)
    give_biases(small, layers)
    targets = Targets(net, layers, dataset, batch)
    masks = held_out(dataset).split(batch)
    clock, done = Clock(progress, len(layers)), list[str]()

    def fit(name: str, samples: Iterable[Tensor]) -> None:
        """Fit a layer from its inputs in each batch."""
        triples = ((x, y.to(x), out) for x, y, out in zip(samples, targets.of(name), masks, strict=True))
        seen, other = summed_parts(triples)
        operation = layers[name].operation
        put_weights(small, operation, _fitted(small, operation, seen, other, damping))
        done.append(name)
        clock.step(name, len(done))

    if layers and can_go_together(net, layers, len(dataset)):
        one_pass(small, layers, dataset, batch, fit)
    else:
        for name in layers:
            fit(name, read_again(small, layers[name], dataset, batch))


def layers_to_fit(small: Network, channels: Channels, gone: Iterable[int]) -> dict[str, ToFit]:
    """The layers that can be fitted, from the first that lost an input, in the order they run."""
    removed = torch.tensor(sorted(gone), dtype=torch.int64, device="cpu")
    several = shared(channels)
    found: dict[str, ToFit] = {}
    behind = False
    for name, operation in channels.operations.items():
        behind = behind or bool(torch.isin(operation.read, removed).any())
        if behind and name not in several and operation.kind in FITTED:
            module = small.model.get_submodule(operation.owner)
            weight = getattr(module, operation.weight)
            made = (~torch.isin(operation.made, removed)).nonzero()[:, 0]
            groups = module.groups if isinstance(module, nn.Conv2d) else operation.groups
            found[name] = ToFit(operation, made, weight[0].numel(), groups)
    return found


def give_biases(net: Network, layers: Mapping[str, ToFit]) -> None:
    """Add a zero bias to layers that can have one, before a pass that writes it."""
    for layer in layers.values():
        module = net.model.get_submodule(layer.operation.owner)
        weight = getattr(module, layer.operation.weight)
        if takes_bias(net, layer.operation) and getattr(module, layer.operation.bias or "bias") is None:
            bias = nn.Parameter(weight.new_zeros(len(weight)), requires_grad=weight.requires_grad)
            module.register_parameter("bias", bias)


def _fitted(net: Network, operation: Operation, seen: Moments, other: Moments, damping: float) -> Tensor:
    """New weights of a layer; its bias is kept if it cannot be written."""
    anchor = weights_of(net, operation).to(seen.cross)
    if takes_bias(net, operation):
        return fitted(seen, other, anchor, damping)[0]
    inner = fitted(seen.without_one, other.without_one, anchor[:, :, :-1], damping)[0]
    return torch.cat([inner, anchor[:, :, -1:]], 2)
