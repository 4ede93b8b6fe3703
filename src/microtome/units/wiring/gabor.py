"""Gabor functions, and least-squares fits of Gabor functions to filters."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from scipy.optimize import least_squares
from torch import Tensor

PARAMETERS = ("orientation", "frequency", "phase", "sigma", "aspect", "x", "y", "amplitude", "offset", "goodness")


@dataclass(frozen=True)
class GaborFit:
    """Parameters of the best Gabor fit to each filter, (U,) each.

    Attributes
    ----------
    orientation : Tensor
        Degrees in [0, 180): the angle of the stripes; 0 is horizontal, 45 rises to the right.
    frequency : Tensor
        Cycles per pixel, across the stripes.
    phase : Tensor
        Degrees in [0, 360): 0 is a bright stripe in the middle, 180 a dark stripe, 90 and 270 are edges.
    sigma, aspect : Tensor
        Standard deviation of the envelope across the stripes in pixels; ratio of its length along the
        stripes to its width.
    x, y : Tensor
        Middle of the envelope in pixels, to the right and upwards from the middle of the filter.
    amplitude, offset : Tensor
        Amplitude of the carrier, and the additive constant.
    goodness : Tensor
        Share of the filter's variance that the fit explains, at most 1.
    """

    orientation: Tensor
    frequency: Tensor
    phase: Tensor
    sigma: Tensor
    aspect: Tensor
    x: Tensor
    y: Tensor
    amplitude: Tensor
    offset: Tensor
    goodness: Tensor


class _Solution(NamedTuple):
    """The best cosine, sine and constant for a shape of the carrier: their columns, and what they leave."""

    design: np.ndarray
    normal: np.ndarray
    weights: np.ndarray
    residual: np.ndarray


def gabor(
    size: int | tuple[int, int], *, orientation: float, frequency: float, phase: float = 0.0, sigma: float = 2.0,
    aspect: float = 1.0, x: float = 0.0, y: float = 0.0,
) -> Tensor:  # fmt: skip
    r"""A Gabor function on a grid of pixels, float64.

    .. math:: g = \exp\Big(-\frac{u^2 + (v / \gamma)^2}{2 \sigma^2}\Big) \cos(2 \pi f u + \varphi)

    The coordinate u is across the stripes (to the left of their direction), v is along the stripes.

    Examples
    --------
    >>> [round(value, 3) for value in gabor((3, 1), orientation=0, frequency=0.5, sigma=1.0)[:, 0].tolist()]
    [-0.607, 1.0, -0.607]
    """
    height, width = (size, size) if isinstance(size, int) else size
    values = (math.radians(orientation), frequency, math.radians(phase), math.log(sigma), math.log(aspect), x, y)
    return torch.from_numpy(_carrier(np.array(values), *_grid(height, width))[0])


def fit(filters: Tensor) -> GaborFit:
    r"""Least-squares Gabor fit of each filter.

    The fit minimises :math:`\sum (w - A g - c)^2` over all parameters, from the best points of a coarse
    grid of orientations, frequencies and widths. The problem is linear in amplitude, phase and offset, which
    have a closed form inside the search over the other parameters.

    Parameters
    ----------
    filters : Tensor
        (U, kh, kw), at least 3 x 3.

    Returns
    -------
    GaborFit
        Goodness 0 and NaN parameters for a constant filter.
    """
    rows = [_fit_one(one.detach().cpu().double().numpy()) for one in filters]
    columns = torch.tensor(np.array(rows), dtype=torch.float32, device="cpu").reshape(len(rows), len(PARAMETERS))
    return GaborFit(**{name: columns[:, index] for index, name in enumerate(PARAMETERS)})


def _grid(height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    y = (height - 1) / 2 - np.arange(height, dtype=np.float64)
    x = np.arange(width, dtype=np.float64) - (width - 1) / 2
    return np.broadcast_to(x, (height, width)), np.broadcast_to(y[:, None], (height, width))


def _carrier(values: np.ndarray, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Cosine and sine of the carrier, times the envelope."""
    theta, frequency, phase, log_sigma, log_aspect, x0, y0 = values
    u, v = _turned(theta, x - x0, y - y0)
    sigma, aspect = math.exp(log_sigma), math.exp(log_aspect)
    envelope = np.exp(-(u**2 + (v / aspect) ** 2) / (2 * sigma**2))
    turn = 2 * math.pi * frequency * u + phase
    return envelope * np.cos(turn), envelope * np.sin(turn)


def _turned(theta: float, x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Coordinates across the stripes and along them."""
    return -x * math.sin(theta) + y * math.cos(theta), x * math.cos(theta) + y * math.sin(theta)


def _solved(shape: np.ndarray, x: np.ndarray, y: np.ndarray, target: np.ndarray) -> _Solution:
    """Linear least squares for a shape of the carrier."""
    theta, frequency, log_sigma, log_aspect, x0, y0 = shape
    cosine, sine = _carrier(np.array((theta, frequency, 0.0, log_sigma, log_aspect, x0, y0)), x, y)
    design = np.stack([cosine.ravel(), sine.ravel(), np.ones(x.size)], 1)
    normal = design.T @ design + 1e-9 * np.eye(3)  # at low frequencies the sine vanishes
    weights = np.linalg.solve(normal, design.T @ target)
    return _Solution(design, normal, weights, design @ weights - target)


def _derivative(shape: np.ndarray, x: np.ndarray, y: np.ndarray, target: np.ndarray) -> np.ndarray:
    r"""Derivative of the residual by the shape, (pixels, 6).

    The residual is :math:`D w - t` with :math:`w = N^{-1} D^T t`, so its derivative is
    :math:`D' w - D N^{-1} (D'^T (D w - t) + D^T D' w)`.
    """
    at = _solved(shape, x, y, target)
    theta, frequency, log_sigma, log_aspect, x0, y0 = shape
    u, v = (axis.ravel() for axis in _turned(theta, x - x0, y - y0))
    width, stretch, wave = math.exp(-2 * log_sigma), math.exp(-2 * log_aspect), 2 * math.pi * frequency
    sine, cosine, zero, one = math.sin(theta), math.cos(theta), np.zeros(x.size), np.ones(x.size)
    # How each parameter changes the logarithm of the envelope, and the phase of the carrier: (6, pixels).
    envelope = width * np.stack([
        u * v * (1 - stretch), zero, u**2 + v**2 * stretch, v**2 * stretch,
        v * cosine * stretch - u * sine, u * cosine + v * sine * stretch,
    ])  # fmt: skip
    phase = np.stack([-wave * v, 2 * math.pi * u, zero, zero, wave * sine * one, -wave * cosine * one])
    of_cosine = envelope * at.design[:, 0] - phase * at.design[:, 1]
    of_sine = envelope * at.design[:, 1] + phase * at.design[:, 0]
    moved = of_cosine * at.weights[0] + of_sine * at.weights[1]
    pull = moved @ at.design + np.stack([of_cosine @ at.residual, of_sine @ at.residual, np.zeros(len(moved))], 1)
    slope: np.ndarray = moved.T - at.design @ np.linalg.solve(at.normal, pull.T)
    return slope


def _fit_one(kernel: np.ndarray) -> list[float]:
    target = kernel.ravel()
    variance = float(((target - target.mean()) ** 2).sum())
    if variance <= 1e-20 * max(1.0, float((target**2).sum())):
        return [math.nan] * (len(PARAMETERS) - 1) + [0.0]
    scaled = target / math.sqrt(variance)
    x, y = _grid(*kernel.shape)
    reach = (min(kernel.shape) - 1) / 2
    low = np.array([-np.inf, 0.02, math.log(0.4), math.log(0.4), -reach, -reach])
    high = np.array([np.inf, 0.5, math.log(2 * reach + 1), math.log(5.0), reach, reach])
    starts = _starts(scaled, x, y, reach)
    best, cost = starts[0], math.inf
    for start in starts:
        solution = least_squares(
            lambda s: _solved(s, x, y, scaled).residual, start, jac=lambda s: _derivative(s, x, y, scaled),
            bounds=(low, high), max_nfev=60,
        )  # fmt: skip
        if solution.cost < cost:
            best, cost = solution.x, float(solution.cost)
        if cost < 1e-8:
            break
    return _named(best, x, y, scaled, math.sqrt(variance), cost)


def _starts(target: np.ndarray, x: np.ndarray, y: np.ndarray, reach: float, count: int = 4) -> list[np.ndarray]:
    """The best points of a coarse grid of orientations, frequencies and widths."""
    scored: list[tuple[float, int, np.ndarray]] = []
    for theta in np.arange(12) * math.pi / 12:
        for frequency in (0.06, 0.12, 0.2, 0.3, 0.42):
            for sigma in (reach / 2, reach):
                start = np.array([theta, frequency, math.log(max(sigma, 0.5)), 0.0, 0.0, 0.0])
                residual = _solved(start, x, y, target).residual
                scored.append((float(residual @ residual), len(scored), start))
    return [start for _, _, start in sorted(scored)[:count]]


def _named(
    shape: np.ndarray, x: np.ndarray, y: np.ndarray, target: np.ndarray, scale: float, cost: float
) -> list[float]:
    """The parameters of the search in the units of ``GaborFit``."""
    theta, frequency, log_sigma, log_aspect, x0, y0 = (float(value) for value in shape)
    cosine, sine, constant = _solved(shape, x, y, target).weights
    amplitude, phase = math.hypot(cosine, sine), math.degrees(math.atan2(-sine, cosine))
    turns = math.floor(theta / math.pi)
    if turns % 2:  # a rotation by 180 degrees changes the sign of the phase
        phase = -phase
    orientation = round(math.degrees(theta - turns * math.pi), 4) % 180
    named = (orientation, frequency, round(phase, 4) % 360, math.exp(log_sigma), math.exp(log_aspect), x0, y0)
    return [*named, amplitude * scale, float(constant) * scale, 1 - 2 * cost]
