"""Textures have the statistics that they are said to have; planted units get their texture as a label."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from microtome import Network, units
from microtome.errors import InputError
from microtome.units.stimulus_tuning import noise_floor, stimulus_shapes
from microtome.units.stimulus_tuning.texture_tuning import TextureTuning

SIZE, FIELD, PERIOD = 64, 17, 8.0
PLANTED = {"honeycomb": (0.0, 60.0, 120.0), "plaid": (0.0, 90.0), "diagonal plaid": (45.0, 135.0)}


def _planted() -> Network:
    """Units that fire where gratings of certain angles and one period are there at once: filters, energies, a vote.

    The squares of two filters a quarter of a period apart give the energy of a grating at its angle, which saturates
    and is averaged over 15 x 15 places. A unit adds the energies of its angles less a bias that one angle alone, or a
    single line or corner, cannot pass.
    """
    angles = sorted({angle for wanted in PLANTED.values() for angle in wanted})
    x, y = stimulus_shapes.plane(FIELD, FIELD)
    window = torch.exp(-(x**2 + y**2) / 36)
    kernels = []
    for angle in angles:
        for phase in (0.0, 90.0):
            kernel = (stimulus_shapes.wave(stimulus_shapes.across(x, y, angle), PERIOD, phase) - 0.5) * window
            kernel = kernel - window * (kernel.sum() / window.sum())
            kernels.append(kernel / kernel.norm())

    class Planted(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.filters = nn.Conv2d(1, len(kernels), FIELD, bias=False)
            self.filters.weight.data.copy_(torch.stack(kernels)[:, None])
            self.vote = nn.Conv2d(len(angles), len(PLANTED), 1)
            self.vote.weight.data.zero_()
            for unit, wanted in enumerate(PLANTED.values()):
                for angle in wanted:
                    self.vote.weight.data[unit, angles.index(angle)] = 1.0 / len(wanted)
            self.vote.bias.data.fill_(-1.5)
            self.head = nn.Linear(len(PLANTED), 2)

        def forward(self, image: torch.Tensor) -> torch.Tensor:
            pairs = self.filters(image).unflatten(1, (-1, 2))
            energy = (pairs.square().sum(2) + 1e-6).sqrt()
            energy = nn.functional.avg_pool2d(energy.clamp(max=2.0), 15, stride=3)
            return self.head(self.vote(energy).relu().mean((2, 3)))

    return Network(Planted(), (1, SIZE, SIZE))


def test_planted_units_are_labelled_by_their_texture() -> None:
    """Planted truth: what gratings a unit asks for is written into its weights."""
    found = units.tuning(_planted(), "/relu")
    for label, name in zip(found.labels, PLANTED, strict=True):
        assert label == f"texture: {name}, {PERIOD:g} px"
    assert found.kind == ("texture",) * len(PLANTED)
    assert found.by_texture is not None
    best = found.by_texture.argmax(1).tolist()
    assert [units.TEXTURES[place] for place in best] == list(PLANTED)
    assert float(found.confidence.min()) >= 0.985


def test_all_textures_have_one_mean_and_one_contrast() -> None:
    shown = units.textures((40, 32), channels=3)
    assert shown.images.shape[1:] == (3, 40, 32)
    assert set(shown.family) == set(units.TEXTURES)
    flat = shown.images[:, 0].flatten(1)
    assert torch.allclose(flat.mean(1), torch.tensor(0.5), atol=0.02)
    assert torch.allclose(flat.std(1), torch.tensor(0.25), atol=0.03)


def test_natural_noise_has_the_spectrum_of_photographs() -> None:
    """Closed form: the amplitude falls as 1/f, a line of slope -1 on logarithmic axes."""
    images = torch.cat([units.textures(128, phases=8).images[units.textures(128, phases=8).mask("natural noise")]])
    amplitude = torch.fft.fft2(images[:, 0].double() - 0.5).abs().square().mean(0).sqrt()
    at = torch.fft.fftfreq(128, dtype=torch.float64)
    frequency = torch.hypot(at[:, None].expand(128, 128), at[None].expand(128, 128))
    kept = (frequency > 0.03) & (frequency < 0.3)
    x, y = frequency[kept].log(), amplitude[kept].log()
    slope = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert float(slope) == pytest.approx(-1, abs=0.1)


def test_noise_of_one_scale_has_its_period() -> None:
    shown = units.textures(64, periods=[8], phases=6)
    images = shown.images[shown.mask("noise of one scale")][:, 0].double() - 0.5
    power = torch.fft.fft2(images).abs().square().mean(0)
    at = torch.fft.fftfreq(64, dtype=torch.float64)
    frequency = torch.hypot(at[:, None].expand(64, 64), at[None].expand(64, 64))
    assert float((power * frequency).sum() / power.sum()) == pytest.approx(1 / 8, rel=0.15)


def test_sharpness_by_hand() -> None:
    response = torch.tensor([[2.0, 1.0, 0.0, -3.0, 0.0, 0.0, 0.0], [-1.0] * 7])
    found = TextureTuning(response, torch.full((2, 7), math.nan))
    assert found.sharpness.tolist() == pytest.approx([1 - (1 / 6) / 2, 0])
    assert found.selectivity(torch.tensor([4.0, 1.0])).tolist() == pytest.approx([(11 / 12) * 2 / 4, 0])
    assert found.label(0) == "texture: checkerboard"


def test_layers_of_one_place_have_no_texture() -> None:
    net = _planted()
    found = units.tuning(net, "head")
    assert found.by_texture is None
    assert "texture" not in found.kind


@pytest.mark.parametrize("options", [{"size": 2}, {"size": 16, "phases": 0}, {"size": 16, "periods": [1.0]}])
def test_bad_options(options) -> None:
    with pytest.raises(InputError, match="periods from 2 pixels"):
        units.textures(**options)


def test_textures_join_the_standard_stimuli() -> None:
    both = units.stimuli.joined([units.stimuli.standard(24), units.textures(24)])
    assert len(both) == len(units.stimuli.standard(24)) + len(units.textures(24))
    assert noise_floor.shuffled(both).shape[1:] == (1, 24, 24)
