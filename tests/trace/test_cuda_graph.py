"""A repeated function is replayed only where a replay gives what the plain call gives; the recorder is by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from microtome import Network, synthesis
from microtome.trace import cuda_graph
from microtome.trace.cuda_graph import Repeated


class ByHand:
    """Records as a CUDA graph does: the same tensors, the same operations, other numbers; Python runs once only."""

    def __init__(self, fault: float = 0.0, error: str = "") -> None:
        self.fault, self.error, self.replays = fault, error, 0

    def record(self, function, given):
        if self.error:
            raise RuntimeError(self.error)
        self.function, self.given = function, given
        self.made = tuple(value.clone() for value in function(*given))
        return self.made

    def replay(self) -> None:
        self.replays += 1
        for held, new in zip(self.made, self.function(*self.given), strict=True):
            held.copy_(new + self.fault)


def square(x: Tensor) -> tuple[Tensor, Tensor]:
    return x**2, x.sum()[None]


def test_the_third_call_is_replayed_with_the_plain_numbers():
    made = ByHand()
    repeated = Repeated(square, lambda: made)
    for number in range(6):
        x = torch.full((2, 3), float(number))
        found = repeated(x)
        assert torch.equal(found[0], x**2)
        assert float(found[1]) == 6 * number
    assert made.replays == 1 + 4  # one to compare, one for each call after the second
    assert repeated.plain == ""


@pytest.mark.parametrize(
    ("made", "why"),
    [(ByHand(fault=0.1), "differs"), (ByHand(fault=float("nan")), "differs"), (ByHand(error="no graph"), "no graph")],
)
def test_what_differs_or_cannot_be_recorded_runs_plainly(made, why):
    repeated = Repeated(square, lambda: made)
    for number in range(1, 5):
        x = torch.full((2,), float(number))
        assert torch.equal(repeated(x)[0], x**2)
    assert made.replays <= 1
    assert why in repeated.plain


def test_other_shapes_run_plainly():
    made = ByHand()
    repeated = Repeated(square, lambda: made)
    for count in (2, 2, 3, 2):
        x = torch.ones(count)
        assert torch.equal(repeated(x)[0], x**2)
    assert made.replays == 2


def test_a_processor_records_nothing():
    repeated = Repeated(square)
    for _ in range(4):
        repeated(torch.ones(2))
    assert repeated.plain == "the tensors are on cpu"


@pytest.mark.parametrize("random", [False, True])
def test_superstimuli_are_the_same_by_replays(monkeypatch, random):
    """The whole ascent with the recorder by hand; a model that draws random numbers is never recorded."""
    recorders: list[ByHand] = []

    class Always(Repeated):
        def __init__(self, function):
            def make():
                recorders.append(ByHand())
                return recorders[-1]

            super().__init__(function, make)

    torch.manual_seed(0)
    net = Network(nn.Sequential(nn.Conv2d(3, 4, 5), nn.ReLU(), nn.Conv2d(4, 4, 3)).eval(), (3, 70, 70))
    expected = synthesis.maximize(net, "2", channels=[0, 2], steps=5)
    monkeypatch.setattr("microtome.synthesis.optimisation.ascent.Repeated", Always)
    if random:
        net.random = "the model"
    found = synthesis.maximize(net, "2", channels=[0, 2], steps=5)
    assert torch.equal(found.images, expected.images)
    assert torch.equal(found.history, expected.history)
    assert [one.replays for one in recorders] == ([] if random else [1 + 3])
    assert cuda_graph.CudaRecorder is not ByHand
