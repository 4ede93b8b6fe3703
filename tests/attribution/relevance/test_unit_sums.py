"""Amounts of a score decomposition against the definition, and that they add up at each level.

Oracle: without biases a piecewise linear function equals its gradient times its input, gates held; sums by hand from
the weights. Independent: plain functional code, no engine, no relevance rules. Float64; tolerance 1e-9 of the score.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from microtome import Network
from microtome.attribution.relevance import unit_sums as topic
from microtome.attribution.relevance.unit_sums import decompose


class Residual(nn.Module):
    """Two residual blocks: the last sum has both branches and the first block as terms."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.stem, self.one, self.two = (nn.Conv2d(c, 4, 3, padding=1, bias=bias) for c in (1, 4, 4))
        self.head = nn.Linear(4, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = x + F.relu(self.one(x))
        x = x + F.relu(self.two(x))
        return self.head(x.mean((2, 3)))


class Concatenated(nn.Module):
    """Two parallel branches of different width, concatenated."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 4, 3, bias=bias)
        self.left, self.right = nn.Conv2d(4, 2, 1, bias=bias), nn.Conv2d(4, 3, 3, padding=1, bias=bias)
        self.head = nn.Linear(5, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.stem(x))
        x = torch.cat([F.relu(self.left(x)), F.relu(self.right(x))], 1)
        return self.head(F.max_pool2d(x, 6).flatten(1))


class Gated(nn.Module):
    """A squeeze-excite gate and a SiLU; the gate is a constant of the decomposition."""

    def __init__(self, *, bias: bool) -> None:
        super().__init__()
        self.stem, self.body = nn.Conv2d(1, 4, 3, bias=bias), nn.Conv2d(4, 4, 3, bias=bias)
        self.squeeze = nn.Linear(4, 4, bias=bias)
        self.head = nn.Linear(4, 3, bias=bias)

    def forward(self, x: Tensor) -> Tensor:
        x = F.silu(self.stem(x))
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3))))[:, :, None, None]
        return self.head(F.relu(self.body(x)).mean((2, 3)))


LAYERS = {
    Residual: ["stem", "one", "two"],
    Concatenated: ["stem", "left", "right"],
    Gated: ["stem", "body"],
}


def network(kind: type[nn.Module], *, bias: bool) -> tuple[Network, Tensor]:
    torch.manual_seed(0)
    image = torch.rand(1, 1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    return Network(kind(bias=bias).double(), input_shape=(1, 8, 8)), image


def walked(steps: list[Any]) -> list[list[Any]]:
    """Every entry of the tree that was followed."""
    return [entry for step in steps if step[5] for entry in [step, *walked(step[5])]]


@pytest.fixture
def everything_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Name every unit, so that nothing is left for the rest."""
    monkeypatch.setattr(topic, "_NAMED", 1.0)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.usefixtures("everything_named")
def test_without_biases_units_make_the_whole_score_at_each_level(kind: type[nn.Module]) -> None:
    net, image = network(kind, bias=False)
    found = decompose(net, image, 1, LAYERS[kind])
    size = abs(found.score)
    assert found.held
    assert found.score == pytest.approx(float(net.logits(image)[0, 1]), rel=1e-9)
    assert sum(step[2] for step in found.steps) == pytest.approx(found.score, abs=1e-9 * size)
    assert abs(found.rest) < 1e-9 * size  # rounding
    followed = walked(found.steps)
    assert len(followed) >= 6
    for _, _, amount, bias, rest, below in followed:
        assert sum(step[2] for step in below) == pytest.approx(amount, abs=1e-9 * size)
        assert abs(rest) < 1e-9 * size
        assert bias == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize("kind", LAYERS)
@pytest.mark.usefixtures("everything_named")
def test_with_biases_they_are_a_term_of_their_own(kind: type[nn.Module]) -> None:
    net, image = network(kind, bias=True)
    found = decompose(net, image, 0, LAYERS[kind])
    size = sum(abs(step[2]) for step in found.steps)
    assert sum(step[2] for step in found.steps) + found.bias == pytest.approx(found.score, abs=1e-9 * size)
    assert found.bias == pytest.approx(float(net.model.head.bias[0].detach()), rel=1e-9)
    for _, _, amount, bias, rest, below in walked(found.steps):
        assert sum(step[2] for step in below) + bias + rest == pytest.approx(amount, abs=1e-12)
        assert abs(rest) < 1e-9 * size


@pytest.mark.usefixtures("everything_named")
def test_a_residual_sum_has_all_its_terms_by_hand() -> None:
    """The score reads two, one and stem through the stream: each with the same weights of the head."""
    net, image = network(Residual, bias=True)
    model = net.model
    with torch.no_grad():
        stem = model.stem(image)
        first = model.one(stem.relu())
        second = model.two(stem.relu() + first.relu())
        expected = {
            (name, unit): float(model.head.weight[2, unit] * value.relu()[0, unit].mean())
            for name, value in (("stem", stem), ("one", first), ("two", second))
            for unit in range(4)
        }
    found = {(step[0], step[1]): step[2] for step in decompose(net, image, 2, LAYERS[Residual]).steps}
    assert {name for name, _ in found} == {"stem", "one", "two"}
    for key, value in expected.items():
        assert found.get(key, 0.0) == pytest.approx(value, abs=1e-9)


@pytest.mark.usefixtures("everything_named")
def test_parallel_branches_feed_the_score_side_by_side() -> None:
    """A unit of one branch has no parts in the other: below left and right there is only the stem."""
    net, image = network(Concatenated, bias=False)
    found = decompose(net, image, 0, LAYERS[Concatenated])
    assert {step[0] for step in found.steps} == {"left", "right"}
    assert all({part[0] for part in step[5]} == {"stem"} for step in found.steps if step[5])
    assert all({part[0] for part in step[5]} == {"input"} for step in walked(found.steps) if step[0] == "stem")


def test_units_are_named_until_little_is_left() -> None:
    """The fewest largest units with at least 95 % of all amounts, and of the score."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 64, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, 2))
    net, image = Network(model, input_shape=(1, 8, 8)), torch.rand(1, 1, 8, 8)
    found = decompose(net, image, 0, ["0"])
    value = net.activations(image, "1")["1"][0].mean((1, 2)).double()
    amounts = (value * model[4].weight[0].detach().double()).abs().sort(descending=True).values
    named = len(found.steps)
    assert 6 < named < 64
    assert float(amounts[:named].sum()) >= 0.95 * float(amounts.sum())
    assert abs(found.rest) <= 0.05 * abs(found.score)
    fewer = amounts[: named - 1].sum() >= 0.95 * amounts.sum()
    assert not fewer or abs(found.rest + found.steps[-1][2]) > 0.05 * abs(found.score)


class Bent(torch.autograd.Function):
    """An operation that hides its inside: x squared, by a backward pass of its own."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x

    @staticmethod
    def backward(ctx: Any, grad_output: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return 2 * x * grad_output


def test_an_operation_without_a_rule_is_taken_apart_by_gradients() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(1, 3, 3), nn.Linear(3, 2, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(Bent.apply(self.conv(x)).mean((2, 3)))

    torch.manual_seed(0)
    net, image = Network(Odd(), input_shape=(1, 6, 6)), torch.rand(1, 1, 6, 6)
    found = decompose(net, image, 1, ["conv"])
    assert not found.held
    assert sum(step[2] for step in found.steps) + found.rest == pytest.approx(found.score, rel=1e-6)
    z = net.activations(image, "conv")["conv"].clone().requires_grad_()
    net.model.head(Bent.apply(z).mean((2, 3)))[0, 1].backward()
    expected = (z * z.grad)[0].sum((1, 2)).detach()
    for _, unit, amount, *_ in found.steps:
        assert amount == pytest.approx(float(expected[unit]), rel=1e-5)
