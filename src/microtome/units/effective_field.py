"""Which part of its receptive field does a unit use? The share of the gradient, pixel by pixel."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, provenance
from microtome.units.reconstruct import one_hot_seed
from microtome.units.streaming.crops import Box
from microtome.units.streaming.patch_tables import LayerPatches


@dataclass(frozen=True, eq=False, kw_only=True)
class EffectiveField(Result):
    """Where the activations of one unit's patches depend on the picture.

    Attributes
    ----------
    layer : str
        The layer.
    unit : int
        The unit.
    share : float
        The share of the gradient that a box spans on either axis.
    weight : Tensor
        (k, H, W) share of ``|gradient|``, summed over colours; sums to 1 (to 0 where there is no gradient).
    boxes : Tensor
        (k, 4) top, left, bottom, right (exclusive).
    """

    layer: str
    unit: int
    share: float
    weight: Tensor
    boxes: Tensor

    def box(self, rank: int) -> Box:
        """The effective field of one patch."""
        top, left, bottom, right = self.boxes[rank].tolist()
        return top, left, bottom, right


@register("effective-field", rows=("D2",), paper="luo2016understanding", needs="top patches of the layer", kind="units")
def effective_field(
    net: Network, patches: LayerPatches, unit: int, *, ranks: int = 9, share: float = 0.95
) -> EffectiveField:
    r"""Measure how much of a large receptive field a unit uses on its top patches [1]_.

    With :math:`w(p) = |\partial f_u(x; i, j) / \partial x_p| \big/ \sum_p |\cdot|` the box leaves out
    (1 - share) / 2 of w above, below, left and right of it. Meant for layers whose field exceeds the
    picture, and for gated ones, where the rectangle of ``net.layer(name).field`` says little.

    Parameters
    ----------
    net : Network
        The network.
    patches : LayerPatches
        One layer's table.
    unit : int
        The unit.
    ranks : int
        How many of its patches.
    share : float
        In (0, 1].

    Returns
    -------
    EffectiveField
        ``.boxes`` (k, 4), ``.weight`` (k, H, W).

    Raises
    ------
    InputError
        When the share is not in (0, 1] or the unit does not exist.

    Notes
    -----
    Cost: one pass forward and back per patch. What it does not show: what a unit would react to under
    larger changes than the gradient's.

    References
    ----------
    .. [1] Luo, Li, Urtasun, Zemel. Understanding the effective receptive field in deep convolutional
       neural networks. NeurIPS 2016.
    """
    if not 0 < share <= 1:
        raise InputError(f"a share lies in (0, 1], got {share}.")
    entries = [patches.entry(unit, rank) for rank in range(min(ranks, patches.kept()))]
    entries = [entry for entry in entries if entry[0] >= 0]
    pictures, _ = patches.pictures.fetch(torch.tensor([entry[0] for entry in entries]))

    def one_hot(value: Tensor) -> Tensor:
        return one_hot_seed(net.layer(patches.layer), value, [(unit, entry[1]) for entry in entries])

    record = net.run(pictures, record="input", gradient=True, output_layer=patches.layer, grad_output=one_hot)
    weight = record.gradient["input"].abs().sum(1).double().cpu()
    total = weight.sum((1, 2), keepdim=True)
    weight = torch.where(total > 0, weight / total.where(total > 0, torch.ones_like(total)), 0.0)
    return EffectiveField(
        provenance=provenance(net, "effective-field", layer=patches.layer, unit=unit, ranks=len(entries), share=share),
        layer=patches.layer,
        unit=unit,
        share=share,
        weight=weight,
        boxes=torch.tensor([smallest_box(one, share) for one in weight]).view(-1, 4),
    )


def smallest_box(weight: Tensor, share: float) -> Box:
    """The box that leaves out (1 - share) / 2 of a map (H, W) on each of its four sides.

    Examples
    --------
    >>> smallest_box(torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.5, 0.5]]), share=0.9)
    (1, 1, 2, 3)
    """
    (top, bottom), (left, right) = (_span(weight.sum(axis).double(), share) for axis in (1, 0))
    return top, left, bottom, right


def _span(line: Tensor, share: float) -> tuple[int, int]:
    if float(line.sum()) == 0:
        return 0, 0
    reached = line.cumsum(0) / line.sum()
    out = (1 - share) / 2
    first = int((reached > out + 1e-12).nonzero()[0])
    last = int((reached >= 1 - out - 1e-12).nonzero()[0])
    return first, last + 1
