"""Where does a tuning curve point, and how sharply? Circular statistics of responses by angle."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def mean_direction(curve: Tensor, angles: Tensor, period: float) -> tuple[Tensor, Tensor]:
    r"""Mean direction and resultant length of responses over angles that repeat after ``period`` degrees.

    .. math:: z = \frac{\sum_i r_i e^{2 \pi i \theta_i / P}}{\sum_i r_i}, \qquad
              \bar\theta = \frac{P}{2 \pi} \arg z, \qquad R = |z|

    With ``period`` 180 this is the usual statistic on doubled angles, since a line turned by half a
    turn is the same line. Responses must not be negative; R is 1 when one angle alone responds and
    0 when all respond alike.

    Parameters
    ----------
    curve : Tensor
        (..., A) responses, at least 0.
    angles : Tensor
        (A,) degrees, evenly spaced.

    Returns
    -------
    (Tensor, Tensor)
        Direction in [0, period) and resultant length in [0, 1]; NaN and 0 where nothing responds.

    Examples
    --------
    Equal responses at 170 and 10 degrees point to 0, not to 90.

    >>> direction, length = mean_direction(torch.tensor([1.0, 1.0]), torch.tensor([170.0, 10.0]), 180)
    >>> round(float(direction), 3) % 180, round(float(length), 3)
    (0.0, 0.94)
    """
    turned = angles.to(torch.float64) * (2 * math.pi / period)
    weights = curve.to(torch.float64)
    total = weights.sum(-1)
    real, imaginary = (weights * turned.cos()).sum(-1), (weights * turned.sin()).sum(-1)
    nothing = total <= 0
    length = torch.where(nothing, torch.zeros_like(total), torch.hypot(real, imaginary) / total.clamp(min=1e-300))
    direction = torch.remainder(torch.atan2(imaginary, real) * (period / (2 * math.pi)), period)
    direction = torch.where(nothing, torch.full_like(direction, math.nan), direction)
    return direction.float(), length.float()


def peak(curve: Tensor, angles: Tensor, period: float) -> float:
    """Preferred angle of one curve: the centre of the responses above half height around the largest one.

    The far side of a tuning curve, where another function of the unit may answer, does not pull it,
    and a flat top gives its middle.

    Examples
    --------
    >>> angles = torch.tensor([0.0, 45.0, 90.0, 135.0])
    >>> peak(torch.tensor([0.0, 1.0, 1.0, 0.0]), angles, 180)
    67.5
    """
    values = [float(value) for value in curve]
    count, top = len(values), max(range(len(values)), key=values.__getitem__)
    half = (max(values) + min(values)) / 2
    reach = [0]
    for sign in (1, -1):
        for step in range(1, count // 2):
            if values[(top + sign * step) % count] <= half:
                break
            reach.append(sign * step)
    weights = [values[(top + step) % count] - half for step in reach]
    total = sum(weights)
    shift = sum(weight * step for weight, step in zip(weights, reach, strict=True)) / total if total > 0 else 0.0
    return round(float(angles[top]) + shift * period / count, 3) % period


def bandwidth(curve: Tensor, period: float) -> Tensor:
    """Full width at half height in degrees, from the peak down both sides; half height lies between floor and peak.

    Linear between the measured angles; a curve that never falls to half height on a side gives
    half the period for that side.

    Examples
    --------
    >>> bandwidth(torch.tensor([1.0, 0.5, 0.0, 0.5]), 180).item()
    90.0
    """
    count = curve.shape[-1]
    step = period / count
    flat = curve.reshape(-1, count).to(torch.float64)
    found = torch.empty(flat.shape[0], dtype=torch.float64)
    for row, values in enumerate(flat):
        low, high = float(values.min()), float(values.max())
        if not high > low:
            found[row] = period
            continue
        rolled = torch.roll(values, -int(values.argmax()))
        half = (low + high) / 2
        down = _fall(rolled.tolist(), half)
        up = _fall(torch.roll(rolled.flip(0), 1).tolist(), half)
        found[row] = step * min(down + up, count)
    return found.reshape(curve.shape[:-1]).float()


def angular_difference(first: Tensor, second: Tensor, period: float) -> Tensor:
    """The smaller way from one angle to the other, in degrees, at least 0.

    Examples
    --------
    >>> angular_difference(torch.tensor(175.0), torch.tensor(5.0), 180).item()
    10.0
    """
    apart = torch.remainder(first - second, period)
    return torch.minimum(apart, period - apart)


def _fall(values: list[float], half: float) -> float:
    """How many steps from the first value down to ``half``."""
    for index in range(1, len(values)):
        if values[index] <= half:
            before = values[index - 1]
            return index - 1 + (before - half) / (before - values[index])
    return len(values) / 2
