"""Activation maps: the values of a layer's units at every position, for some images."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from torch import Tensor

from microtome.errors import LayerError, nearest
from microtome.network import Network
from microtome.registry import register
from microtome.results import Result, stated
from microtome.trace import Layer
from microtome.units.streaming import streaming_pass


@dataclass(frozen=True, eq=False, kw_only=True)
class ActivationMaps(Result, drawing="units.unit_figures:activation_maps"):
    """Activations of whole layers.

    Attributes
    ----------
    maps : dict of str to Tensor
        By layer: (N, units, h, w), (N, units, positions) for tokens and windows, or (N, units) without positions.
    images : Tensor
        (N, C, H, W) the images.
    """

    maps: dict[str, Tensor]
    images: Tensor

    def __getitem__(self, layer: str) -> Tensor:
        """One layer's maps.

        Raises
        ------
        LayerError
            When there are no maps of the layer.
        """
        for name in (layer, f"/{layer}"):
            if name in self.maps:
                return self.maps[name]
        raise LayerError(f'there are no maps of "{layer}". Nearest: {nearest(layer, self.maps)}.')

    def strongest(self, layer: str, image: int = 0, k: int = 10) -> list[tuple[int, float]]:
        """The units with the highest activation at any position of one image, and this activation, highest first."""
        peaks = self[layer][image].flatten(1).amax(1) if self[layer].dim() > 2 else self[layer][image]
        best = peaks.topk(min(k, len(peaks)))
        return list(zip(best.indices.tolist(), best.values.tolist(), strict=True))


@register("activation-maps", rows=("D1",), paper="yosinski2015understanding", kind="units")
def activation_maps(net: Network, images: Any, layers: str | Iterable[str] | None = None) -> ActivationMaps:
    r"""Record the activation of every unit of some layers: :math:`f_u(x; i, j)` [1]_.

    Parameters
    ----------
    net : Network
        The network.
    images : Tensor
        (N, C, H, W) or one image (C, H, W).
    layers : str or iterable of str, optional
        Names of layers; default all layers that compute.

    Returns
    -------
    ActivationMaps
        ``.maps[layer]`` (N, units, h, w): the layer's own output, before any later in-place change.

    Raises
    ------
    LayerError
        When a layer does not exist.

    Notes
    -----
    Cost: one forward pass up to the last layer; memory: all maps. What it does not show: the receptive
    field of a position (``net.layer(name).field``), and the effect of the activation on the class.

    References
    ----------
    .. [1] Yosinski, Clune, Nguyen, Fuchs, Lipson. Understanding neural networks through deep
       visualization. ICML Deep Learning Workshop 2015.

    Examples
    --------
    >>> import torch
    >>> net = Network(torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Flatten()), (1, 1, 2), mean=0.5)
    >>> activation_maps(net, torch.tensor([[[[0.25, 0.75]]]]), "0")["0"].tolist()
    [[[[0.0, 0.25]]]]
    """
    x = net.images(images)
    selected = {layer.name: layer for layer in streaming_pass.selected_layers(net, layers)}
    names = list(selected)
    maps = {name: _maps(selected[name], value, len(x)) for name, value in net.activations(x, names).items()}
    return ActivationMaps(provenance=stated(layers=names), maps=maps, images=x.detach())


def _maps(layer: Layer, value: Tensor, count: int) -> Tensor:
    maps = layer.axes.maps(value, count)
    if layer.spatial:
        return maps
    return maps[..., 0] if maps.shape[2] > 1 else maps[..., 0, 0]
