"""Labels of deep units: planted ones get theirs, the units of random networks get none."""

from __future__ import annotations

import pytest
import torch

from microtome import units
from microtome.units import Tuning
from microtome.units.stimulus_tuning import labels, noise_floor, stimuli
from units.stimulus_tuning.planted_units import planted_units, random_network

DEPTHS = {2: "2", 3: "4"}
RANDOM_LAYERS = ["0", "3", "5", "8"]


def _right(found: Tuning, unit: int, kind: str, angle: float) -> bool:
    """The label's family and polarity are those that were planted, and its angle is within 15 degrees."""
    family = "edge" if kind == "edge" else "line"
    period = 360 if family == "edge" else 180
    angles = found.direction if family == "edge" else found.angle
    apart = abs((float(angles[unit]) - angle + period / 2) % period - period / 2)
    return found.kind[unit] == family and apart <= 15 and ("dark" in found.labels[unit]) == ("dark" in kind)


def _share_right(seeds: range, depth: int, count: int) -> float:
    right = []
    for seed in seeds:
        net, truth = planted_units(seed, depth, count)
        found = units.tuning(net, DEPTHS[depth], batch=64)
        right += [_right(found, unit, kind, angle) for unit, (kind, angle) in enumerate(truth)]
    return sum(right) / len(right)


def _share_unselective(seeds: range) -> float:
    words = []
    for seed in seeds:
        net = random_network(seed, (5, 7)[seed % 2], (1, 3)[seed // 2 % 2])
        for found in units.tuning(net, RANDOM_LAYERS, batch=64).values():
            words += found.labels
    return words.count(labels.NOT_SELECTIVE) / len(words)


@pytest.mark.parametrize("depth", [2, 3])
def test_planted_deep_units_get_their_labels(depth: int) -> None:
    """Planted truth; a sample of the slow test."""
    assert _share_right(range(2000, 2001), depth, 10) == 1


def test_units_of_a_random_network_are_not_selective() -> None:
    assert _share_unselective(range(100, 101)) >= 0.93


@pytest.mark.slow
@pytest.mark.parametrize("depth", [2, 3])
def test_200_planted_deep_units(depth: int) -> None:
    assert _share_right(range(3000, 3020), depth, 10) >= 0.95


@pytest.mark.slow
def test_units_of_20_random_networks_are_not_selective() -> None:
    assert _share_unselective(range(200, 220)) >= 0.95


def test_a_label_does_not_depend_on_the_other_units_or_the_batch() -> None:
    net, _ = planted_units(5, 2, 6)
    every = units.tuning(net, "2", batch=64)
    order = [4, 1, 0]
    conv = net.model[2]
    with torch.no_grad():
        for one in (conv.weight, conv.bias):
            one.data = one.data[order]
        conv.out_channels = 3
    short = torch.nn.Sequential(*list(net.model)[:4], torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    some = units.tuning(net.around(short), "2", batch=7)
    assert some.labels == tuple(every.labels[unit] for unit in order)
    assert torch.allclose(some.selectivity, every.selectivity[order], rtol=1e-3)
    assert torch.allclose(some.confidence, every.confidence[order], atol=1e-3)


def test_shuffled_stimuli_have_the_same_pixels() -> None:
    """Invariance: blocks are moved and turned, so that the sorted pixels stay; the pictures do not."""
    shown = stimuli.standard(24)
    noise = noise_floor.shuffled(shown)
    assert noise.shape == (240, 1, 24, 24)
    for place in (0, 65, 130, 239):  # 24 is a multiple of every block
        image = shown.images[(place % 60) * len(shown) // 60]
        assert torch.equal(noise[place].flatten().sort().values, image.flatten().sort().values)
    assert not torch.equal(noise[65], shown.images[5 * len(shown) // 60])
    assert torch.equal(noise, noise_floor.shuffled(shown))


def test_the_share_of_random_units_is_monotone() -> None:
    """By hand: at the knots of the table the share is that of the knot, between them it is between."""
    shares, values = zip(*noise_floor.RANDOM_UNITS, strict=True)
    assert torch.allclose(noise_floor.share_of_random_units(torch.tensor(values)), torch.tensor(shares))
    middle = (values[3] + values[4]) / 2
    assert float(noise_floor.share_of_random_units(torch.tensor([middle]))) == pytest.approx(
        (shares[3] + shares[4]) / 2
    )
    assert noise_floor.share_of_random_units(torch.tensor([-1.0, 99.0])).tolist() == [0, 1]
