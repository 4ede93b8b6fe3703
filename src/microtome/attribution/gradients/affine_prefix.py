"""How far does the image go before anything bends? Gradients summed there come back to the pixels in one pass."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from microtome.attribution.class_activation.arrangement import operator_of
from microtome.network import Network
from microtome.trace import Layer

_AFFINE = frozenset(("conv2d", "linear", "pad", "flatten", "batch_norm"))


def entrance(net: Network) -> str:
    """The last layer that is an affine function of the image and its only way in; ``"input"`` where there is none.

    The gradient of the pixels is then a fixed linear function of that layer's gradient, the same for
    every image: weighted sums of gradients may be taken there and sent back once, by ``sent_back``. It is
    read off the layers that the engine sees; what hides from it, ``holds_for`` finds.

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
        reached = outer[0].name


def _whole(net: Network, layer: Layer) -> list[Layer]:
    """A layer with what runs inside it, such as the padding of a convolution."""
    return [
        layer,
        *(part for name, part in net.layers.items() if name.startswith((f"{layer.name}.", f"{layer.name}/"))),
    ]


def _affine(layer: Layer) -> bool:
    if operator_of(layer) not in _AFFINE:
        return False
    if operator_of(layer) == "batch_norm":  # without running statistics it divides by those of the batch
        return isinstance(layer.module, nn.modules.batchnorm._BatchNorm) and layer.module.running_mean is not None
    return True


def sent_back(net: Network, images: Tensor, layer: str, signal: Tensor) -> Tensor:
    """A signal at the entrance as it arrives at the pixels of the images; ``signal`` has the layer's shape."""
    if layer == "input":
        return signal
    record = net.run(images, record="input", gradient=True, output_layer=layer, grad_output=signal, check=False)
    return record.gradient["input"]


def holds_for(net: Network, images: Tensor, layer: str, inner: Tensor, outer: Tensor) -> bool:
    """Whether gradients at the entrance (``inner``), sent back at ``images``, are those at the pixels (``outer``).

    The gradients may be of other images: the way back is the same for all, unless something bends on it. They
    differ, too, where something reads the image that the engine cannot see.
    """
    away = (sent_back(net, images, layer, inner) - outer).abs().amax()
    close = min(1e3 * torch.finfo(outer.dtype).eps, 0.1)
    return bool(away <= close * outer.abs().amax())
