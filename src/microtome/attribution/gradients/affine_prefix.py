"""Affine prefix of a network: the first layers, through which summed gradients return to the pixels in one pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from microtome.network import Network
from microtome.trace import Layer

_AFFINE = frozenset(("conv2d", "linear", "pad", "flatten", "batch_norm"))


def entrance(net: Network) -> str:
    """The last affine function of the image through which all later layers read it; ``"input"`` if there is none.

    The gradient of the pixels is then a fixed linear function of the gradient of that layer, the same for
    every image. So weighted sums of gradients can be taken there and sent back once, by ``sent_back``.
    The prefix is read from the layers that the engine sees; ``holds_for`` finds what the engine cannot see.

    Examples
    --------
    >>> body = [nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 3)]
    >>> entrance(Network(nn.Sequential(*body), input_shape=(1, 4, 4)))
    '1'
    """
    reached = "input"
    while True:
        readers = [layer for layer in net.layers.values() if layer.leaf and reached in layer.inputs]
        outer = [layer for layer in readers if not any(layer.name.startswith(f"{other.name}.") for other in readers)]
        if len(outer) != 1 or outer[0].inputs != (reached,) or not all(map(_affine, _whole(net, outer[0]))):
            return reached
        if outer[0].axes.image_axis != 0:  # of one image that the model has taken out of its batch
            return reached
        reached = outer[0].name


def _whole(net: Network, layer: Layer) -> list[Layer]:
    """A layer and the operations inside it, such as the padding of a convolution."""
    return [
        layer,
        *(part for name, part in net.layers.items() if name.startswith((f"{layer.name}.", f"{layer.name}/"))),
    ]


def _affine(layer: Layer) -> bool:
    if layer.operator not in _AFFINE:
        return False
    if layer.operator == "batch_norm":  # without running statistics it divides by those of the batch
        return isinstance(layer.module, nn.modules.batchnorm._BatchNorm) and layer.module.running_mean is not None
    return True


def sent_back(net: Network, images: Tensor, layer: str, signal: Tensor) -> Tensor:
    """Send a gradient at the affine prefix back to the pixels; ``signal`` has the shape of the layer."""
    if layer == "input":
        return signal
    record = net.run(images, record="input", gradient=True, output_layer=layer, grad_output=signal, check=False)
    return record.gradient["input"]


def holds_for(net: Network, images: Tensor, layer: str, inner: Tensor, outer: Tensor) -> bool:
    """Whether gradients at the prefix (``inner``), sent back at ``images``, equal those at the pixels (``outer``).

    The gradients may belong to other images: an affine prefix has the same backward pass for all. They also
    differ where an operation that the engine cannot see reads the image.
    """
    away = (sent_back(net, images, layer, inner) - outer).abs().amax()
    close = min(1e3 * torch.finfo(outer.dtype).eps, 0.1)
    return bool(away <= close * outer.abs().amax())
