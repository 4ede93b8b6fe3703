"""Which layer does a class activation map read? One with height and width, found or checked here."""

from __future__ import annotations

from microtome.errors import LayerError
from microtome.network import Network
from microtome.trace import Layer


def map_layer(net: Network, layer: str | None) -> str:
    """The layer asked for, if it has a picture; without one, the last that has.

    The last layer with more than one position that is no pooling: in VGG the rectified output of
    the last convolution, in ResNet that of the last block.

    Parameters
    ----------
    net : Network
        The network.
    layer : str, optional
        A layer's name.

    Raises
    ------
    LayerError
        When the layer does not exist or has no height and width; when no layer has.
    """
    if layer is not None:
        found = net.layer(layer)
        if not found.spatial:
            raise LayerError(
                f'a layer with channels, height and width is needed, "{layer}" gives {found.shape}. '
                f"Layers that have them: {_some(net)}."
            )
        return layer
    pictures = [entry for entry in net.layers.values() if _is_map(entry)]
    if not pictures:
        raise LayerError(
            "no layer of this network has channels, height and width, so there is nothing to draw a class map on; "
            "use a method that explains pixels, such as saliency or integrated_gradients."
        )
    return pictures[-1].name


def _is_map(layer: Layer) -> bool:
    pooled = "pool" in layer.kind.lower() or layer.kind in ("mean", "amax", "sum")
    return layer.spatial and layer.shape[1] * layer.shape[2] > 1 and not pooled


def _some(net: Network) -> str:
    names = [entry.name for entry in net.layers.values() if entry.spatial]
    return ", ".join(names[-8:]) if names else "none"
