"""A convolution over a whole map of detectors, whose kernels define which lines are expected at which positions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome.zoo.hand_set.digit_table import Pattern

__all__ = ["PlacedPatterns"]


class PlacedPatterns(nn.Module):
    r"""Patterns at positions: each is a sum of terms "a line at this angle, about here", minus a threshold.

    The weight of detector k at the cell (i, j) of the pooled map is

    .. math:: w_{k,ij} = \sum_t s_t\, e^{-(\theta_k - \theta_t)^2 / 2 \beta^2}\,
              \frac{c}{\sqrt{2 \pi}\, \sigma_t}\, e^{-|p_{ij} - (x_t, y_t)|^2 / 2 \sigma_t^2}

    with p the middle of the cell in pixels and c its side, so that a line through the position gives about
    :math:`s_t` times the detector's response.

    Parameters
    ----------
    patterns
        The table.
    cells, cell
        Cells of the map on a side, and pixels of a cell on a side.
    band
        Tolerance of the angles in degrees.

    Attributes
    ----------
    strength, angle, x, y, spread : Parameter
        (terms,) each; places in pixels from the upper left corner, spread the standard deviation across and down
        (terms, 2).
    threshold : Parameter
        (patterns,)
    band : Parameter
        () degrees.
    """

    owner: Tensor

    def __init__(self, patterns: Sequence[Pattern], *, cells: int = 7, cell: int = 4, band: float = 20.0) -> None:
        super().__init__()
        self.names = tuple(pattern.name for pattern in patterns)
        self.cells, self.cell = cells, cell
        terms = [term for pattern in patterns for term in pattern.terms]
        owner = [place for place, pattern in enumerate(patterns) for _ in pattern.terms]
        self.register_buffer("owner", torch.tensor(owner, device="cpu"))
        self.strength = _parameter([term.strength for term in terms])
        self.angle = _parameter([term.angle for term in terms])
        self.x = _parameter([term.x for term in terms])
        self.y = _parameter([term.y for term in terms])
        self.spread = _parameter([[term.spread, term.spread] for term in terms])
        self.threshold = _parameter([pattern.threshold for pattern in patterns])
        self.band = _parameter(band)

    def weight(self, angles: Tensor) -> Tensor:
        """(patterns, detectors, cells, cells) for detectors at these angles."""
        difference = torch.remainder(angles[None] - self.angle[:, None] + 90, 180) - 90
        admitted = torch.exp(-difference.square() / (2 * self.band.square()))
        middle = (torch.arange(self.cells, device=self.x.device, dtype=self.x.dtype) + 0.5) * self.cell - 0.5
        spread = self.spread.clamp(min=1.0)
        across = torch.exp(-((middle - self.x[:, None]) / spread[:, :1]).square() / 2)
        down = torch.exp(-((middle - self.y[:, None]) / spread[:, 1:]).square() / 2)
        level = self.strength * self.cell / (math.sqrt(2 * math.pi) * spread.prod(1).sqrt())
        terms = (level[:, None] * admitted)[:, :, None, None] * (down[:, :, None] * across[:, None, :])[:, None]
        return terms.new_zeros(len(self.names), *terms.shape[1:]).index_add(0, self.owner, terms)

    def forward(self, maps: Tensor, angles: Tensor) -> Tensor:
        """The presence of each pattern (N, patterns, 1, 1), from 0 to 1."""
        return functional.conv2d(maps, self.weight(angles), -self.threshold)

    def describe(self) -> list[str]:
        """Each pattern in words."""
        texts = []
        for place in range(len(self.names)):
            terms = (self.owner == place).nonzero()[:, 0].tolist()
            texts.append(
                "; ".join(self._term(one) for one in terms) + f"; above {float(self.threshold[place].detach()):.2f}"
            )
        return texts

    def _term(self, index: int) -> str:
        values = (self.strength, self.angle, self.x, self.y)
        strength, angle, x, y = (float(one[index].detach()) for one in values)
        wide, high = self.spread[index].tolist()
        spread = f"{wide:.1f}" if abs(wide - high) < 0.05 else f"{wide:.1f} across and {high:.1f} down"
        sign = "" if strength >= 0 else "no "
        return (
            f"{sign}line at {round(angle) % 180}° about ({x:.1f}, {y:.1f}), within {spread} px, "
            f"strength {abs(strength):.2f}"
        )


def _parameter(values: object) -> nn.Parameter:
    return nn.Parameter(torch.tensor(values, dtype=torch.float32, device="cpu"))
