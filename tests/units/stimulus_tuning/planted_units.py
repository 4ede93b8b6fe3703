"""Deep units that are planted by hand: lines and edges of known angles, two and three layers below the pixels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from microtome import Network

SIZE = 32
KINDS = ("line", "dark line", "edge")
_FIELD = 7


def planted_units(seed: int, depth: int, count: int = 10) -> tuple[Network, list[tuple[str, float]]]:
    """A network whose last convolution has ``count`` planted units, and the kind and the angle of each.

    The first layer has small pieces of lines and edges. A unit of the second layer adds pieces of its own angle along
    a line, with random weights, and subtracts pieces of other angles; one of the third layer adds neighbouring places
    of its own unit, and reads a little of all others.
    """
    generator = torch.Generator().manual_seed(seed)
    truth = []
    kernels = []
    for _ in range(count):
        kind = KINDS[int(torch.randint(len(KINDS), (1,), generator=generator))]
        angle = float(torch.rand(1, generator=generator)) * (360 if kind == "edge" else 180)
        truth.append((kind, angle))
        kernels.append(_piece(kind, angle))
    first = nn.Conv2d(1, count, _FIELD)
    first.weight.data.copy_(torch.stack(kernels)[:, None])
    first.bias.data.copy_(-0.2 - 0.3 * torch.rand(count, generator=generator))
    second = nn.Conv2d(count, count, _FIELD)
    second.weight.data.copy_(-0.05 * torch.rand(count, count, _FIELD, _FIELD, generator=generator))
    at = torch.arange(_FIELD) - (_FIELD - 1) / 2
    for unit, (kind, angle) in enumerate(truth):
        along = math.radians(angle + (90 if kind == "edge" else 0))
        across = -at[None] * math.sin(along) - at[:, None] * math.cos(along)  # rows go down
        near = torch.exp(-((across / 0.8) ** 2))
        second.weight.data[unit, unit] += near * (0.5 + torch.rand(_FIELD, _FIELD, generator=generator))
    second.bias.data.copy_(-0.5 * torch.rand(count, generator=generator))
    layers: list[nn.Module] = [first, nn.ReLU(), second, nn.ReLU()]
    if depth == 3:
        third = nn.Conv2d(count, count, 3)
        third.weight.data.copy_(0.02 * torch.randn(count, count, 3, 3, generator=generator))
        for unit in range(count):
            third.weight.data[unit, unit] += torch.rand(3, 3, generator=generator)
        layers += [third, nn.ReLU()]
    model = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(count, 2))
    return Network(model, (1, SIZE, SIZE), mean=0.5, std=0.25), truth


def random_network(seed: int, side: int = 5, channels: int = 1) -> Network:
    """Four convolutions with the usual random weights, with pooling and strides."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = nn.Sequential(
            nn.Conv2d(channels, 24, side), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(24, 32, 3, padding=1), nn.ReLU(),
            nn.Conv2d(32, 32, 3, stride=2, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.Conv2d(32, 32, 3, padding=1),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip
    return Network(model, (channels, SIZE, SIZE), mean=0.5, std=0.25)


def _piece(kind: str, angle: float) -> Tensor:
    at = torch.arange(_FIELD) - (_FIELD - 1) / 2
    x, y = at[None].expand(_FIELD, -1), -at[:, None].expand(-1, _FIELD)
    window = torch.exp(-(x**2 + y**2) / 8)
    cosine, sine = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    if kind == "edge":  # bright, dark towards the direction
        piece = -(x * cosine + y * sine) * window
    else:
        across = -x * sine + y * cosine
        piece = (torch.exp(-((across / 1.0) ** 2)) - 0.5 * torch.exp(-((across / 2.0) ** 2))) * window
        piece = -piece if kind == "dark line" else piece
    piece = piece - piece.mean()
    return piece / piece.norm()
