"""Is every pixel's relevance what the papers say? Random small networks against dense float64 matrices."""

from __future__ import annotations

import pytest
import torch

from microtome import Network, attribution
from microtome.attribution import rules
from oracles.relevance_by_hand import SIDE, RandomNetwork, draw, relevance

# Names of the replica's rules, ours, and the stabiliser, which also holds for sums, pooling and products.
CASES = {
    "epsilon": (rules.Epsilon(), 1e-6),
    "epsilon, large": (rules.Epsilon(0.1), 0.1),
    "z-plus": (rules.ZPlus(), 1e-6),
    "gamma": (rules.Gamma(0.25), 1e-6),
    "alpha-beta": (rules.AlphaBeta(), 1e-6),
}
SEEDS = range(60)


def images(seed: int) -> torch.Tensor:
    return torch.rand(2, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(1000 + seed), dtype=torch.float64)


@pytest.mark.parametrize("seed", SEEDS)
def test_random_networks(seed: int) -> None:
    """Float64, sums in another order: at most 1e-7 of the map's largest value; 1e-13 was measured."""
    steps = draw(seed)
    net = Network(RandomNetwork(steps), (3, SIDE, SIDE))
    x = images(seed)
    for name, (rule, epsilon) in CASES.items():
        found = attribution.lrp(net, x, 1, rules=rule)
        kinds = [step.kind for step in steps]
        for index in range(len(x)):
            expected = relevance(steps, x[index], 1, name.partition(",")[0], epsilon)
            off, largest = float((found.values[index] - expected).abs().max()), float(expected.abs().max())
            assert off <= 1e-7 * largest, (name, index, off, largest, kinds)  # all zero where nothing speaks for it
        total = found.values.sum((1, 2, 3)) + found.bias_share + found.stabiliser_share
        scale = found.values.abs().sum((1, 2, 3)) + found.score.abs()
        assert bool(((total - found.score).abs() < 1e-7 * scale).all()), (name, total, found.score, kinds)


def test_the_seeds_draw_every_kind_of_step() -> None:
    drawn = {step.kind for seed in SEEDS for step in draw(seed)}
    assert drawn >= set(
        "conv bn relu leaky maxpool avgpool upsample add cat gate glu norm attention mean linear".split()
    )
