"""Colour tuning: responses to uniform colours and to isoluminant stripes of opponent colours, and a label by hue."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from microtome.network import Network
from microtome.progress import reported
from microtome.units.stimulus_tuning import circular, stimulus_shapes
from microtome.units.stimulus_tuning.classify import Classification
from microtome.units.stimulus_tuning.noise_floor import share_of_random_units
from microtome.units.stimulus_tuning.stimulus_responses import LEVELS, scaled

HUES = 12  # steps of 30 degrees: 0 red, 60 yellow, 120 green, 180 cyan, 240 blue, 300 magenta
SATURATIONS = (0.5, 1.0)
COLOURED = 1.15  # a label by colour if the response is this many times that to the best gray stimulus
# Sharpness of hue times response by noise floor that a share of the units of random networks does not reach: six
# networks as for ``noise_floor.RANDOM_UNITS``, with three channels.
RANDOM_UNITS = ((0.0, 0.0), (0.5, 0.08), (0.9, 0.35), (0.95, 0.5), (0.98, 0.65), (0.99, 0.9), (0.999, 1.5), (1.0, 3.0))
_NAMES = (
    "red",
    "orange",
    "yellow",
    "yellow-green",
    "green",
    "blue-green",
    "cyan",
    "azure",
    "blue",
    "violet",
    "magenta",
    "pink",
)


@dataclass(frozen=True)
class ColourTuning:
    """Responses of the units of one layer to colours, minus the response to gray of equal mean.

    Attributes
    ----------
    uniform, stripes : Tensor
        (U, hues) largest response over saturations to a uniform colour; over angles and periods to stripes of the hue
        and its opposite.
    hue : Tensor
        (U,) preferred hue in degrees of the larger of the two; NaN if there is no response.
    strength, sharpness : Tensor
        (U,) largest response, and resultant length of the curve over hues.
    opponent : Tensor
        (U,) bool: the response to the opposite uniform hue is below that to gray by at least half of ``strength``.
    striped : Tensor
        (U,) bool: stripes have a clearly larger response than uniform colours.
    """

    uniform: Tensor
    stripes: Tensor
    hue: Tensor
    strength: Tensor
    sharpness: Tensor
    opponent: Tensor
    striped: Tensor

    def selectivity(self, floor: Tensor) -> Tensor:
        """Strength in units of the noise floor, times sharpness, (U,)."""
        return self.sharpness * self.strength / floor

    def share(self, floor: Tensor) -> Tensor:
        """The share of the units of random networks that are less selective for hue, (U,)."""
        return share_of_random_units(self.selectivity(floor), RANDOM_UNITS)

    def classification(self, unit: int) -> Classification:
        """The classification of a unit by colour."""
        return Classification("colour", self.label(unit), float(self.strength[unit]))

    def label(self, unit: int) -> str:
        """The label by colour: ``"red"``, ``"red against cyan"``, ``"stripes of red and cyan"``."""
        name, other = hue_name(float(self.hue[unit])), hue_name(float(self.hue[unit]) + 180)
        if bool(self.striped[unit]):
            return f"stripes of {name} and {other}"
        return f"colour {name} against {other}" if bool(self.opponent[unit]) else f"colour {name}"


def hue_name(hue: float) -> str:
    """The name of the nearest of twelve hues.

    Examples
    --------
    >>> hue_name(350), hue_name(130), hue_name(-120)
    ('red', 'green', 'blue')
    """
    return _NAMES[round(hue / 30) % 12]


def colour(hue: float, saturation: float) -> Tensor:
    r"""A colour of mean .5, (3,): :math:`c_k = 0.5 + 0.5 s \cos(h - 120° k)`.

    Examples
    --------
    >>> colour(0, 1.0)
    tensor([1.0000, 0.2500, 0.2500])
    """
    angles = [math.radians(hue - 120 * channel) for channel in range(3)]
    return torch.tensor(
        [0.5 + 0.5 * saturation * math.cos(angle) for angle in angles], dtype=torch.float32, device="cpu"
    )


def colour_tunings(net: Network, layers: list[str], batch: int = 32) -> dict[str, ColourTuning]:
    """Measure colour tuning of some layers of a network for colour images, in one pass over 120 images."""
    height, width = net.input_shape[1:]
    hues = [360 / HUES * step for step in range(HUES)]
    pictures = [colour(hue, s)[:, None, None].expand(3, height, width) for s in SATURATIONS for hue in hues]
    count = len(pictures)
    x, y = stimulus_shapes.plane(height, width)
    waves = [
        stimulus_shapes.wave(stimulus_shapes.across(x, y, angle), period, 0.0).float()
        for angle in (0, 45, 90, 135)
        for period in (4.0, max(8.0, min(height, width) / 8))
    ]
    for wave in waves:
        for hue in hues:
            one, other = colour(hue, 1.0)[:, None, None], colour(hue + 180, 1.0)[:, None, None]
            pictures.append(wave * one + (1 - wave) * other)
    blanks = [torch.full((3, height, width), level, dtype=torch.float32, device="cpu") for level in LEVELS]
    middle = len(LEVELS) // 2
    peaks: dict[str, list[Tensor]] = {name: [] for name in layers}
    for start in reported(range(0, len(pictures), batch), "coloured stimuli"):
        images = torch.stack([blanks[middle], *pictures[start : start + batch]])
        values = net.activations(scaled(net, net.images(images, check=False)), layers, batch=len(images), check=False)
        for name, value in values.items():
            maps = net.layer(name).axes.maps(value, len(images))
            peaks[name].append(_middle(maps[1:] - maps[:1]).flatten(2).amax(2).cpu())
    return {name: _tuned(torch.cat(parts).T, hues, count) for name, parts in peaks.items()}


def _middle(maps: Tensor) -> Tensor:
    """The middle half of maps (n, U, h, w) along both axes, away from padding."""
    h, w = maps.shape[2:]
    return maps[:, :, h // 4 : h - h // 4, w // 4 : w - w // 4]


def _tuned(response: Tensor, hues: list[float], count: int) -> ColourTuning:
    uniform = response[:, :count].unflatten(1, (len(SATURATIONS), HUES))
    stripes = response[:, count:].unflatten(1, (-1, HUES)).amax(1)
    low, uniform = uniform.amin(1), uniform.amax(1)
    striped = stripes.amax(1) > COLOURED * uniform.amax(1)
    curve = torch.where(striped[:, None], stripes, uniform).clamp(min=0)
    angles = torch.tensor(hues, dtype=torch.float32, device="cpu")
    preferred, sharpness = circular.mean_direction(curve, angles, 360)
    halved, half_sharp = circular.mean_direction(stripes.clamp(min=0), angles, 180)  # stripes have both colours
    strength = curve.amax(1)
    opposite = low.gather(1, ((preferred.nan_to_num() / 30 + 6).round().long() % HUES)[:, None])[:, 0]
    return ColourTuning(
        uniform=uniform,
        stripes=stripes,
        hue=torch.where(striped, halved, preferred),
        strength=strength,
        sharpness=torch.where(striped, half_sharp, sharpness),
        opponent=opposite < -0.5 * strength,
        striped=striped,
    )
