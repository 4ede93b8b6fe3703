"""Effective receptive field: the box that contains most of the gradient of an activation by the pixels."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, stated
from microtome.units.reconstruct import one_hot_grad_output
from microtome.units.streaming.crops import Box
from microtome.units.streaming.patch_tables import LayerPatches


@dataclass(frozen=True, eq=False, kw_only=True)
class EffectiveField(Result, drawing="units.unit_figures:effective_field"):
    """Effective receptive fields of one unit on some of its top patches.

    Attributes
    ----------
    layer : str
        The layer.
    unit : int
        The unit.
    share : float
        The share of the gradient inside a box along each axis.
    weight : Tensor
        (k, H, W) share of ``|gradient|``, summed over colours. The sum is 1, or 0 if the gradient is zero.
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
    net: Network, patches: LayerPatches, unit: int, *, k: int = 9, share: float = 0.95
) -> EffectiveField:
    r"""Compute the effective receptive field of a unit on its top patches [1]_.

    With :math:`w(p) = |\partial f_u(x; i, j) / \partial x_p| \big/ \sum_p |\cdot|`, a share (1 - share) / 2
    of w lies above the box, and the same share below, left and right of it. The box is more informative
    than ``net.layer(name).field`` if the receptive field exceeds the picture, and for layers with gates.

    Parameters
    ----------
    net : Network
        The network.
    patches : LayerPatches
        One layer's table.
    unit : int
        The unit.
    k : int
        Number of top patches.
    share : float
        Share of the gradient inside the box, in (0, 1].

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
    Cost: one forward and backward pass per patch. What it does not show: the response to large changes
    of the pixels.

    References
    ----------
    .. [1] Luo, Li, Urtasun, Zemel. Understanding the effective receptive field in deep convolutional
       neural networks. NeurIPS 2016.

    Examples
    --------
    >>> from torch import nn
    >>> model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 4, 3), nn.Flatten(), nn.Linear(64, 2))
    >>> net = Network(model.eval(), input_shape=(1, 8, 8))
    >>> pictures = torch.rand(12, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    >>> from microtome.data import Images
    >>> photos = Images.from_float(pictures, torch.arange(12) % 2)
    >>> from microtome.units import top_patches
    >>> found = effective_field(net, top_patches(net, photos, ["2"], k=2)["2"], 0, k=2)
    >>> tuple(found.weight.shape)
    (2, 8, 8)
    """
    if not 0 < share <= 1:
        raise InputError(f"share is in (0, 1], got {share}.")
    if k < 1:
        raise InputError(f"k must be at least 1, got {k}.")
    entries = [patches.entry(unit, rank) for rank in range(min(k, patches.count()))]
    entries = [entry for entry in entries if entry[0] >= 0]
    pictures, _ = patches.pictures.fetch(torch.tensor([entry[0] for entry in entries], device="cpu"))

    def one_hot(value: Tensor) -> Tensor:
        return one_hot_grad_output(net.layer(patches.layer), value, [(unit, entry[1]) for entry in entries])

    record = net.run(pictures, record="input", gradient=True, output_layer=patches.layer, grad_output=one_hot)
    weight = record.gradient["input"].abs().sum(1).double().cpu()
    total = weight.sum((1, 2), keepdim=True)
    weight = torch.where(total > 0, weight / total.where(total > 0, torch.ones_like(total)), 0.0)
    return EffectiveField(
        provenance=stated(layer=patches.layer, k=len(entries)),
        layer=patches.layer,
        unit=unit,
        share=share,
        weight=weight,
        boxes=torch.tensor([smallest_box(one, share) for one in weight], device="cpu").view(-1, 4),
    )


def smallest_box(weight: Tensor, share: float) -> Box:
    """The box of a map (H, W) with a share (1 - share) / 2 of the sum beyond each of its four sides.

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
    cumulative = line.cumsum(0) / line.sum()
    outside = (1 - share) / 2
    first = int((cumulative > outside + 1e-12).nonzero()[0])
    last = int((cumulative >= 1 - outside - 1e-12).nonzero()[0])
    return first, last + 1
