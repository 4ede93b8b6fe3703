"""How is a way of writing a network entered? The registry of spellings, their weights and shared parts.

Every spelling computes one of three functions, with the same weights:

``plain``     conv 3x3 + b, rectify, pool 2x2, conv 3x3 stride 2 + b, rectify, mean over positions, linear
``residual``  conv + rectify = a; conv + rectify + conv = r; rectify(a + r), mean over positions, linear
``concat``    conv + rectify = a; conv + rectify = b; conv(cat(a, b)), rectify, mean over positions, linear

To test another way of writing, add one class with ``@spelling``: every method is then run through it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

WIDTH, CLASSES = 6, 4


@dataclass(frozen=True)
class Spelling:
    """One way to write a function; ``layer`` is where it keeps the last feature maps."""

    name: str
    family: str
    pool: str
    build: Callable[[dict[str, Tensor]], nn.Module]
    layer: str


SPELLINGS: dict[str, Spelling] = {}


def weights(family: str, channels: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    """The weights of a family, drawn once."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 0.35) -> Tensor:
        return (torch.randn(*shape, generator=g, dtype=torch.float64) * scale).to(dtype)

    second = 2 * WIDTH if family == "concat" else WIDTH
    return {
        "w1": draw(WIDTH, channels, 3, 3), "b1": draw(WIDTH, scale=0.2),
        "w2": draw(WIDTH, WIDTH, 3, 3), "b2": draw(WIDTH, scale=0.2),
        "w3": draw(WIDTH, second, 3, 3), "b3": draw(WIDTH, scale=0.2),
        "wf": draw(CLASSES, WIDTH, scale=1.0), "bf": draw(CLASSES, scale=0.2),
    }  # fmt: skip


def spelling(layer: str, *, family: str = "plain", pool: str = "max") -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Enter a class in the registry under its own name."""

    def enter(cls: type[nn.Module]) -> type[nn.Module]:
        SPELLINGS[cls.__name__] = Spelling(cls.__name__, family, pool, cls, layer)
        return cls

    return enter


def conv(w: Tensor, b: Tensor, stride: int = 1) -> nn.Conv2d:
    """A convolution with given weights."""
    module = nn.Conv2d(w.shape[1], w.shape[0], 3, stride, padding=1, dtype=w.dtype)
    module.weight.data.copy_(w)
    module.bias.data.copy_(b)
    return module


def linear(w: Tensor, b: Tensor) -> nn.Linear:
    """A linear layer with given weights."""
    module = nn.Linear(w.shape[1], w.shape[0], dtype=w.dtype)
    module.weight.data.copy_(w)
    module.bias.data.copy_(b)
    return module


class Parts(nn.Module):
    """The modules of the plain function; subclasses write the forward pass."""

    def __init__(self, p: dict[str, Tensor]) -> None:
        super().__init__()
        self.c1, self.c2, self.fc = conv(p["w1"], p["b1"]), conv(p["w2"], p["b2"], 2), linear(p["wf"], p["bf"])
        self.pool, self.gap = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)

    def rectify(self, x: Tensor) -> Tensor:
        raise TypeError("a spelling says how it rectifies")

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.rectify(self.c1(x)))
        x = self.rectify(self.c2(x))
        return self.fc(torch.flatten(self.gap(x), 1))
