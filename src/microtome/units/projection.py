"""Projection of one unit's activation back to the pixels of an image: gradient, deconvnet, guided, relevance."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from microtome.attribution.relevance.composites import chooser
from microtome.attribution.result import Attribution, wide
from microtome.errors import InputError, LayerError
from microtome.network import Network
from microtome.registry import register
from microtome.results import stated
from microtome.trace import Layer
from microtome.trace.lrp.relevance import Relevance

__all__ = ["PROJECTIONS", "Projection", "project_back"]

PROJECTIONS = ("gradient", "deconvnet", "guided", "relevance")


@dataclass(frozen=True, eq=False, kw_only=True)
class Projection(Attribution):
    """Values of the pixels of each image for one activation of a unit.

    ``target`` (N,) is the unit, and ``score`` (N,) its activation at ``position``.

    Attributes
    ----------
    layer : str
        The unit's layer.
    position : Tensor
        (N, 2), row and column in the layer's own grid.
    """

    layer: str
    position: Tensor

    def name_of(self, index: int) -> str:
        """The name of the unit."""
        return f"{self.layer}:{index}"


@register(
    "project-back", rows=("D3",), paper="zeiler2014visualizing", needs="a layer with units", kind="units",
    quantity="activation per pixel value",
)  # fmt: skip
def project_back(
    net: Network,
    images: Any,
    layer: str,
    unit: int,
    *,
    method: str = "gradient",
    position: tuple[int, int] | None = None,
) -> Projection:
    r"""Propagate one activation of a unit back to the pixels; all other activations of its layer are zero.

    - ``"gradient"``: :math:`\partial f_u(x; i, j) / \partial x`.
    - ``"deconvnet"``: ReLU on the signal at every nonlinearity, max-pooling to its switches [1]_.
    - ``"guided"``: also zero where the forward value was not positive [2]_.
    - ``"relevance"``: the activation itself, propagated by the rules of ``attribution.lrp`` [3]_.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) or one image (C, H, W).
    layer : str
        The layer.
    unit : int
        The unit, from 0.
    method : str
        One of the four methods.
    position : (int, int), optional
        Row and column in the layer's grid; default the position of the maximum in each image.

    Returns
    -------
    Projection
        ``.values`` (N, C, H, W), ``.map`` (N, H, W), ``.position`` (N, 2), ``.score`` (N,) the activation.

    Raises
    ------
    InputError
        When method, unit or position does not exist.
    LayerError
        When the layer does not exist or has no separate values for each image.
    OpaqueError
        When there is no backward rule for an operation of the model.

    Notes
    -----
    Cost: a forward pass up to the layer, and a forward and backward pass. It does not show what else drives the unit,
    nor the effect of the unit on the output.

    References
    ----------
    .. [1] Zeiler, Fergus. Visualizing and understanding convolutional networks. ECCV 2014.
    .. [2] Springenberg, Dosovitskiy, Brox, Riedmiller. Striving for simplicity. ICLR 2015 workshop.
    .. [3] Bach et al., On pixel-wise explanations for non-linear classifier decisions by layer-wise
       relevance propagation, PLoS ONE 2015.

    Examples
    --------
    >>> model = torch.nn.Conv2d(1, 1, (1, 2), bias=False)
    >>> _ = model.weight.data.copy_(torch.tensor([[[[1.0, -2.0]]]]))
    >>> net = Network(torch.nn.Sequential(model, torch.nn.Flatten()), (1, 1, 4))
    >>> made = project_back(net, torch.tensor([[[0.1, 0.9, 0.2, 0.3]]]), "0", 0)
    >>> made.position.tolist(), made.map.tolist()
    ([[0, 1]], [[[0.0, 1.0, -2.0, 0.0]]])
    """
    if method not in PROJECTIONS:
        raise InputError(f'method must be one of {", ".join(PROJECTIONS)}; got "{method}".')
    info = net.layer(layer)
    info.check_real()
    if not info.units or info.axes.image_axis is None:
        raise LayerError(f'layer "{info.name}" ({info.kind}) has no separate values for each image; choose another.')
    if not 0 <= unit < info.units:
        raise InputError(f'unit {unit} does not exist: "{info.name}" has units 0 to {info.units - 1}.')
    checked = net.images(images)
    values = info.axes.maps(net.activations(checked, info.name, check=False)[info.name], len(checked))[:, unit]
    places = _places(values, position)
    rules = Relevance(chooser(net, "epsilon-sparing-plus")) if method == "relevance" else None
    record = net.run(
        checked, record="input", gradient=True, output_layer=info.name, check=False,
        rules=rules or (None if method == "gradient" else method),
        grad_output=partial(_begun, info, unit, places, method == "relevance"),
    )  # fmt: skip
    return Projection(
        provenance=stated(layer=info.name, rule=method),
        values=wide(record.gradient["input"]),
        target=torch.full((len(checked),), unit, device=checked.device),
        score=wide(values.flatten(1).gather(1, places[:, None])[:, 0]),
        images=checked.detach(),
        classes=None,
        layer=info.name,
        position=torch.stack([places // values.shape[2], places % values.shape[2]], 1),
    )


def _places(values: Tensor, position: tuple[int, int] | None) -> Tensor:
    """The index (N,) of the activation in each flattened map (N, h, w)."""
    if position is None:
        return values.flatten(1).argmax(1)
    row, column = position
    if not (0 <= row < values.shape[1] and 0 <= column < values.shape[2]):
        raise InputError(f"position {position} lies outside the layer's grid of {tuple(values.shape[1:])}.")
    return torch.full((len(values),), row * values.shape[2] + column, device=values.device)


def _begun(layer: Layer, unit: int, places: Tensor, relevance: bool, value: Tensor) -> Tensor:
    """The backward signal: one at a single activation of each image; for relevance, the activation."""
    by_unit = layer.axes.per_unit(value, len(places))
    begun = torch.zeros_like(by_unit)
    rows = torch.arange(len(places), device=value.device)
    begun[rows, unit, places] = by_unit[rows, unit, places] if relevance else 1.0
    return layer.axes.from_units(begun, tuple(value.shape))
