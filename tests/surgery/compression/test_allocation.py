"""A budget of multiply-adds is met by channels that all have to go."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from torch import nn

from microtome import Network
from microtome.surgery import compress
from microtome.surgery.compression.allocation import allocate


class Sums:
    """The multiply-adds of layers that follow each other: products of successive widths."""

    def __init__(self, widths: list[int]) -> None:
        self.sizes = np.array(widths)

    def of(self, kept: np.ndarray) -> float:
        wide = [3, *kept.tolist(), 2]
        return float(sum(a * b for a, b in itertools.pairwise(wide)))


@pytest.mark.parametrize("seed", range(60))
def test_the_budget_holds_and_no_channel_goes_in_vain(seed: int) -> None:
    """Oracle: every single channel put back breaks the budget; random costs, not convex, widths from 2 to 80."""
    draw = np.random.default_rng(seed)
    work = Sums(draw.integers(2, 80 if seed % 3 == 0 else 9, 3).tolist())
    costs = [np.cumsum(draw.random(size - 1) ** 3).tolist() for size in work.sizes]
    whole, least = work.of(work.sizes), work.of(np.ones(3))
    budget = least + draw.random() * (whole - least)
    gone = np.array(allocate(work, costs, budget))  # type: ignore[arg-type]  # only sizes and of() are asked
    assert work.of(work.sizes - gone) <= budget
    for family in np.flatnonzero(gone):
        back = gone.copy()
        back[family] -= 1
        assert work.of(work.sizes - back) > budget


def test_the_last_step_is_the_cheapest_that_suffices() -> None:
    """A channel of the first layer saves 7 of 36 for 3.0, one of the second 6 for 2.9; 6 suffice, then 7 must go."""
    work = Sums([4, 4])
    assert work.of(work.sizes) == 36
    assert allocate(work, [[3.0, 6.0, 9.0], [2.9, 6.0, 9.0]], 30.0) == [0, 1]  # type: ignore[arg-type]  # as above
    assert allocate(work, [[3.0, 6.0, 9.0], [2.9, 6.0, 9.0]], 29.0) == [1, 0]  # type: ignore[arg-type]  # as above


@pytest.mark.parametrize(("asked", "channels"), [(0.99, 5), (0.8, 4), (0.5, 3), (0.34, 2), (0.2, 1)])
def test_a_tiny_network_is_left_with_the_nearest_share_below_the_one_asked(asked: float, channels: int) -> None:
    """One layer of six channels, each of which is a sixth of all multiply-adds."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Flatten(), nn.Linear(96, 2)).eval()
    found = compress(Network(model, (1, 6, 6)), list(torch.rand(40, 1, 6, 6)), multiply_adds=asked)
    assert found.share == pytest.approx(channels / 6)
    assert found.asked == asked
