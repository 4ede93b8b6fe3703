"""Pairs of layers without a nonlinearity between them, and the units that such a pair does not need."""

from __future__ import annotations

from typing import Any

import torch
from scipy.linalg import qr
from torch import Tensor, nn

from microtome.network import Network
from microtome.surgery.channels import removal
from microtome.surgery.channels.channel_families import Channels, Family
from microtome.surgery.compression.moments import FITTED
from microtome.surgery.compression.refit import columns_of, put_weights, takes_bias, weights_of
from microtome.trace.operators.operator_calls import Call
from microtome.trace.tracing.tracer import Tracer

_RANK = 1e-10  # relative threshold of linear independence, in float64


class _Values:
    """Keeps inputs and outputs of layers in one pass."""

    def __init__(self, channels: Channels) -> None:
        self.channels = channels
        self.read: dict[str, Tensor] = {}
        self.made: dict[str, Tensor] = {}

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """A module starts: nothing to do."""

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """A module has returned: nothing to do."""

    def operation(self, call: Call, output: Any) -> None:
        """An operation has run."""
        if call.name in self.channels.operations:
            self.read[call.name] = call.arguments["input"].detach().clone()
            self.made[call.name] = output.detach().clone()


def followers(net: Network, channels: Channels) -> dict[str, str]:
    """For each layer the layer that alone reads its unchanged output.

    Tested on random images: the input of its only reader equals the layer's output, element by element.
    """
    values = _Values(channels)
    probe = torch.rand(
        (2, *net.input_shape), generator=torch.Generator().manual_seed(1), dtype=torch.float32, device="cpu"
    ).to(net.device)
    with torch.no_grad():
        Tracer(net.model, observer=values)(net.normalise(probe))
    found: dict[str, str] = {}
    for family in channels.families.values():
        if len(family.makers) != 1 or len(family.readers) != 1 or family.pinned:
            continue
        maker, reader = family.makers[0], family.readers[0]
        plain = channels.operations[maker].groups == channels.operations[reader].groups == 1
        one, two = values.made[maker], values.read[reader]
        whole = channels.operations[reader].kind in FITTED and channels.operations[maker].kind in FITTED
        if plain and whole and one.shape == two.shape and torch.equal(one, two):
            found[maker] = reader
    return found


def merged(
    net: Network, channels: Channels, family: Family, link: dict[str, str]
) -> tuple[list[int], Network, int] | None:
    """Units between two linear layers whose outgoing weights combine those of others.

    Returns the removed channels, the smaller network and the number of remaining channels; None if there are none. With
    the outgoing weights V, V_gone = V_kept C: C times the incoming weights of removed units is added to those of the
    kept units.
    """
    maker = family.makers[0]
    if len(family.makers) != 1 or maker not in link or not takes_bias(net, channels.operations[maker]):
        return None
    first, then = channels.operations[maker], channels.operations[link[maker]]
    columns = columns_of(then)
    if any(channel not in columns for channel in family.channels) or then.read.tolist() != first.made.tolist():
        return None
    outgoing = weights_of(net, then)[0]
    matrix = torch.stack([outgoing[:, columns[channel]].reshape(-1) for channel in family.channels], 1)  # (out, units)
    _, triangle, pivots = qr(matrix.cpu().numpy(), mode="economic", pivoting=True)
    size = abs(triangle.diagonal())
    rank = max(1, int((size > _RANK * size[0]).sum()))
    if rank == len(family.channels):
        return None
    kept, gone = sorted(pivots[:rank].tolist()), sorted(pivots[rank:].tolist())
    combine = torch.linalg.lstsq(matrix[:, kept], matrix[:, gone]).solution  # (kept, gone)
    model = removal.beside(net, removal.copied(net))
    rows = weights_of(net, first)
    rows[0, kept] += combine @ rows[0, gone]
    put_weights(model, first, rows)
    removed = [family.channels[place] for place in gone]
    return removed, removal.without(model, channels, removed), rank
