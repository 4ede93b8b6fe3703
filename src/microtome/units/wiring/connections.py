"""Connections of units: the strongest weights into and out of each unit of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, stated
from microtome.units.streaming import streaming_pass
from microtome.units.wiring.channel_dependence import IMAGE, NONE, UNKNOWN, Branch
from microtome.units.wiring.channel_sources import Strengths, Weighted, Wiring, wiring


class Link(NamedTuple):
    """One connection: the unit at the other end, the sum and the norm of the kernel."""

    layer: str
    unit: int
    weight: float
    norm: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Connections(Result, drawing="units.unit_figures:connections"):
    """The strongest connections of a layer's units.

    Attributes
    ----------
    layer : str
        The layer.
    units : list of int
        Indices of the units.
    links_in, links_out : list of list
        By unit, strongest first: [layer, unit, weight, norm] of each connection. The image's channels
        are units of the layer ``"input"``.
    unknown : str
        The reason if connections may be missing; otherwise empty.
    """

    layer: str
    units: list[int]
    links_in: list[list[list[str | int | float]]]
    links_out: list[list[list[str | int | float]]]
    unknown: str

    def inputs(self, unit: int, k: int = 5) -> list[Link]:
        """The strongest connections into a unit."""
        return [Link(*row) for row in self.links_in[self._row(unit)][:k]]  # type: ignore[arg-type]  # as written below

    def outputs(self, unit: int, k: int = 5) -> list[Link]:
        """The strongest connections out of a unit."""
        return [Link(*row) for row in self.links_out[self._row(unit)][:k]]  # type: ignore[arg-type]  # as written below

    def _row(self, unit: int) -> int:
        if unit not in self.units:
            raise InputError(
                f'there are no connections of unit {unit} of "{self.layer}"; there are those of {self.units[:20]}.'
            )
        return self.units.index(unit)


@register("connections", rows=("G1",), paper="olah2020zoom", needs="weights before or after the layer", kind="units")
def connections(net: Network, layer: str, *, units: Sequence[int] | None = None, k: int = 20) -> Connections:
    r"""List the strongest inputs and outputs of a layer's units, by the kernels between layers.

    For output unit u and input channel j with the kernel :math:`W_{uj}` (kh x kw taps; one for a
    linear map), ``norm`` is :math:`\lVert W_{uj} \rVert_2` and ``weight`` is the signed sum of its taps
    (with one tap, the weight itself) [1]_. Channels are traced back to the layer whose weights compute them:
    through activation functions and normalisation, and through every operation whose output channels each depend on one
    channel alone (pooling, padding, flattening, shuffles, indices), found by exchanging the channels that it reads. A
    linear map after flattening has one tap per position. In a residual stream, every layer that adds to
    a channel is a source of it, and every layer that reads the stream is an output.

    Parameters
    ----------
    net : Network
        The network.
    layer : str
        A layer with weights, or a layer whose units come from such a layer (ReLU, batch norm).
    units : sequence of int, optional
        Indices of the units; default all.
    k : int
        Largest number of inputs and of outputs of each unit.

    Returns
    -------
    Connections
        ``.inputs(unit)``, ``.outputs(unit)``: links (layer, unit, weight, norm), strongest first.

    Raises
    ------
    LayerError
        When the weights that compute the layer's units are unknown.
    InputError
        When a unit does not exist.

    Notes
    -----
    Cost: the first call for a network's weights takes the time of 2 to 50 forward passes. What it does not show:
    normalisation between the layers, which scales the weights, and the activation of the source; see ``units.dissect``.

    References
    ----------
    .. [1] Olah, Cammarata, Schubert, Goh, Petrov, Carter. Zoom in: an introduction to circuits.
       Distill 2020.

    Examples
    --------
    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(2, 2), torch.nn.ReLU(), torch.nn.Linear(2, 1))
    >>> _ = model[1].weight.data.copy_(torch.tensor([[1.0, -2.0], [0.5, 0.25]]))
    >>> _ = model[3].weight.data.copy_(torch.tensor([[3.0, -1.0]]))
    >>> result = connections(Network(model, (2, 1, 1)), "1")
    >>> result.inputs(0, k=1), result.outputs(1)
    ([Link(layer='input', unit=1, weight=-2.0, norm=2.0)], [Link(layer='3', unit=0, weight=-1.0, norm=1.0)])
    """
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}.")
    info = net.layer(layer)
    indices = list(range(info.units)) if units is None else [int(unit) for unit in units]
    for unit in indices:
        if not 0 <= unit < info.units:
            raise InputError(f'unit {unit} does not exist: "{layer}" has units 0 to {info.units - 1}.')
    wires = wiring(net)
    branches = [branch for branch in wires.origin.get(info.operation, []) if len(branch.unit) == info.units]
    if not branches:
        raise LayerError(
            f'the weights that compute the units of "{layer}" are unknown: an operation rearranges their channels, '
            "or there are no weights before the layer. Choose the layer that has the weights."
        )
    names = _names(net, wires)
    unknown = sorted({names[index] for index, one in enumerate(wires.weighted) if not _complete(one)})
    links_in = _inputs(wires, branches, names, indices, k)
    links_out = _outputs(wires, branches, names, indices, k, wires.after[info.operation])
    reason = f"the sources of the input channels of {', '.join(unknown[:5])} are unknown" if unknown else ""
    return Connections(
        provenance=stated(layer=info.name),
        layer=info.name,
        units=indices,
        links_in=[[list(link) for link in rows] for rows in links_in],
        links_out=[[list(link) for link in rows] for rows in links_out],
        unknown=reason,
    )


def _names(net: Network, wires: Wiring) -> dict[int, str]:
    """The name of the layer of every weighted operation, and of the image."""
    public = {one.operation: one.name for one in net.layers.values()}
    public |= {net.layer(name).operation: name for name in streaming_pass.computing_layers(net)}
    return {IMAGE: "input"} | {index: public.get(one.name, one.name) for index, one in enumerate(wires.weighted)}


def _complete(one: Weighted) -> bool:
    inputs = one.weight.shape[1] * one.groups
    fitting = [branch for branch in one.reads if len(branch.unit) == inputs]
    return bool(fitting) and all(bool((branch.source != UNKNOWN).all()) for branch in fitting)


Source = tuple[int, int]  # a weighted operation and its unit


def _inputs(wires: Wiring, branches: list[Branch], names: dict[int, str], units: list[int], k: int) -> list[list[Link]]:
    """Connections into the source of each unit; for a unit with several sources (a sum), the sources themselves."""
    sources = [_sources(branches, unit) for unit in units]
    known: dict[int, list[Strengths]] = {}
    for source in {source for row in sources for source, _ in row if len(row) == 1 and source >= 0}:
        one = wires.weighted[source]
        known[source] = [table for table in map(one.strengths, one.reads) if table is not None]
    result = []
    for row in sources:
        if len(row) > 1:
            links = [Link(names[source], unit, 1.0, 1.0) for source, unit in row]
        else:
            links = [
                Link(names[table.sources[column][0]], table.sources[column][1], weight, norm)
                for source, unit in row
                for table in known.get(source, [])
                for column, weight, norm in _strongest(table.total[unit], table.norm[unit], k)
                if table.sources[column][0] in names
            ]
        result.append(sorted(links, key=lambda link: -link.norm)[:k])
    return result


def _outputs(
    wires: Wiring, branches: list[Branch], names: dict[int, str], units: list[int], k: int, after: int
) -> list[list[Link]]:
    """Connections of every unit into later operations, strongest first."""
    sources = [_sources(branches, unit) for unit in units]
    operations = {operation for row in sources for operation, _ in row}
    result: list[set[Link]] = [set() for _ in units]
    for index, one in enumerate(wires.weighted[after:], start=after):
        for branch in one.reads:
            if not operations & set(branch.source.tolist()):
                continue
            table = one.strengths(branch)
            place = {} if table is None else {source: column for column, source in enumerate(table.sources)}
            for row, column in (
                (row, place[source]) for row, some in enumerate(sources) for source in some if source in place
            ):
                assert table is not None  # noqa: S101 - place is empty without a table
                best = _strongest(table.total[:, column], table.norm[:, column], k)
                result[row] |= {Link(names[index], unit, weight, norm) for unit, weight, norm in best}
    return [sorted(links, key=lambda link: (-link.norm, link.layer, link.unit))[:k] for links in result]


def _sources(branches: list[Branch], unit: int) -> list[Source]:
    """The sources of a unit, one per branch."""
    sources = [(int(branch.source[unit]), int(branch.unit[unit])) for branch in branches]
    return [source for source in dict.fromkeys(sources) if source[0] not in (UNKNOWN, NONE)]


def _strongest(total: Tensor, norm: Tensor, k: int) -> list[tuple[int, float, float]]:
    """Index, sum and norm of the largest norms, without zeros (no connection)."""
    best = norm.topk(min(k, len(norm)))
    return [
        (index, weight, value)
        for index, weight, value in zip(
            best.indices.tolist(), total[best.indices].tolist(), best.values.tolist(), strict=True
        )
        if value > 0
    ]
