"""Which units feed a unit, and which does it feed? The strongest weights between layers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, provenance
from microtome.units.streaming import streaming_pass
from microtome.units.wiring.channel_sources import Branch, Strengths, Weighted, Wiring, wiring


class Link(NamedTuple):
    """One connection: the unit at the other end, the kernel's sum and its norm."""

    layer: str
    unit: int
    weight: float
    norm: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Connections(Result):
    """The strongest connections of a layer's units.

    Attributes
    ----------
    layer : str
        The layer.
    units : list of int
        The units looked at.
    links_in, links_out : list of list
        By unit, strongest first: [layer, unit, weight, norm] of each connection. The image's channels
        are units of the layer ``"input"``.
    unknown : str
        Why connections may be missing; empty where all are known.
    """

    layer: str
    units: list[int]
    links_in: list[list[list[str | int | float]]]
    links_out: list[list[list[str | int | float]]]
    unknown: str

    def inputs(self, unit: int, n: int = 5) -> list[Link]:
        """The strongest connections into a unit."""
        return [Link(*row) for row in self.links_in[self._row(unit)][:n]]  # type: ignore[arg-type]  # as written below

    def outputs(self, unit: int, n: int = 5) -> list[Link]:
        """The strongest connections out of a unit."""
        return [Link(*row) for row in self.links_out[self._row(unit)][:n]]  # type: ignore[arg-type]  # as written below

    def _row(self, unit: int) -> int:
        if unit not in self.units:
            raise InputError(
                f'the connections of unit {unit} of "{self.layer}" were not read; these were: {self.units[:20]}.'
            )
        return self.units.index(unit)


@register("connections", rows=("G1",), paper="olah2020zoom", needs="weights before or after the layer", kind="units")
def connections(net: Network, layer: str, units: Sequence[int] | None = None, *, most: int = 20) -> Connections:
    r"""List the strongest inputs and outputs of a layer's units, by the kernels between layers.

    For output unit u and input channel j with the kernel :math:`W_{uj}` (kh x kw taps; one for a
    linear map), ``norm`` is :math:`\lVert W_{uj} \rVert_2` and ``weight`` the signed sum of its taps
    (the weight itself where there is one tap) [1]_. Channels are followed through activation
    functions, normalisation, pooling, padding, dropout and flattening to the layer whose weights made
    them; a linear map after flattening has one tap per position. In a residual stream every layer
    that adds to a channel is a source of it, and every layer that reads the stream is fed.

    Parameters
    ----------
    net : Network
        The network.
    layer : str
        A layer with weights, or one whose units come from such a layer (its ReLU, its batch norm).
    units : sequence of int, optional
        The units; default all.
    most : int
        Connections kept of each unit at either end.

    Returns
    -------
    Connections
        ``.inputs(unit)``, ``.outputs(unit)``: links (layer, unit, weight, norm), strongest first.

    Raises
    ------
    LayerError
        When it is not known which weights make the layer's units.
    InputError
        When a unit does not exist.

    Notes
    -----
    Cost: one forward pass. What it does not show: normalisation between the layers scales the
    weights, and a strong weight from a unit that is silent brings nothing; see ``units.dissect``.

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
    >>> found = connections(Network(model, (2, 1, 1)), "1")
    >>> found.inputs(0, n=1), found.outputs(1)
    ([Link(layer='input', unit=1, weight=-2.0, norm=2.0)], [Link(layer='3', unit=0, weight=-1.0, norm=1.0)])
    """
    found = net.layer(layer)
    chosen = list(range(found.units)) if units is None else [int(unit) for unit in units]
    for unit in chosen:
        if not 0 <= unit < found.units:
            raise InputError(f'unit {unit} does not exist: "{layer}" has units 0 to {found.units - 1}.')
    wires = wiring(net)
    branches = [branch for branch in wires.origin.get(found.operation, []) if len(branch.unit) == found.units]
    if not branches:
        raise LayerError(
            f'it is not known which weights make the units of "{layer}": their channels are rearranged on the way, '
            "or no weights come before. Choose the layer that holds the weights."
        )
    names = _names(net, wires)
    unknown = sorted({names[index] for index, one in enumerate(wires.weighted) if not _complete(one)})
    into = _inputs(wires, branches, names, chosen, most)
    out = _outputs(wires, branches, names, chosen, most, wires.after[found.operation])
    why = (
        f"the channels that {', '.join(unknown[:5])} reads are rearranged on the way and not followed"
        if unknown
        else ""
    )
    return Connections(
        provenance=provenance(net, "connections", layer=found.name, most=most),
        layer=found.name,
        units=chosen,
        links_in=[[list(link) for link in rows] for rows in into],
        links_out=[[list(link) for link in rows] for rows in out],
        unknown=why,
    )


def _names(net: Network, wires: Wiring) -> dict[int, str]:
    """The layer's name of every weighted operation; -2 is the image."""
    public = {one.operation: one.name for one in net.layers.values()}
    public |= {net.layer(name).operation: name for name in streaming_pass.computing_layers(net)}
    return {-2: "input"} | {index: public.get(one.name, one.name) for index, one in enumerate(wires.weighted)}


def _complete(one: Weighted) -> bool:
    inputs = one.weight.shape[1] * one.groups
    fitting = [branch for branch in one.reads if len(branch.unit) == inputs and bool((branch.made_by != -1).any())]
    return bool(fitting)


Maker = tuple[int, int]  # a weighted operation and its unit


def _inputs(
    wires: Wiring, branches: list[Branch], names: dict[int, str], units: list[int], most: int
) -> list[list[Link]]:
    """Connections into the operations that make each unit; a sum's own terms, where several do."""
    makers = [_makers(branches, unit) for unit in units]
    known: dict[int, list[Strengths]] = {}
    for maker in {maker for row in makers for maker, _ in row if len(row) == 1 and maker >= 0}:
        one = wires.weighted[maker]
        known[maker] = [found for found in map(one.strengths, one.reads) if found is not None]
    found = []
    for row in makers:
        if len(row) > 1:
            links = [Link(names[maker], unit, 1.0, 1.0) for maker, unit in row]
        else:
            links = [
                Link(names[table.sources[column][0]], table.sources[column][1], weight, norm)
                for maker, unit in row
                for table in known.get(maker, [])
                for column, weight, norm in _strongest(table.total[unit], table.norm[unit], most)
                if table.sources[column][0] != -1
            ]
        found.append(sorted(links, key=lambda link: -link.norm)[:most])
    return found


def _outputs(
    wires: Wiring, branches: list[Branch], names: dict[int, str], units: list[int], most: int, after: int
) -> list[list[Link]]:
    """Connections of every unit into the later operations that read it, strongest first."""
    makers = [_makers(branches, unit) for unit in units]
    own = {maker for row in makers for maker in row}
    found: list[set[Link]] = [set() for _ in units]
    for index, one in enumerate(wires.weighted[after:], start=after):
        for branch in one.reads:
            if not {maker for maker, _ in own} & set(branch.made_by.tolist()):
                continue
            table = one.strengths(branch)
            place = {} if table is None else {source: column for column, source in enumerate(table.sources)}
            for row, column in (
                (row, place[maker]) for row, some in enumerate(makers) for maker in some if maker in place
            ):
                assert table is not None  # noqa: S101 - it gave the places
                best = _strongest(table.total[:, column], table.norm[:, column], most)
                found[row] |= {Link(names[index], unit, weight, norm) for unit, weight, norm in best}
    return [sorted(links, key=lambda link: (-link.norm, link.layer, link.unit))[:most] for links in found]


def _makers(branches: list[Branch], unit: int) -> list[Maker]:
    """What a unit is made by, one per branch."""
    found = [(int(branch.made_by[unit]), int(branch.unit[unit])) for branch in branches]
    return [maker for maker in dict.fromkeys(found) if maker[0] != -1]


def _strongest(total: Tensor, norm: Tensor, most: int) -> list[tuple[int, float, float]]:
    """Index, sum and norm of the largest norms; what is not connected has norm 0 and is left out."""
    best = norm.topk(min(most, len(norm)))
    return [
        (index, weight, value)
        for index, weight, value in zip(
            best.indices.tolist(), total[best.indices].tolist(), best.values.tolist(), strict=True
        )
        if value > 0
    ]
