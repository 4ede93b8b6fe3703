"""Textures that fill the image: checkerboards, dots, plaids, honeycombs, noise of one scale, and noise as in photos."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from microtome.errors import InputError
from microtome.results import Provenance, versions
from microtome.units.stimulus_tuning import stimulus_shapes
from microtome.units.stimulus_tuning.stimuli import Size, Stimuli

__all__ = ["TEXTURES", "textures"]

# Angles of the gratings that each regular texture is the sum of, in degrees.
_GRATINGS = {"plaid": (0.0, 90.0), "diagonal plaid": (45.0, 135.0), "honeycomb": (0.0, 60.0, 120.0)}
TEXTURES = ("checkerboard", "dots", *_GRATINGS, "noise of one scale", "natural noise")
_CONTRAST = 0.25  # standard deviation of every texture
_OCTAVE = 0.35  # width of the band of noise of one scale, as a share of its frequency


def textures(
    size: Size, *, periods: Sequence[float] | None = None, phases: int = 3, channels: int = 1, seed: int = 0
) -> Stimuli:
    r"""Textures of mean .5 and equal contrast, each at several scales and in several phases.

    *Noise of one scale* has random phases within a band about one frequency. *Natural noise* has random phases and the
    amplitudes of photographs, :math:`|F(f)| \propto 1 / f`: their second-order statistics, and no edge or line.

    Parameters
    ----------
    size : int or (int, int)
        Height and width in pixels.
    periods : sequence of float, optional
        Pixels from one element to the next; default 4, 8, ... up to a quarter of the image. Natural noise has none.
    phases : int
        Shifts of regular textures, and draws of noise.
    channels : int
        Number of channels of the images, all equal.
    seed : int
        Of the noise.

    Returns
    -------
    Stimuli
        ``width`` is the period, ``phase`` the number of the shift or draw.

    Raises
    ------
    InputError
        When a size or number is not positive, or a period is below 2 pixels.

    References
    ----------
    .. [1] Field, Relations between the statistics of natural images and the response properties of cortical cells,
       Journal of the Optical Society of America A 4, 1987.

    Examples
    --------
    >>> one = textures(16, periods=[8], phases=1)
    >>> one.describe(0), [round(float(x), 2) for x in (one.images[0].mean(), one.images[0].std(correction=0))]
    ('checkerboard, width 8, phase 0, polarity 1', [0.5, 0.25])
    """
    height, width = (size, size) if isinstance(size, int) else size
    short = min(height, width)
    if periods is None:
        periods = [float(4 * 2**step) for step in range(8) if 4 * 2**step <= max(4, short / 4)]
    if short < 3 or phases < 1 or channels < 1 or not periods or min(periods) < 2:
        raise InputError(
            f"at least 3 x 3 pixels, one phase and channel and periods from 2 pixels were expected, got {height} x "
            f"{width}, {phases}, {channels} and {list(periods)}."
        )
    generator = torch.Generator().manual_seed(seed)
    planes = stimulus_shapes.plane(height, width)
    rows = []
    for name in TEXTURES:
        for period in [math.nan] if name == "natural noise" else periods:
            for phase in range(phases):
                shift = period * phase / phases
                drawn = _drawn(name, (planes[0] + shift, planes[1] + shift / 2), period, generator)
                rows.append((_of_contrast(drawn), name, period, float(phase)))
    images, family, width_of, phase_of = zip(*rows, strict=True)
    nothing = torch.full((len(rows),), math.nan, dtype=torch.float32, device="cpu")
    return Stimuli(
        provenance=Provenance("stimuli.textures", {"size": [height, width], "periods": list(periods), "phases": phases,
                                                   "channels": channels}, seed=seed, versions=versions()),
        images=torch.stack(images)[:, None].expand(-1, channels, -1, -1).contiguous(),
        family=family,
        angle=nothing,
        side=nothing,
        offset=nothing,
        width=torch.tensor(width_of, dtype=torch.float32, device="cpu"),
        phase=torch.tensor(phase_of, dtype=torch.float32, device="cpu"),
        polarity=torch.ones(len(rows), dtype=torch.float32, device="cpu"),
    )  # fmt: skip


def _drawn(name: str, planes: tuple[Tensor, Tensor], period: float, generator: torch.Generator) -> Tensor:
    x, y = planes
    if name == "checkerboard":
        cells = torch.sin(2 * math.pi * x / period) * torch.sin(2 * math.pi * y / period)
        steep: Tensor = cells.mul(2).clamp(-1, 1)  # borders without steps below a pixel
        return steep
    if name == "dots":
        across, down = (one - period * (one / period).round() for one in planes)
        return stimulus_shapes.disc(across, down, period / 4)
    if name in _GRATINGS:
        waves = [stimulus_shapes.wave(stimulus_shapes.across(x, y, angle), period, 0.0) for angle in _GRATINGS[name]]
        return torch.stack(waves).sum(0)
    frequency = _frequency(x.shape[0], x.shape[1])
    if name == "natural noise":
        amplitude = 1 / frequency.clamp(min=1 / max(x.shape))
    else:
        amplitude = torch.exp(-(((frequency * period - 1) / _OCTAVE) ** 2) / 2)
    amplitude[0, 0] = 0
    noise = torch.randn(x.shape, generator=generator, device="cpu", dtype=x.dtype)
    shaped: Tensor = torch.fft.irfft2(torch.fft.rfft2(noise) * amplitude, s=x.shape)
    return shaped


def _frequency(height: int, width: int) -> Tensor:
    rows = torch.fft.fftfreq(height, device="cpu", dtype=torch.float64)[:, None]
    columns = torch.fft.rfftfreq(width, device="cpu", dtype=torch.float64)[None]
    return torch.hypot(rows.expand(height, columns.shape[1]), columns.expand(height, -1))


def _of_contrast(drawn: Tensor) -> Tensor:
    """Scale to mean .5 and the contrast of all textures; values outside the range are clipped."""
    centred = drawn - drawn.mean()
    return (0.5 + _CONTRAST * centred / centred.std(correction=0).clamp(min=1e-12)).clamp(0, 1).float()
