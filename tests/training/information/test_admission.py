"""Does the test of an estimator refuse what is hopeless, and admit what is known to work?"""

from __future__ import annotations

import math

import pytest
import torch

from microtome.errors import InputError
from microtome.training.information import Binning, Kernel, admission, admit

HOPELESS = [(512, 64, 5.5), (64, 200, 7.0), (10, 300, 8.0), (4, 500, 8.9), (100, 1000, 9.9)]


@pytest.mark.parametrize("estimator", [Binning(-1, 1), Kernel(0.1)])
@pytest.mark.parametrize(("width", "samples", "reported"), HOPELESS)
def test_refuses_what_cannot_be_known(estimator: Binning | Kernel, width: int, samples: int, reported: float) -> None:
    """1.25 times the report is above or near log2 N: no estimate from N samples can tell such values apart."""
    verdict = admit(estimator, width, samples, reported=reported)
    assert not verdict.admitted
    assert "planting of" in verdict.reason


@pytest.mark.parametrize("width", [1, 2, 10, 64])
def test_admits_little_information_in_many_samples(width: int) -> None:
    assert admit(Binning(-1, 1), width, 4000, reported=2.0).admitted
    assert admit(Kernel(0.1), width, 1000, reported=1.0, trials=3).admitted


def test_all_inputs_that_exist_are_no_sample() -> None:
    """Counting states over all inputs is exact, to the ceiling itself; the same report from a sample is refused."""
    assert admit(Binning(-1, 1), 10, 4096, reported=12.0, exhaustive=True).admitted
    assert not admit(Binning(-1, 1), 10, 4096, reported=12.0).admitted


def test_gaussian_plantings_have_the_value_that_they_claim() -> None:
    """A million draws of one planted unit, counted by torch.histc: the entropy is the planted one to 0.01 bit."""
    bins = Binning(-1, 1)
    generator = torch.Generator().manual_seed(0)
    states, _, bits, _ = admission._gaussian(bins, 1.7, 1, 1_000_000, generator)
    counts = torch.histc(states.float(), 29, -1, 1)
    share = counts / counts.sum()
    assert bits == 1.7
    assert float(-torch.special.xlogy(share, share).sum()) / math.log(2) == pytest.approx(1.7, abs=0.01)


def test_discrete_plantings_have_the_value_that_they_claim() -> None:
    """Recounted from the planted states and labels by a dictionary."""
    generator = torch.Generator().manual_seed(0)
    states, labels, i_xt, i_ty = admission._discrete(Kernel(0.1), 3.0, 2, 400, generator)
    joint: dict[tuple, int] = {}
    for state, label in zip(states.tolist(), labels.tolist(), strict=True):
        joint[(*state, label)] = joint.get((*state, label), 0) + 1
    states_alone: dict[tuple, int] = {}
    for (*state, _), count in joint.items():
        states_alone[tuple(state)] = states_alone.get(tuple(state), 0) + count

    def bits(counts: list[int]) -> float:
        return -sum(count / 400 * math.log2(count / 400) for count in counts)

    h_y = bits([int((labels == one).sum()) for one in (0, 1)])
    assert i_xt == pytest.approx(bits(list(states_alone.values())), abs=1e-9) == pytest.approx(3.0)
    assert i_ty == pytest.approx(h_y + i_xt - bits(list(joint.values())), abs=1e-9)
    assert 0.1 < i_ty < h_y - 0.1


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(InputError, match="got width 0"):
        admit(Kernel(), 0, 10)
