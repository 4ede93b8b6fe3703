"""A small network of many operators, and all its activations stored at once, for the tests of the streaming pass."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network

IMAGES, K, BINS = 40, 5, 4


class Mixed(nn.Module):
    """Stride, lopsided padding, an in-place rectifier, a residual sum, a bounded function, a linear head."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.first = nn.Conv2d(2, 5, 3, stride=2)
        self.relu = nn.ReLU(inplace=True)
        self.second = nn.Conv2d(5, 5, 3, padding=1)
        self.bound = nn.Sigmoid()
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.first(F.pad(x, (0, 2, 1, 0))))
        x = self.bound(3 * (x + self.second(x)))
        return self.head(x.mean((2, 3)))


def stored(net: Network, data: Any, layer: str) -> np.ndarray[Any, Any]:
    """(images, units, positions), all of them. Independent of the pass: plain torch, by hand for ``first``."""
    images = torch.stack([image for image, _ in data])
    if layer == "first":
        padded = F.pad(((images - 0.4) / 0.5).double(), (0, 2, 1, 0))
        value = F.conv2d(padded, net.model.first.weight, net.model.first.bias, stride=2)
    else:
        value = net.activations(images, layer)[layer]
    return value.detach().flatten(2).numpy() if value.dim() > 2 else value.detach().numpy()[:, :, None]


LAYERS = ["first", "relu", "second", "/add", "bound", "head"]
