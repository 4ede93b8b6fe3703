"""Removal of whole channels: a smaller copy of a model, checked against the model with the same ones masked."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from microtome.data import Dataset, batches
from microtome.errors import InputError, MicrotomeError, ModelError
from microtome.network import Network
from microtome.surgery.channels.channel_families import Channels, Family
from microtome.surgery.channels.channel_map import channels_of

_TOLERANCE = 1e-4  # of the largest logit: rounding differences of reordered sums in float32
_DOUBLE = 1e-9  # the same in float64


@dataclass(frozen=True)
class Prunable:
    """A network, its channels, and which of them can be removed.

    Attributes
    ----------
    net : Network
    channels : Channels
    families : dict of str to Family
        The families that can be removed, by name.
    refused : dict of str to str
        Why the others cannot, by name.
    """

    net: Network
    channels: Channels
    families: dict[str, Family]
    refused: dict[str, str]

    def family(self, layer: str) -> Family:
        """The family of channels that a layer computes.

        Raises
        ------
        InputError
            When they cannot be removed, or the layer computes none.
        """
        for name, family in self.families.items():
            if name == layer or layer in self._owners(family):
                return family
        for name, family in self.channels.families.items():
            if name == layer or layer in self._owners(family):
                raise InputError(f'the channels of layer "{layer}" cannot be removed: {self.refused[name]}.')
        self.net.layer(layer)
        known = ", ".join(self.families)
        raise InputError(f'layer "{layer}" computes no channels of its own. Layers that do: {known or "none"}.')

    def _owners(self, family: Family) -> list[str]:
        return [self.channels.operations[name].owner for name in family.makers]


def prunable(net: Network) -> Prunable:
    """Find the channels of a network that can be removed, and verify it by removing one of each family.

    The smaller network must give the scores of the network in which the same channels are masked, on random
    images. A family that fails, because its size is hard-coded in the model, is left out.

    Raises
    ------
    ModelError
        When the model cannot be copied.
    """
    size = (max(2, net.graph.batch), *net.input_shape)
    probe = torch.rand(size, generator=torch.Generator().manual_seed(0), dtype=torch.float32, device="cpu").to(
        net.device
    )
    channels = channels_of(net.model, net.normalise(net.probe))
    free = [family for family in channels.free if len(family.channels) > 1]
    refused = {name: family.pinned for name, family in channels.families.items() if family.pinned}
    refused |= {family.name: "it is the only one" for family in channels.free if len(family.channels) == 1}
    good = _proven(net, channels, free, probe, refused)
    return Prunable(net, channels, {family.name: family for family in free if family.name in good}, refused)


def _proven(net: Network, channels: Channels, free: list[Family], probe: Tensor, refused: dict[str, str]) -> set[str]:
    """The families that can be removed: first all are tried together, after a failure each half."""
    if not free:
        return set()
    reason = _trial(net, channels, [family.channels[-1] for family in free], probe)
    if not reason:
        return {family.name for family in free}
    if len(free) == 1:
        refused[free[0].name] = reason
        return set()
    half = len(free) // 2
    return _proven(net, channels, free[:half], probe, refused) | _proven(net, channels, free[half:], probe, refused)


def _trial(net: Network, channels: Channels, gone: list[int], probe: Tensor) -> str:
    """Why these channels cannot be removed; empty if they can."""
    try:
        small = without(net, channels, gone)
        found = small.logits(probe, check=False)
    except MicrotomeError as error:
        return f"the smaller model does not run, because a size is hard-coded ({error})"
    expected = masked(net, channels, gone).logits(probe, check=False)
    away = float((found - expected).abs().max())
    if not away <= tolerance(net) * max(1.0, float(expected.abs().max())):
        return f"the scores of the smaller model and of the masked one differ (by {away:.2g})"
    return ""


def tolerance(net: Network) -> float:
    """The allowed rounding difference of reordered sums, as a share of the largest logit."""
    return _DOUBLE if net.dtype == torch.float64 else _TOLERANCE


def wrapped(net: Network, model: nn.Module) -> Network:
    """A network with another model and the same images, classes and head; the model is read again."""
    return net.around(model.eval())


def beside(net: Network, model: nn.Module) -> Network:
    """A network with another model of the same layers in other sizes, only to run it; layer shapes stay."""
    other = copy.copy(net)
    other.model = model.eval()
    other._fingerprint = ""
    return other


def copied(net: Network) -> nn.Module:
    """A copy of the model that may be changed.

    Raises
    ------
    ModelError
        When it cannot be copied.
    """
    try:
        model = copy.deepcopy(net.model)
    except (TypeError, RuntimeError) as error:
        raise ModelError(f"the model {net.name} cannot be copied, so no channel can be removed: {error}") from error
    return model


def without(net: Network, channels: Channels, gone: Iterable[int]) -> Network:
    """The network without some channels: every weight, bias and norm has fewer entries; no masks, no zeros.

    Raises
    ------
    InputError
        When a layer would keep no channel.
    """
    model = copied(net)
    removed = torch.tensor(sorted(gone), dtype=torch.int64, device="cpu")
    kept: dict[tuple[str, str], Tensor] = {}
    for slot in channels.slots:
        stays = ~torch.isin(slot.channels, removed)
        if bool(stays.all()):
            continue
        if not bool(stays.any()):
            what = slot.owner or slot.key
            raise InputError(
                f'layer "{what}" would keep no channel; leave at least one of its {len(stays)}, '
                "or remove the whole layer with surgery.without."
            )
        module = model.get_submodule(slot.owner)
        tensor = kept.get((slot.owner, slot.key), getattr(module, slot.key))
        index = stays.nonzero()[:, 0].to(tensor.device)
        kept[slot.owner, slot.key] = tensor.detach().index_select(slot.axis, index)
    for (owner, key), value in kept.items():
        _put(model.get_submodule(owner), key, value)
    for slot in channels.slots:
        if (slot.owner, slot.key) in kept:
            _resize(model.get_submodule(slot.owner), slot.key, slot.depth)
    return beside(net, model)


def masked(net: Network, channels: Channels, gone: Iterable[int]) -> Network:
    """The network with unchanged sizes and masked channels: the weights that read them are zero."""
    model = copied(net)
    removed = torch.tensor(sorted(gone), dtype=torch.int64, device="cpu")
    with torch.no_grad():
        for slot in channels.slots:
            if slot.reads:
                tensor = getattr(model.get_submodule(slot.owner), slot.key)
                index = torch.isin(slot.channels, removed).nonzero()[:, 0].to(tensor.device)
                tensor.data.index_fill_(slot.axis, index, 0)
    return beside(net, model)


def _put(module: nn.Module, key: str, value: Tensor) -> None:
    """Replace one parameter or buffer; a shared one was replaced in the first module that holds it."""
    old = getattr(module, key)
    new = value.contiguous()
    if isinstance(old, nn.Parameter):
        module._parameters[key] = nn.Parameter(new, requires_grad=old.requires_grad)
    else:
        module._buffers[key] = new


def _resize(module: nn.Module, key: str, depth: int) -> None:
    """Set the size attributes of a torch module."""
    value = getattr(module, key)
    if key != "weight":
        return
    if isinstance(module, nn.modules.conv._ConvNd):
        if depth:
            module.groups = value.shape[0] // depth
        outputs, inputs = (1, 0) if module.transposed else (0, 1)
        module.out_channels = value.shape[outputs]
        module.in_channels = value.shape[inputs] * module.groups
    elif isinstance(module, nn.Linear):
        module.out_features, module.in_features = value.shape
    elif isinstance(module, nn.modules.batchnorm._NormBase):
        module.num_features = value.shape[0]
    elif isinstance(module, nn.PReLU):
        module.num_parameters = value.shape[0]


def largest_change(net: Network, small: Network, dataset: Dataset, *, batch: int = 64) -> float:
    """The largest change of any logit of any image of a data set."""
    found = 0.0
    for _, images, _ in batches(dataset, batch):
        difference = net.logits(images, batch=batch) - small.logits(images, batch=batch)
        found = max(found, float(difference.abs().max()))
    return found
