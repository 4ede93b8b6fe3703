"""Labels by colour: planted hues get their names, gray filters do not."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from microtome import Network, units
from microtome.units.stimulus_tuning import colour_tuning

HUES = (0, 60, 120, 180, 240, 300)


@pytest.fixture(scope="module")
def found() -> dict[str, units.Tuning]:
    """Six blobs of one colour each, a gray edge, and the same one layer further."""
    at = torch.linspace(-1, 1, 5)
    blob = torch.exp(-at[:, None].square() - at[None].square())
    generator = torch.Generator().manual_seed(0)
    kernels = [torch.stack([math.cos(math.radians(hue - 120 * k)) * blob for k in range(3)]) for hue in HUES]
    kernels.append((-at[None] * blob).expand(3, 5, 5))
    first, second = nn.Conv2d(3, 7, 5), nn.Conv2d(7, 7, 3)
    first.weight.data.copy_(torch.stack(kernels) + 0.02 * torch.randn(7, 3, 5, 5, generator=generator))
    second.weight.data.copy_(0.02 * torch.randn(7, 7, 3, 3, generator=generator) + 0.2 * torch.eye(7)[:, :, None, None])
    nn.init.zeros_(first.bias)
    nn.init.zeros_(second.bias)
    model = nn.Sequential(first, nn.ReLU(), second, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    return units.tuning(Network(model, (3, 32, 32), mean=0.5, std=0.25), ["0", "2"], batch=64)


def test_planted_hues_get_their_names(found) -> None:
    for layer in ("0", "2"):
        for unit, hue in enumerate(HUES):
            assert found[layer].kind[unit] == "colour"
            assert found[layer].labels[unit].startswith(f"colour {colour_tuning.hue_name(hue)}")
            apart = abs((float(found[layer].hue[unit]) - hue + 180) % 360 - 180)
            assert apart <= 15
    assert all("against" in label for label in found["0"].labels[:6])  # before the rectifier the opposite hue lowers it


def test_a_gray_edge_has_no_hue(found) -> None:
    for layer in ("0", "2"):
        assert found[layer].labels[6] == "right side of a vertical line"
        assert bool(found[layer].hue[6].isnan())


def test_colours_have_one_mean_and_their_hue() -> None:
    """Closed form: the mean is .5 and the phase of the first Fourier coefficient over channels is the hue."""
    for hue in (0.0, 77.0, 200.0):
        one = colour_tuning.colour(hue, 0.8).double()
        assert float(one.mean()) == pytest.approx(0.5)
        angles = [math.radians(120 * k) for k in range(3)]
        x = sum(float(v) * math.cos(a) for v, a in zip(one, angles, strict=True))
        y = sum(float(v) * math.sin(a) for v, a in zip(one, angles, strict=True))
        assert math.degrees(math.atan2(y, x)) % 360 == pytest.approx(hue, abs=1e-3)
