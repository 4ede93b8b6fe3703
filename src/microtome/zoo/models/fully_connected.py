"""The fully connected networks of the signal-space study: one layer, or five with SELU."""

from __future__ import annotations

from collections import OrderedDict
from itertools import pairwise
from math import prod

from torch import nn

from microtome.zoo.models.initial_weights import seeded

__all__ = ["fcnn1", "fcnn5"]

_WIDTHS = (256, 256, 128, 32)


def fcnn1(input_shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10, *, seed: int = 0) -> nn.Sequential:
    """One linear layer, ``fc``, from the pixels to the logits (FCNN-1).

    Examples
    --------
    >>> fcnn1().fc.weight.shape
    torch.Size([10, 784])
    """
    with seeded(seed):
        return nn.Sequential(OrderedDict(flatten=nn.Flatten(), fc=nn.Linear(prod(input_shape), classes)))


def fcnn5(input_shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10, *, seed: int = 0) -> nn.Sequential:
    """Linear layers ``fc1`` to ``fc5`` of 256, 256, 128, 32 and ``classes`` units with SELU between them (FCNN-5).

    Weights are drawn with variance 1 / fan-in, for which SELU keeps mean 0 and variance 1 [1]_; biases are zero.

    References
    ----------
    .. [1] G. Klambauer, T. Unterthiner, A. Mayr, S. Hochreiter. Self-normalizing neural networks. NIPS 2017.

    Examples
    --------
    >>> [name for name, _ in fcnn5().named_children()]
    ['flatten', 'fc1', 'selu1', 'fc2', 'selu2', 'fc3', 'selu3', 'fc4', 'selu4', 'fc5']
    """
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    widths = (prod(input_shape), *_WIDTHS, classes)
    with seeded(seed):
        for number, (fan_in, fan_out) in enumerate(pairwise(widths), 1):
            linear = nn.Linear(fan_in, fan_out)
            nn.init.normal_(linear.weight, std=fan_in**-0.5)
            nn.init.zeros_(linear.bias)
            layers[f"fc{number}"] = linear
            if number < len(widths) - 1:
                layers[f"selu{number}"] = nn.SELU()
    return nn.Sequential(layers)
