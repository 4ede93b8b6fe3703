"""Statistics of a pass (moments, histograms, quantiles, dead units) against all activations counted in float64."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from microtome import InputError, Network, units
from microtome.units.streaming import response_distribution
from microtome.units.streaming.layer_statistics import pooled, summarise
from units.streaming.stored_activations import BINS, IMAGES, LAYERS, K, stored


@pytest.mark.parametrize("layer", LAYERS)
def test_moments_activity_and_distribution_equal_those_of_all_activations(
    net: Network, data: Any, top: units.TopPatches, layer: str
) -> None:
    found, every = top[layer], stored(net, data, layer)
    flat = every.transpose(1, 0, 2).reshape(every.shape[1], -1)
    np.testing.assert_allclose(found.mean, flat.mean(1), rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(found.std, flat.std(1), rtol=1e-6, atol=1e-9)
    np.testing.assert_allclose(found.active, (flat > 0).mean(1))
    np.testing.assert_allclose(found.highest, flat.max(1))
    np.testing.assert_allclose(found.lowest, flat.min(1))
    peaks = every.max(2).T
    np.testing.assert_allclose(found.quantiles["max"], np.quantile(peaks, np.linspace(0, 1, 101), axis=1).T, atol=1e-12)
    means = np.quantile(every.mean(2).T, np.linspace(0, 1, 101), axis=1).T
    np.testing.assert_allclose(found.quantiles["mean"], means, atol=1e-12)
    assert (found.images, found.sampled) == (IMAGES, IMAGES)


@pytest.mark.parametrize("layer", LAYERS)
def test_histogram_class_means_and_selectivity(net: Network, data: Any, top: units.TopPatches, layer: str) -> None:
    """Oracle: NumPy's histogram of each class alone; the index written out."""
    found, peaks = top[layer], stored(net, data, layer).max(2).T
    labels = np.array([label for _, label in data])
    for unit, row in enumerate(peaks):
        means = np.array([row[labels == label].mean() for label in range(3)])
        order = np.argsort(-means, kind="stable")
        assert found.groups[unit].tolist() == [*order.tolist(), -1]
        np.testing.assert_allclose(found.class_mean[unit], means[order])
        for column, label in enumerate(order):
            counts, edges = np.histogram(row[labels == label], bins=32, range=(row.min(), row.max()))
            assert found.histogram[unit, column].tolist() == counts.tolist()
            np.testing.assert_allclose(found.edges[unit], edges)
        assert int(found.histogram[unit, -1].sum()) == 0
        above = np.array([np.maximum(row[labels == label], 0).mean() for label in range(3)])
        best = above.max()
        rest = (above.sum() - best) / 2
        expected = (best - rest) / (best + rest) if best + rest > 0 else 0.0
        np.testing.assert_allclose(float(found.selectivity[unit]), expected)


def test_binned_examples_are_in_the_middle_of_their_quantile_bins(
    net: Network, data: Any, top: units.TopPatches
) -> None:
    found, peaks = top["second"], stored(net, data, "second").max(2).T
    for unit, row in enumerate(peaks):
        edges = np.quantile(row, np.linspace(1, 0, BINS + 1))
        for place in range(BINS):
            value = float(found.binned_activation[unit, place])
            assert edges[place + 1] <= value <= edges[place]
            assert value == pytest.approx(row[int(found.binned_image[unit, place])])
            position = found.binned_position[unit, place]
            at = int(position[0]) * found.grid[1] + int(position[1])
            every = stored(net, data, "second")[int(found.binned_image[unit, place]), unit]
            assert every[at] == pytest.approx(value)


def test_dead_and_saturated() -> None:
    """Units made by hand: never positive, always at the bound, at the bound in half of the images, alive."""
    conv = nn.Conv2d(1, 4, 1)
    conv.weight.data = torch.tensor([0.0, 0.0, 100.0, 1.0]).view(4, 1, 1, 1)
    conv.bias.data = torch.tensor([-1.0, 9.0, -50.0, 0.0])
    net = Network(nn.Sequential(conv, nn.ReLU6(), nn.Flatten()), (1, 1, 1))
    top = units.top_patches(net, [torch.full((1, 1, 1), value) for value in (0.1, 0.2, 0.9, 1.0)])
    assert top["1"].dead.tolist() == [True, False, False, False]
    assert top["1"].saturated.tolist() == [False, True, False, False]
    assert top["0"].dead.tolist() == [True, False, False, False]
    assert not top["0"].saturated.any()


def test_percentile(top: units.TopPatches) -> None:
    found = top["second"]
    peak = float(found.quantiles["max"][1, 100])
    assert found.percentile(1, peak + 1) == 100
    assert found.percentile(1, float(found.quantiles["max"][1, 0]) - 1) == 0
    assert found.percentile(1, float(found.quantiles["max"][1, 37])) == pytest.approx(37)
    assert found.percentile(1, peak, distribution="mean") == 100
    with pytest.raises(InputError, match="position"):
        found.percentile(1, 0.0, distribution="median")


def test_a_sample_is_drawn_when_memory_is_short(net: Network, data: Any, top: units.TopPatches) -> None:
    part = units.top_patches(net, data, "second", k=K, sample=10, seed=5)["second"]
    again = units.top_patches(net, data, "second", k=K, sample=10, seed=6)["second"]
    assert (part.images, part.sampled, int(part.histogram[0].sum())) == (IMAGES, 10, 10)
    assert torch.equal(part.image, top["second"].image)  # the tables cover all images all the same
    assert not torch.equal(part.binned_image, again.binned_image)


def test_summarise_in_pieces_equals_in_one(monkeypatch: pytest.MonkeyPatch) -> None:
    value = torch.randn(5, 7, 30, generator=torch.Generator().manual_seed(0))
    whole = summarise(value, (-1.0, 1.0))
    monkeypatch.setattr("microtome.units.streaming.layer_statistics._PIECE", 90)
    parts = summarise(value, (-1.0, 1.0))
    for one in dataclasses.fields(whole):
        torch.testing.assert_close(getattr(whole, one.name), getattr(parts, one.name))
    assert torch.equal(whole.full, ((value > 0.98) | (value < -0.98)).sum(2).float())


def test_quantiles_of_one_image() -> None:
    assert torch.equal(
        response_distribution.quantiles(np.array([[2.0]])), torch.full((1, 101), 2.0, dtype=torch.float64)
    )


@pytest.mark.parametrize("scale", [1.0, 1e-25, 1e25])
def test_the_deviation_keeps_its_digits_beside_a_large_mean(scale: float) -> None:
    """Units that differ by a constant have equal deviations; a constant unit has none. Oracle: NumPy in float64."""
    conv = nn.Conv2d(1, 4, 1)
    conv.weight.data = scale * torch.tensor([1.0, 1.0, 0.0, -3.0]).view(4, 1, 1, 1)
    conv.bias.data = scale * torch.tensor([0.0, 1000.0, 2.37, -1000.0])
    net = Network(nn.Sequential(conv, nn.Flatten()), (1, 6, 5))
    data = torch.rand(20, 1, 6, 5, generator=torch.Generator().manual_seed(0))
    value = net.activations(data, "0")["0"].double().transpose(0, 1).flatten(1).numpy()
    for batch in (3, 20):
        found = units.top_patches(net, list(data), "0", batch=batch)["0"]
        np.testing.assert_allclose(found.mean, value.mean(1), rtol=1e-7)
        np.testing.assert_allclose(found.std[[0, 1, 3]], value.std(1)[[0, 1, 3]], rtol=1e-5)
        assert float(found.std[2]) == 0
        criteria = units.criteria(net, list(data), "0", columns=["variation"], batch=batch)
        np.testing.assert_allclose(criteria.column("variation", "0"), found.std, rtol=1e-5, atol=1e-12 * scale)


def test_pooled_moments_are_those_of_all_values_together() -> None:
    values = 1e6 + torch.rand(30, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    parts = values.split([1, 4, 25])
    each = [torch.stack([torch.tensor(len(one)), one.mean(), one.var(correction=0) * len(one)]) for one in parts]
    found = pooled(torch.stack(each))
    np.testing.assert_allclose(found, [30, values.mean(), 30 * values.var(correction=0)], rtol=1e-9)
