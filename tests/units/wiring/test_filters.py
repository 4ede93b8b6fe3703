"""Filters: the weights as used, and the Gabor fit recovers what was planted."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from microtome import Network, units
from microtome.errors import LayerError
from microtome.units.wiring import gabor


def _gabor(size, orientation, frequency, phase, sigma, aspect):
    """Written out pixel by pixel from the formula, apart from the module's own."""
    out = torch.zeros(size, size, dtype=torch.float64)
    t = math.radians(orientation)
    for i in range(size):
        for j in range(size):
            x, y = j - (size - 1) / 2, (size - 1) / 2 - i
            u, v = -x * math.sin(t) + y * math.cos(t), x * math.cos(t) + y * math.sin(t)
            envelope = math.exp(-(u * u + (v / aspect) ** 2) / (2 * sigma * sigma))
            out[i, j] = envelope * math.cos(2 * math.pi * frequency * u + math.radians(phase))
    return out


@pytest.mark.parametrize("size", [5, 7, 11])
def test_the_fit_recovers_planted_parameters(size):
    planted = [(15.0 * n, (0.14, 0.2, 0.25)[n % 3], (50.0 * n) % 360, size / 4, 1 + 0.1 * (n % 3)) for n in range(12)]
    found = gabor.fit(torch.stack([2 * _gabor(size, *p) + 0.1 for p in planted]))
    for index, (orientation, frequency, phase, sigma, aspect) in enumerate(planted):
        assert abs((float(found.orientation[index]) - orientation + 90) % 180 - 90) < 0.5
        assert float(found.frequency[index]) == pytest.approx(frequency, abs=0.005)
        assert abs((float(found.phase[index]) - phase + 180) % 360 - 180) < 2
        assert float(found.sigma[index]) == pytest.approx(sigma, rel=0.05)
        assert float(found.aspect[index]) == pytest.approx(aspect, rel=0.05)
        assert float(found.amplitude[index]) == pytest.approx(2, rel=0.05)
        assert float(found.offset[index]) == pytest.approx(0.1, abs=0.03)
        assert float(found.goodness[index]) > 0.999


def test_goodness_is_the_share_of_variance_and_low_for_noise():
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(6, 11, 11, generator=generator)
    clean = _gabor(11, 30, 0.2, 0, 2.5, 1.0).float()
    mixed = clean + 0.1 * noise[0]
    found = gabor.fit(torch.cat([noise, mixed[None], torch.ones(1, 11, 11)]))
    assert float(found.goodness[:6].max()) < 0.5
    left = float((0.1 * noise[0]).var() / mixed.var())
    assert float(found.goodness[6]) == pytest.approx(1 - left, abs=0.05)
    assert float(found.goodness[7]) == 0
    assert math.isnan(float(found.orientation[7]))


def test_turning_a_filter_turns_its_orientation():
    kernel = _gabor(9, 20, 0.17, 60, 2.0, 1.2)
    found = gabor.fit(torch.stack([torch.rot90(kernel, turns) for turns in range(4)]))
    for turns in range(4):
        assert abs((float(found.orientation[turns]) - 20 - 90 * turns + 90) % 180 - 90) < 0.5


def test_filters_are_those_in_use_and_only_first_layers_are_fitted():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Conv2d(4, 6, 3, groups=2), nn.Flatten())
    net = Network(model, input_shape=(3, 12, 12), mean=0.5, std=0.2)
    first, second = units.filters(net, "0"), units.filters(net, "2")
    assert torch.equal(first.weights, model[0].weight.detach())
    assert first.first
    assert not second.first
    assert second.groups == 2
    assert first.goodness.isfinite().all()
    assert second.goodness.isnan().all()
    assert units.filters(net, "2", fit=True).goodness.isfinite().all()
    assert first.table().columns[0] == "unit"
    with pytest.raises(LayerError, match="choose 0, 2"):
        units.filters(net, "1")


def test_the_profile_of_a_colour_filter_is_its_first_principal_component():
    """Oracle: the leading eigenvector of the channels' Gram matrix."""
    torch.manual_seed(1)
    picture = _gabor(7, 45, 0.2, 0, 2.0, 1.0)
    weights = (torch.tensor([0.2, -1.0, 0.5])[:, None, None] * picture)[None].float()
    net = Network(nn.Sequential(nn.Conv2d(3, 1, 7), nn.Flatten()), input_shape=(3, 9, 9))
    with torch.no_grad():
        net.model[0].weight.copy_(weights)
    found = units.filters(net, "0")
    assert float(found.profile_share[0]) == pytest.approx(1, abs=1e-5)
    flat = found.profile[0].flatten().double()
    assert abs(float(flat @ picture.flatten() / flat.norm() / picture.norm())) == pytest.approx(1, abs=1e-5)
    assert float(flat @ picture.flatten()) < 0  # the sign of the strongest channel
    assert float(found.orientation[0]) == pytest.approx(45, abs=1)


@pytest.mark.parametrize("turns", [-1, 0, 1, 2])
def test_the_named_parameters_make_the_fitted_filter_again(turns):
    """A search may end half a turn away: the sides swap, so the phase must change its sign."""
    x, y = gabor._grid(9, 9)
    shape = torch.tensor(
        [0.4 + turns * math.pi, 0.18, math.log(2.0), math.log(1.3), 0.5, -0.25], dtype=torch.float64
    ).numpy()
    target = _gabor(9, 130, 0.18, 75, 2.0, 1.3).flatten().numpy()
    left = gabor._solved(shape, x, y, target).residual
    named = gabor._named(shape, x, y, target, 1.0, 0.5 * float(left @ left))
    orientation, frequency, phase, sigma, aspect, right, up, amplitude, offset, _ = named
    again = gabor.gabor(
        9, orientation=orientation, frequency=frequency, phase=phase, sigma=sigma, aspect=aspect, x=right, y=up
    )
    expected = torch.from_numpy(left + target).reshape(9, 9)
    assert torch.allclose(amplitude * again + offset, expected, atol=1e-5)


def test_the_derivative_of_the_fit_is_that_of_finite_differences():
    """An error in it would only make the search slower, or end it early."""
    draws = np.random.default_rng(0)
    x, y = gabor._grid(7, 5)
    for _ in range(5):
        shape, target = draws.uniform([0, 0.05, 0, -0.5, -1, -1], [3, 0.45, 1, 1, 1, 1]), draws.normal(size=35)
        moved = [
            (gabor._solved(shape + step, x, y, target).residual - gabor._solved(shape - step, x, y, target).residual)
            / 2e-6
            for step in 1e-6 * np.eye(6)
        ]
        assert np.allclose(gabor._derivative(shape, x, y, target), np.stack(moved, 1), atol=1e-7)
