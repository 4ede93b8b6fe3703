"""Circular statistics of tuning curves: mean direction, peak, bandwidth, angular difference."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def mean_direction(curve: Tensor, angles: Tensor, period: float) -> tuple[Tensor, Tensor]:
    r"""Mean direction and resultant length of responses over angles with a period in degrees.

    .. math:: z = \frac{\sum_i r_i e^{2 \pi i \theta_i / P}}{\sum_i r_i}, \qquad
              \bar\theta = \frac{P}{2 \pi} \arg z, \qquad R = |z|

    With ``period`` 180 this is the usual statistic on doubled angles, because a line rotated by 180
    degrees is the same line. Responses must not be negative. R is 1 if only one angle has a response, and
    0 if all angles have the same response.

    Parameters
    ----------
    curve : Tensor
        (..., A) responses, at least 0.
    angles : Tensor
        (A,) degrees, equally spaced.

    Returns
    -------
    (Tensor, Tensor)
        Direction in [0, period) and resultant length in [0, 1]; NaN and 0 if all responses are zero.

    Examples
    --------
    Equal responses at 170 and 10 degrees have the mean direction 0, not 90.

    >>> direction, length = mean_direction(torch.tensor([1.0, 1.0]), torch.tensor([170.0, 10.0]), 180)
    >>> round(float(direction), 3) % 180, round(float(length), 3)
    (0.0, 0.94)
    """
    radians = angles.to(torch.float64) * (2 * math.pi / period)
    weights = curve.to(torch.float64)
    total = weights.sum(-1)
    real, imaginary = (weights * radians.cos()).sum(-1), (weights * radians.sin()).sum(-1)
    silent = total <= 0
    length = torch.where(silent, torch.zeros_like(total), torch.hypot(real, imaginary) / total.clamp(min=1e-300))
    direction = torch.remainder(torch.atan2(imaginary, real) * (period / (2 * math.pi)), period)
    direction = torch.where(silent, torch.full_like(direction, math.nan), direction)
    return direction.float(), length.float()


def peak(curve: Tensor, angles: Tensor, period: float) -> float:
    """Preferred angle of one curve: the centre of the responses above half height around the largest response.

    Other peaks of the curve have no effect. A flat peak gives its middle.

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
    """Full width at half height in degrees. Half height is the mean of the smallest and largest response.

    Interpolation between angles is linear. If the curve does not fall to half height on one side, this
    side counts as half the period.

    Examples
    --------
    >>> bandwidth(torch.tensor([1.0, 0.5, 0.0, 0.5]), 180).item()
    90.0
    """
    count = curve.shape[-1]
    step = period / count
    flat = curve.reshape(-1, count).to(torch.float64)
    width = torch.empty(flat.shape[0], dtype=torch.float64, device="cpu")
    for row, values in enumerate(flat):
        low, high = float(values.min()), float(values.max())
        if not high > low:
            width[row] = period
            continue
        rolled = torch.roll(values, -int(values.argmax()))
        half = (low + high) / 2
        down = _fall(rolled.tolist(), half)
        up = _fall(torch.roll(rolled.flip(0), 1).tolist(), half)
        width[row] = step * min(down + up, count)
    return width.reshape(curve.shape[:-1]).float()


def angular_difference(first: Tensor, second: Tensor, period: float) -> Tensor:
    """The absolute difference of two angles in degrees, at most half the period.

    Examples
    --------
    >>> angular_difference(torch.tensor(175.0), torch.tensor(5.0), 180).item()
    10.0
    """
    difference = torch.remainder(first - second, period)
    return torch.minimum(difference, period - difference)


def _fall(values: list[float], half: float) -> float:
    """Number of steps from the first value to the crossing of ``half``, with linear interpolation."""
    for index in range(1, len(values)):
        if values[index] <= half:
            before = values[index - 1]
            return index - 1 + (before - half) / (before - values[index])
    return len(values) / 2
