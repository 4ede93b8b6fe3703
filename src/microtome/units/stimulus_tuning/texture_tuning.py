"""Texture tuning: the response to a texture at most positions of a layer, and a label if it is the largest."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.network import Network
from microtome.progress import reported
from microtome.units.stimulus_tuning.classify import Classification
from microtome.units.stimulus_tuning.noise_floor import share_of_random_units
from microtome.units.stimulus_tuning.stimulus_responses import boxes, scaled, with_channels
from microtome.units.stimulus_tuning.texture_stimuli import TEXTURES, textures

__all__ = ["TextureTuning", "texture_tunings"]

TEXTURED = 1.15  # a label by texture if its response is this many times that to the best line, edge or other pattern
# Sharpness times response by noise floor that a share of the units of random networks does not reach: ten networks as
# for ``noise_floor.RANDOM_UNITS``.
RANDOM_UNITS = (
    (0.0, 0.0), (0.5, 0.036), (0.9, 0.111), (0.95, 0.142), (0.98, 0.178), (0.99, 0.193), (0.999, 0.239), (1.0, 0.4),
)  # fmt: skip


@dataclass(frozen=True)
class TextureTuning:
    """Responses of the units of one layer to textures, minus the response to gray.

    Attributes
    ----------
    response : Tensor
        (U, textures) median over positions, then mean over phases, then maximum over periods.
    period : Tensor
        (U, textures) the period in pixels of that largest response; NaN for natural noise.
    """

    response: Tensor
    period: Tensor

    @property
    def strength(self) -> Tensor:
        """Response to the best texture, (U,), at least 0."""
        return self.response.amax(1).clamp(min=0)

    @property
    def sharpness(self) -> Tensor:
        """One less the mean response to the other textures by that to the best, (U,) in [0, 1]."""
        best = self.strength
        others = (self.response.clamp(min=0).sum(1) - best) / (self.response.shape[1] - 1)
        return torch.where(best > 0, 1 - others / best.clamp(min=1e-30), 0.0)

    def selectivity(self, floor: Tensor) -> Tensor:
        """Strength in units of the noise floor, times sharpness, (U,)."""
        return self.sharpness * self.strength / floor

    def share(self, floor: Tensor) -> Tensor:
        """The share of the units of random networks that are less selective for a texture, (U,)."""
        return share_of_random_units(self.selectivity(floor), RANDOM_UNITS)

    def classification(self, unit: int) -> Classification:
        """The classification of a unit by texture."""
        return Classification("texture", self.label(unit), float(self.strength[unit]))

    def label(self, unit: int) -> str:
        """The label by texture: ``"texture: honeycomb, 8 px"``."""
        best = int(self.response[unit].argmax())
        period = float(self.period[unit, best])
        return f"texture: {TEXTURES[best]}" + ("" if math.isnan(period) else f", {period:.3g} px")


def texture_tunings(net: Network, layers: list[str], batch: int = 32) -> dict[str, TextureTuning]:
    """Measure texture tuning of some layers, in one pass over about fifty images."""
    height, width = net.input_shape[1:]
    shown = textures((height, width))
    gray = torch.full((1, 1, height, width), 0.5, dtype=torch.float32, device="cpu")
    rows: dict[str, list[Tensor]] = {name: [] for name in layers}
    for images in reported(shown.images.split(batch), "textures"):
        pictures = with_channels(net, torch.cat([gray, images]))
        values = net.activations(scaled(net, pictures), layers, batch=len(pictures), check=False)
        for name, value in values.items():
            layer = net.layer(name)
            maps = layer.axes.maps(value, len(pictures))
            inside = boxes(layer, height, width)[2].to(maps.device)
            rows[name].append((maps[1:] - maps[:1])[:, :, inside].median(2).values.float().cpu())
    groups: dict[tuple[str, float], list[int]] = {}
    for index, (name, period) in enumerate(zip(shown.family, shown.width.tolist(), strict=True)):
        groups.setdefault((name, -1.0 if math.isnan(period) else period), []).append(index)
    return {name: _tuned(torch.cat(parts).T, groups) for name, parts in rows.items()}


def _tuned(response: Tensor, groups: dict[tuple[str, float], list[int]]) -> TextureTuning:
    """The mean over the phases of each texture and period, then the best period of each texture."""
    best, periods = [], []
    for texture in TEXTURES:
        own = [(period, places) for (name, period), places in groups.items() if name == texture]
        values, place = torch.stack([response[:, places].mean(1) for _, places in own]).max(0)
        best.append(values)
        known = torch.tensor(
            [math.nan if period < 0 else period for period, _ in own], dtype=torch.float32, device="cpu"
        )
        periods.append(known[place])
    return TextureTuning(torch.stack(best, 1), torch.stack(periods, 1))
