"""A replayed pass gives the bits of a whole pass, and runs no more than what a change can reach."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from conformance.spellings import SPELLINGS, weights
from microtome import Network, trace
from microtome.trace.delta.replay import Replay


def shifted(value: Tensor) -> Tensor:
    return value * 0.5 + 0.1


def replayed(net: Network, x: Tensor, replace: dict[str, Callable[[Tensor], Tensor]]) -> tuple[Tensor, Tensor, int]:
    """Scores of the recorded pass, of the replay, and how many operations the replay ran."""
    replay = Replay(net.model)
    first = trace.Tracer(net.model, rules=replay)(replay.start(x))
    replay.recorded()
    again = trace.Tracer(net.model, rules=replay, replace=replace)(replay.start(x))
    return first, again, replay.ran


@pytest.mark.parametrize("name", list(SPELLINGS))
def test_replay_equals_a_whole_pass_in_every_spelling(name: str) -> None:
    """Oracle: the same replacement in a pass that computes everything. Independent of the recording."""
    spelling = SPELLINGS[name]
    net = Network(spelling.build(weights(spelling.family, 3)), (3, 16, 16))
    torch.manual_seed(0)
    x = net.normalise(torch.rand(4, 3, 16, 16, dtype=torch.float64))
    for layer in (one for one in net.layers if net.layer(one).shape):
        whole = trace.Tracer(net.model, replace={layer: shifted})(x.clone())
        _, again, _ = replayed(net, x, {layer: shifted})
        assert torch.equal(again, whole), layer
    _, again, _ = replayed(net, x, {})
    assert torch.equal(again, net.model(x))
    replay = Replay(net.model)
    trace.Tracer(net.model, rules=replay)(replay.start(x))
    replay.recorded()
    for _ in range(2):  # a replay leaves the recording as it was
        again = trace.Tracer(net.model, rules=replay, replace={spelling.layer: shifted})(replay.start(x))
    assert torch.equal(again, trace.Tracer(net.model, replace={spelling.layer: shifted})(x))


class Chain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Conv2d(2, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.c(torch.relu(self.b(torch.relu(self.a(x))))).mean((2, 3))


def test_only_what_comes_after_the_change_runs() -> None:
    net = Network(Chain(), (1, 9, 9))
    x = torch.rand(2, 1, 9, 9)
    assert replayed(net, x, {})[2] == 0
    assert replayed(net, x, {"b": shifted})[2] == 3  # relu, c, mean
    assert replayed(net, x, {"a": shifted})[2] == 5


class Meeting(nn.Module):
    """Values written on after they were read, views, and a branch that the change does not reach."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(1, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.a(x)
        head = first[:, :2]
        early = first.sigmoid()
        self.relu(first)
        other = self.b(early)
        other += first
        first[:, 1] = 0
        other[:, :2] *= head
        out = self.c(torch.cat((other[:, 2:], head + 0 * first[:, :2]), 1))
        out.relu_()
        return self.fc(out.mean((2, 3)))


@pytest.mark.parametrize("layer", ["a", "b", "c", "relu", "/sigmoid", "/iadd", "/add", "/relu", "/cat", "fc"])
def test_in_place_changes_and_views_survive_a_replay(layer: str) -> None:
    torch.manual_seed(1)
    net = Network(Meeting(), (1, 8, 8))
    if layer not in net.layers:
        pytest.skip(f"{layer} is not listed")
    x = torch.rand(3, 1, 8, 8)
    whole = trace.Tracer(net.model, replace={layer: shifted})(x.clone())
    first, again, _ = replayed(net, x, {layer: shifted})
    assert torch.equal(first, net.model(x.clone()))
    assert torch.equal(again, whole)
    assert not torch.equal(again, first)


def test_a_replacement_takes_no_names_from_the_model() -> None:
    """The operations of a replacement are not the model's: the layer after keeps its name."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(1, 2, 1)

        def forward(self, x: Tensor) -> Tensor:
            return (self.conv(x) + 1.0).mean((2, 3))

    net = Network(Two(), (1, 3, 3))
    seen = []

    def look(value: Tensor) -> Tensor:
        seen.append(value + 1.0)
        return value

    record = net.run(torch.rand(1, 1, 3, 3), record="/add", replace={"conv": look})
    assert torch.equal(record.value["/add"], seen[0])


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch 2.14, in its own forward mode too
def test_what_cannot_be_seen_runs_again() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3), torch.jit.script(nn.Sequential(nn.ReLU(), nn.Conv2d(2, 2, 1))), nn.Flatten()
    )
    net = Network(model, (1, 5, 5))
    x = torch.rand(2, 1, 5, 5)
    whole = trace.Tracer(net.model, replace={"0": shifted})(x)
    assert torch.equal(replayed(net, x, {"0": shifted})[1], whole)
