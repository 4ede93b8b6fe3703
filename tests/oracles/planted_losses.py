"""Losses of known mean: a function of an image's one pixel, so that the share of error bands that hold it is known."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from microtome import Network, data
from microtome.training import landscape

LEVELS = (torch.arange(256, dtype=torch.float64) + 0.5) / 256  # of a pixel, which is one byte


class Pixel(nn.Module):
    """The score is the pixel, times a weight of 1."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(1))

    def forward(self, images: Tensor) -> Tensor:
        """(n, 1)."""
        return images.flatten(1) * self.weight


def coverage(
    planted: Callable[[Tensor], Tensor], trials: int, images: int, *, tolerance: float | None = None
) -> tuple[float, float]:
    """Share of samples whose band holds the mean of the 256 possible losses, and how many images a sample saw."""
    mean = float(planted(LEVELS).mean())
    net = Network(Pixel(), (1, 1, 1), output="value")
    held, seen = 0, 0
    for trial in range(trials):
        pixels = torch.randint(256, (images, 1, 1, 1), generator=torch.Generator().manual_seed(trial)).byte()
        found = landscape.line(
            net, data.Images(pixels, torch.zeros(images, dtype=torch.int64)), steps=3, extent=1e-6, seed=trial,
            direction={"weight": torch.ones(1)}, batch=64, tolerance=tolerance,
            loss=lambda scores, labels: planted((scores[:, 0].double() * 255 + 0.5) / 256),
        )  # fmt: skip
        low, high = found.band[1].tolist()
        held += low <= mean <= high
        seen += int(found.images[1])
    return held / trials, seen / trials
