"""Bins and kernel bounds against plain replicas of their definitions, and planted values."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.stats import entropy as scipy_entropy

from microtome.errors import InputError
from microtome.training import information
from microtome.training.information import Binning, Kernel, binned_information, kernel_bounds


def published_bins(states: np.ndarray, labels: np.ndarray, edges: np.ndarray) -> tuple[float, float]:
    """The published way: digitised rows as bytes, counted by a dictionary, entropies by scipy. Shares no code."""
    rows = [row.tobytes() for row in np.digitize(states, edges)]

    def bits(of: list[bytes]) -> float:
        counts: dict[bytes, int] = {}
        for row in of:
            counts[row] = counts.get(row, 0) + 1
        return float(scipy_entropy(list(counts.values()), base=2))

    total = bits(rows)
    within = sum(
        np.mean(labels == label) * bits([row for row, one in zip(rows, labels, strict=True) if one == label])
        for label in np.unique(labels)
    )
    return total, total - within


def slow_bounds(states: np.ndarray, labels: np.ndarray, noise: float) -> dict[str, float]:
    """Kolchinsky and Tracey's equations by a loop over pairs in float64; entropies of subsets, not one kernel."""

    def bits(x: np.ndarray, factor: float) -> float:
        total = 0.0
        for one in x:
            total -= math.log(np.mean(np.exp(-((x - one) ** 2).sum(1) / (factor * noise))))
        return total / len(x) / math.log(2)

    parts = [(np.mean(labels == label), states[labels == label]) for label in np.unique(labels)]
    upper, lower = bits(states, 2), bits(states, 8)
    upper_within, lower_within = (sum(share * bits(x, factor) for share, x in parts) for factor in (2, 8))
    h_y = float(scipy_entropy([share for share, _ in parts], base=2))
    return {
        "xt_lower": lower,
        "xt_upper": upper,
        "ty_lower": max(lower - upper_within, 0),
        "ty_upper": min(upper - lower_within, h_y),
        "i_ty": upper - upper_within,
    }


@pytest.mark.parametrize("width", [1, 3, 12, 40])
def test_bins_equal_the_published_way(width: int) -> None:
    """Width 40 goes beyond the digits of one 62-bit number. One sum of logarithms: 1e-12."""
    generator = torch.Generator().manual_seed(width)
    base = torch.randn(40, width, generator=generator)
    states = torch.tanh(base[torch.randint(40, (3, 500), generator=generator)] * 2)
    states[0, :50] += 0.03 * torch.randn(50, width, generator=generator)
    labels = torch.randint(3, (500,), generator=generator)
    found = binned_information(states, labels, Binning(-1, 1, 30))
    for row in range(3):
        expected = published_bins(states[row].double().numpy(), labels.numpy(), np.linspace(-1, 1, 30))
        assert float(found[0][row]) == pytest.approx(expected[0], abs=1e-12)
        assert float(found[1][row]) == pytest.approx(expected[1], abs=1e-12)
    alone = binned_information(states[1], labels, Binning(-1, 1, 30))
    assert [float(value) for value in alone] == [float(value[1]) for value in found]


@pytest.mark.parametrize("scale", [1.0, 300.0])
def test_kernel_bounds_equal_a_slow_replica(scale: float) -> None:
    """Scale 300 needs double precision; scale 1 is single: 1e-5."""
    generator = torch.Generator().manual_seed(0)
    states = scale * torch.randn(150, 3, generator=generator)
    states[75:] = states[:75] + 0.2
    labels = torch.randint(3, (150,), generator=generator) * 2  # a class without images
    found = kernel_bounds(states, labels, 0.1)
    for name, value in slow_bounds(states.double().numpy(), labels.numpy(), 0.1).items():
        assert getattr(found, name) == pytest.approx(value, abs=1e-5 if scale == 1 else 1e-9), name


@pytest.mark.parametrize(("scale", "noise"), [(1e8, 0.1), (1e12, 0.1), (1e30, 0.1), (1.0, 1e-18)])
def test_kernels_count_states_that_are_huge_beside_the_noise(scale: float, noise: float) -> None:
    """By hand: 8 states, 4 times each, are 3 bits. Products of such states cancel, which gave 17 bits and infinity."""
    states = scale * torch.randn(8, 5, generator=torch.Generator().manual_seed(0), dtype=torch.float64).repeat(4, 1)
    labels = torch.arange(32) % 2
    found = kernel_bounds(states, labels, noise)
    assert (found.xt_lower, found.xt_upper) == pytest.approx((3, 3), abs=1e-9)
    assert (found.ty_lower, found.ty_upper, found.i_ty) == (1.0, 1.0, 1.0)  # H(Y), and not beyond
    alone = kernel_bounds(states, torch.zeros(32, dtype=torch.int64), noise)
    assert str(alone.ty_upper) == "0.0"


def test_classes_may_have_any_numbers() -> None:
    """Identifiers as labels: neither memory nor a code grows with the largest number."""
    states = torch.rand(60, 3, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(60) % 3
    large = torch.tensor([7, 2**40, 2**61])[labels]
    assert information.entropy(large) == information.entropy(labels)
    assert binned_information(states, large, Binning(0, 1, 4000)) == binned_information(
        states, labels, Binning(0, 1, 4000)
    )
    assert kernel_bounds(states, large, 0.1) == kernel_bounds(states, labels, 0.1)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_kernel_bounds_bracket_a_gaussian(width: int) -> None:
    r"""Closed form: I(X;T) of X ~ N(0, s^2) and noise sigma^2 is d/2 log2(1 + s^2 / sigma^2)."""
    generator = torch.Generator().manual_seed(width)
    states = 0.6 * torch.randn(2000, width, generator=generator)
    labels = (torch.arange(2000) >= 1000).long()
    truth = width / 2 * math.log2(1 + 0.36 / 0.1)
    found = kernel_bounds(states, labels, 0.1)
    assert found.xt_lower < truth < found.xt_upper
    assert found.xt_upper - found.xt_lower < width


@pytest.mark.parametrize("estimate", [Binning(-40, 40, 30), Kernel(0.01)])
def test_a_planted_discrete_value_comes_back(estimate: Binning | Kernel) -> None:
    """8 states of 32 inputs each: 3 bits. Of each state a quarter is of class 1: the state tells nothing of it;
    classes by halves of the states: all of it. Exact by counting."""
    states = (torch.arange(256) % 8 * 10.0 - 35)[None, :, None]
    apart = estimate(states, (torch.arange(256) % 8 >= 4).long())
    same = estimate(states, (torch.arange(256) // 8 % 4 == 0).long())
    for found, i_ty in ((apart, 1.0), (same, 0.0)):
        assert float(found.i_xt) == pytest.approx(3, abs=1e-12)
        assert float(found.xt_low) == pytest.approx(3, abs=1e-12)
        assert float(found.i_ty) == pytest.approx(i_ty, abs=1e-12)


def test_the_task_by_enumeration() -> None:
    """Every rotation of the icosahedron leaves the labels: its rotations found here as permutations that keep the
    neighbours, by search, not by coordinates of the task's code."""
    task = information.twelve_bits()
    assert tuple(task.inputs.shape) == (4096, 12)
    assert len(task.inputs.unique(dim=0)) == 4096
    assert int(task.labels.sum()) == 2118
    assert information.entropy(task.labels) == pytest.approx(0.99916, abs=5e-6)
    from microtome.training.information.binary_task import _pairs

    near, far, opposite = _pairs()
    assert [int(kind.sum()) for kind in (near, far, opposite)] == [60, 60, 12]
    turn = _symmetry(near.bool().tolist())
    numbers = (task.inputs.long()[:, turn] << torch.arange(12)).sum(1)
    assert torch.equal(task.labels[numbers], task.labels)


def _symmetry(near: list[list[bool]]) -> list[int]:
    """A permutation of the vertices that keeps who is whose neighbour, and moves vertex 0 to 5."""
    places: list[int] = [5]

    def grow() -> bool:
        if len(places) == 12:
            return True
        at = len(places)
        for candidate in range(12):
            if candidate not in places and all(near[at][k] == near[candidate][places[k]] for k in range(at)):
                places.append(candidate)
                if grow():
                    return True
                places.pop()
        return False

    assert grow()
    return places


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(InputError, match="N = 3 labels"):
        binned_information(torch.zeros(2, 4), torch.zeros(3, dtype=torch.int64), Binning(-1, 1))
    with pytest.raises(InputError, match="must be positive, got 0"):
        kernel_bounds(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64), 0.0)


def test_what_cannot_be_counted_is_refused():
    """NaN was counted as one state and gave 0 bits; a label -1 was counted with the state before."""
    states, labels = torch.rand(20, 2), torch.arange(20) % 2
    for estimate in (lambda s, y: information.binned_information(s, y, information.Bins(0, 1)),
                     lambda s, y: information.kernel_bounds(s, y, 0.1)):  # fmt: skip
        for wrong in (torch.full_like(states, torch.nan), states / 0):
            with pytest.raises(InputError, match="finite states only"):
                estimate(wrong, labels)
        for wrong in (labels - 1, labels.float()):
            with pytest.raises(InputError, match="class numbers from 0 were expected"):
                estimate(states, wrong)
    for wrong in (labels[:0], labels.float(), labels - 1):
        with pytest.raises(InputError, match="class numbers from 0"):
            information.entropy(wrong)
    for low, high, edges in ((1, -1, 30), (math.nan, 1, 30), (0, math.inf, 30), (0, 1, 0)):
        with pytest.raises(InputError, match="bins from a finite low"):
            information.Bins(low, high, edges)
