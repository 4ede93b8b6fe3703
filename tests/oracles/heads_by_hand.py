"""Networks with any head, and their scores by hand: the two linear layers as plain functions, in float64.

Independent: it knows the closing operation and uses nothing of the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network

SHAPE = (3, 6, 6)
Make = Callable[[Tensor, Tensor], Any]  # of the outputs of two linear layers


class Headed(nn.Module):
    def __init__(self, make: Make, classes: int = 4) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 5, 3)
        self.a, self.b = nn.Linear(5, classes), nn.Linear(5, classes)
        self.drop = nn.Dropout()
        self.make = make
        for linear in (self.a, self.b):
            linear.weight.data *= 4

    def features(self, x: Tensor) -> Tensor:
        return self.conv(x).relu().mean((2, 3))

    def forward(self, x: Tensor) -> Any:
        features = self.features(x)
        return self.make(self.a(features), self.b(features))


def images(count: int = 3) -> Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def network(make: Make, classes: int = 4, **options: Any) -> Network:
    return Network(Headed(make, classes).double().eval(), SHAPE, **options)


def by_hand(net: Network, x: Tensor, make: Make) -> Tensor:
    assert isinstance(net.model, Headed)
    features = F.conv2d(x, net.model.conv.weight, net.model.conv.bias).clamp(min=0).mean((2, 3))
    a, b = (F.linear(features, layer.weight, layer.bias) for layer in (net.model.a, net.model.b))
    found: Tensor = make(a, b)
    return found


def softmax(z: Tensor) -> Tensor:
    shifted = (z - z.amax(1, keepdim=True)).exp()
    return shifted / shifted.sum(1, keepdim=True)


def sigmoid(z: Tensor) -> Tensor:
    return 1 / (1 + (-z).exp())


def first(a: Tensor, b: Tensor) -> Tensor:
    return a


def mean_softmax(a: Tensor, b: Tensor) -> Tensor:
    return (softmax(a) + softmax(b)) / 2


def mean_sigmoid(a: Tensor, b: Tensor) -> Tensor:
    return (sigmoid(a) + sigmoid(b)) / 2
