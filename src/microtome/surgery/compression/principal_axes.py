"""Channels without a nonlinearity behind them, rotated to principal axes: the same network, easier to cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from microtome.network import Network
from microtome.surgery.channels import removal
from microtome.surgery.channels.channel_families import Channels, Family, Operation
from microtome.surgery.compression.moments import FITTED, Moments, whole
from microtome.surgery.compression.refit import columns_of, put_weights, shared, weights_of
from microtome.trace.operators.operator_calls import Call
from microtome.trace.tracing.tracer import Tracer

_SUMS = ("add", "sub", "identity", "dropout", "clone", "contiguous")
_RIDGE = 1e-3  # share of the mean diagonal added to the metric, so that it can be inverted

_Sums = dict[str, Moments]


@dataclass(frozen=True)
class Linear:
    """Families whose channels reach the layers that read them through sums and batch norms only.

    Attributes
    ----------
    families : list of Family
    sources : dict of str to str
        For each layer that computes such channels: its batch norm's operation, or the layer itself if it has none.
    """

    families: list[Family]
    sources: dict[str, str]


def linear_families(net: Network, channels: Channels, families: Sequence[Family]) -> Linear:
    """Find the families without a nonlinearity between the layers that compute them and those that read them."""
    repeated = frozenset(name.partition("#")[0] for name in net.layers if "#" in name)
    watcher = _Watcher(net.model, channels.operations, repeated)
    with torch.no_grad():
        Tracer(net.model, observer=watcher)(net.normalise(net.probe))
    several = shared(channels)
    found = []
    for family in families:
        names = (*family.makers, *family.readers)
        plain = all(channels.operations[n].groups == 1 and channels.operations[n].kind in FITTED for n in names)
        if plain and several.isdisjoint(names) and watcher.linear.issuperset(family.readers):
            found.append(family)
    makers = [name for family in found for name in family.makers]
    return Linear(found, {name: watcher.norms.get(name, name) for name in makers})


@dataclass
class _Watcher:
    """Notes which layers read sums of other layers' outputs, each behind a batch norm or none."""

    model: nn.Module
    operations: Mapping[str, Operation]
    repeated: Set[str]  # modules that run more than once in a pass
    linear: set[str] = field(default_factory=set)
    norms: dict[str, str] = field(default_factory=dict)
    _values: dict[int, tuple[Tensor, str]] = field(default_factory=dict)  # linear values, each with its layer or "+"

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts: nothing to do."""

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned: nothing to do."""

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        if not isinstance(output, Tensor):
            return
        made = ""
        if call.name in self.operations:
            made = call.name
            if self._from(call.arguments["input"]):
                self.linear.add(call.name)
        elif call.kind == "batch_norm":
            made = "+" if self._normed(call) else ""
        elif call.kind in _SUMS and call.tensors and all(self._from(value) for value in call.tensors):
            made = "+"
        self._values[id(output)] = (output, made)

    def _from(self, value: Tensor) -> str:
        return self._values[id(value)][1] if id(value) in self._values else ""

    def _normed(self, call: Call) -> bool:
        """Whether a batch norm directly follows a layer and has a scale, so that it can be set to pass its input.

        One that runs more than once would have to pass other inputs, too.
        """
        owner = call.name.rpartition("/")[0]
        if owner.partition("#")[0] in self.repeated:
            return False
        module = self.model.get_submodule(owner)
        maker = self._from(call.arguments["input"])
        fits = isinstance(module, _BatchNorm) and module.affine and module.track_running_stats and not module.training
        if not fits or maker not in self.operations or maker in self.norms:
            return False
        self.norms[maker] = call.name
        return True


def along_principal_axes(
    net: Network,
    channels: Channels,
    linear: Linear,
    seen: _Sums,
    held_out: _Sums,
    weight: dict[str, Tensor],
    slope: Mapping[str, Tensor],
) -> tuple[Network, _Sums, _Sums, dict[str, Tensor]]:
    r"""The same network with other axes for the channels of linear families, and its moments and slopes.

    Between linear layers, channels x may be replaced by T x if the layers that read them use :math:`W T^{-1}`: the
    network computes the same. With the covariance C of x and the metric :math:`M = \sum W^T \Lambda W` of the layers
    that read x, the rows of T are the principal axes :math:`U^T M^{1/2}` with the eigenvectors U of
    :math:`M^{1/2} C M^{1/2}`. So the last channels carry the least of what these layers do to the logits, and are
    uncorrelated with the first [1]_ [2]_. Batch norms before the channels are merged into the layers that compute them;
    they stay in the model and pass their input.

    Parameters
    ----------
    net : Network
    channels : Channels
    linear : Linear
    seen, held_out : dict of str to Moments
        Sums over the inputs of the layers.
    weight : dict of str to Tensor
        The influence of each layer's outputs.
    slope : mapping of str to Tensor
        Second moments of the slopes at ``linear.sources``.

    Returns
    -------
    network, seen, held_out, weight
        Those given if the logits of the new network differ from the old ones by more than rounding.

    References
    ----------
    .. [1] Ashkboos et al. SliceGPT: compress large language models by deleting rows and columns. ICLR 2024.
    .. [2] Izenman. Reduced-rank regression for the multivariate linear model. J. Multivariate Analysis 1975.
    """
    turned, moved = removal.beside(net, removal.copied(net)), (dict(seen), dict(held_out))
    influence = dict(weight)
    for family in linear.families:
        forth, back = _axes(net, channels, family, seen, held_out, weight)
        for name in family.makers:
            read = whole(seen[name], held_out.get(name)).read
            _make(net, turned, channels.operations[name], family, forth, linear.sources[name], read)
            places = _places(channels.operations[name], family).to(back.device)
            mine = slope[name].index_select(0, places).index_select(1, places)
            influence[name] = influence[name].index_copy(0, places, ((mine @ back) * back).sum(0))
        for name in family.readers:
            operation = channels.operations[name]
            rows = weights_of(turned, operation)
            for taps in _columns(operation, family).T.to(rows.device):
                rows[:, :, taps] = rows[:, :, taps] @ back
            put_weights(turned, operation, rows)
            for sums in moved:
                if name in sums:
                    sums[name] = _turned(sums[name], _columns(operation, family), forth)
    probe = torch.rand(
        (2, *net.input_shape), generator=torch.Generator().manual_seed(2), dtype=torch.float32, device="cpu"
    ).to(net.device)
    before, after = (one.logits(probe, check=False) for one in (net, turned))
    if float((before - after).abs().max()) > removal.tolerance(net) * max(1.0, float(before.abs().max())):
        return net, seen, held_out, weight
    return turned, moved[0], moved[1], influence


def _axes(
    net: Network, channels: Channels, family: Family, seen: _Sums, held_out: _Sums, weight: Mapping[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """T and its inverse: (channels, channels), the most important axis first."""
    count = len(family.channels)
    covariance = metric = weights_of(net, channels.operations[family.readers[0]]).new_zeros(count, count)
    for name in family.readers:
        operation = channels.operations[name]
        read, rows = whole(seen[name], held_out.get(name)).read[0].double(), weights_of(net, operation)[0]
        for taps in _columns(operation, family).T.to(rows.device):
            mean = read[taps, -1]
            covariance = covariance + read[taps][:, taps] - mean[:, None] * mean
            metric = metric + operation.positions * rows[:, taps].T @ (weight[name][:, None] * rows[:, taps])
    level, basis = torch.linalg.eigh(
        metric + _RIDGE * metric.diagonal().mean() * torch.eye(count, dtype=metric.dtype, device=metric.device)
    )
    root, inverse = (basis * level.sqrt()) @ basis.T, (basis / level.sqrt()) @ basis.T
    turn = torch.linalg.eigh(root @ covariance @ root).eigenvectors.flip(1)
    return turn.T @ root, inverse @ turn


def _make(
    net: Network, turned: Network, operation: Operation, family: Family, forth: Tensor, source: str, read: Tensor
) -> None:
    """Let a layer compute the new channels; its batch norm then passes them."""
    places = _places(operation, family).to(forth.device)
    rows = weights_of(turned, operation)
    if source == operation.name:
        rows[0].index_copy_(0, places, forth @ rows[0, places])
        put_weights(turned, operation, rows)
        return
    norm = turned.model.get_submodule(source.rpartition("/")[0])
    mean, variance, scale, shift = (
        getattr(norm, key).detach().double()[places] for key in ("running_mean", "running_var", "weight", "bias")
    )
    scale = scale / (variance + norm.eps).sqrt()
    shift = forth @ (shift + scale * (rows[0, places, -1] - mean))
    mix = forth * scale
    before = mix @ weights_of(net, operation)[0, places, :-1]
    after = mix @ rows[0, places, :-1]
    rows[0].index_copy_(0, places, torch.cat([after, torch.zeros_like(shift)[:, None]], 1))
    put_weights(turned, operation, rows)
    read = read[0].double()
    middle = before @ read[:-1, -1]
    spread = ((before @ read[:-1, :-1]) * before).sum(1) - middle.square()
    new = {"running_mean": middle, "running_var": spread.clamp(min=0), "bias": middle + shift}
    new["weight"] = (new["running_var"] + norm.eps).sqrt()
    with torch.no_grad():
        for key, value in new.items():
            held = getattr(norm, key)
            held.data.index_copy_(0, places, value.to(held))


def _places(operation: Operation, family: Family) -> Tensor:
    """The outputs of a layer that are the channels of a family, in the family's order."""
    made = operation.made.tolist()
    return torch.tensor([made.index(channel) for channel in family.channels], device="cpu")


def _columns(operation: Operation, family: Family) -> Tensor:
    """The columns of the channels of a family in ``weights_of``, (channels, taps)."""
    columns = columns_of(operation)
    return torch.stack([columns[channel] for channel in family.channels])


def _turned(sums: Moments, columns: Tensor, forth: Tensor) -> Moments:
    read, matrix = sums.read.clone(), forth.to(sums.read)
    for taps in columns.T.to(read.device):
        read[:, taps] = matrix @ read[:, taps]
        read[:, :, taps] = read[:, :, taps] @ matrix.T
    return Moments(read, sums.cross, sums.samples)
