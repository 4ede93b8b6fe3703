"""Canvases: what stays fixed, and ascents that begin at real images."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from microtome import Network
from microtome.synthesis import Prior, maximize
from microtome.synthesis.optimisation.canvas import Fourier, Phases

SHAPE = (2, 3, 16, 12)


def _pictures() -> Tensor:
    return 0.1 + 0.8 * torch.rand(SHAPE, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("channels", [1, 3])
def test_a_canvas_that_begins_at_images_shows_them(channels: int) -> None:
    """Oracle: the images themselves; the way there and back has no loss inside the range."""
    pictures = _pictures()[:, :channels]
    shape = (2, channels, 16, 12)
    spectrum = Fourier.spectrum(shape)
    for canvas in (Fourier(shape, torch.zeros(spectrum)), Phases(shape, torch.zeros(spectrum[:-1]))):
        canvas.begin(pictures)
        assert torch.allclose(canvas.images(), pictures, atol=1e-4)


def test_magnitudes_stay_whatever_the_phases() -> None:
    """Oracle: numpy-style FFT of the image before the sigmoid; the magnitudes are 1/f and the same for any phases."""
    generator = torch.Generator().manual_seed(1)
    shape = (1, 1, 16, 16)
    found = []
    for _ in range(2):
        canvas = Phases(shape, torch.rand(Fourier.spectrum(shape)[:-1], generator=generator))
        with torch.no_grad():
            canvas.parameters.add_(torch.randn(canvas.parameters.shape, generator=generator))
        plane = canvas.images().detach().logit()[0, 0]
        found.append(torch.fft.rfft2(plane).abs()[:, 1:-1])  # the first and the last column must be Hermitian
    rows, columns = torch.fft.fftfreq(16)[:, None], torch.fft.rfftfreq(16)[None]
    frequency = (rows.square() + columns.square()).sqrt()[:, 1:-1]
    for magnitude in found:
        scaled = magnitude * frequency
        assert float(scaled.std() / scaled.mean()) < 1e-3


def _net() -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 3, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return Network(model, (3, 16, 12))


@pytest.mark.parametrize("canvas", ["pixels", "fourier", "phase"])
def test_an_ascent_begins_at_the_images_given(canvas: str) -> None:
    """A tiny rate leaves the image; a usual one raises the unit above it. Each unit has its own image."""
    net, pictures = _net(), _pictures()
    still = Prior(canvas=canvas, lr=1e-9, noise=0.0)
    made = maximize(net, "2", channels=[0, 2], size=(16, 12), begin=pictures, steps=2, prior=still, reduction="mean")
    assert torch.allclose(made.images, pictures, atol=1e-3)
    turned = maximize(
        net, "2", channels=[2, 0], size=(16, 12), begin=pictures.flip(0), steps=2, prior=still, reduction="mean"
    )
    assert torch.allclose(turned.images, made.images.flip(0), atol=1e-4)
    moved = maximize(
        net, "2", channels=[0, 2], size=(16, 12), begin=pictures, steps=16, prior=Prior(canvas=canvas), reduction="mean"
    )
    assert bool((moved.activation > made.activation).all())
