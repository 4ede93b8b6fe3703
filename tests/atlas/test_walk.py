"""Do the amounts of a walk add up to the score? A network without biases leaves no rest; one with them leaves them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from microtome import Network
from microtome.atlas.walk import walk


def network(*, bias: bool) -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3, bias=bias), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(3, 4, 2, bias=bias), nn.ReLU(),
        nn.Flatten(), nn.Linear(4 * 4, 2, bias=bias),
    )  # fmt: skip
    return Network(model.double(), input_shape=(1, 8, 8))


def leaves(parts: list[Any]) -> float:
    return sum(part[2] for part in parts)


def test_without_biases_units_make_the_whole_score() -> None:
    """Oracle: a piecewise linear function without offset equals its gradient times its input."""
    net, image = network(bias=False), torch.rand(1, 1, 8, 8, dtype=torch.float64)
    found = walk(net, image, 1, ["0", "3"])
    assert found.score == pytest.approx(float(net.logits(image)[0, 1]), rel=1e-9)
    assert leaves(found.steps) == pytest.approx(found.score, rel=1e-9)
    assert found.rest == pytest.approx(0, abs=1e-12)
    for _, _, amount, rest, below in found.steps:
        if below:
            assert leaves(below) == pytest.approx(amount, rel=1e-9)
            assert rest == pytest.approx(0, abs=1e-12)
    assert any(below for *_, below in found.steps)


def test_with_biases_the_rest_says_what_they_give() -> None:
    net, image = network(bias=True), torch.rand(1, 1, 8, 8, dtype=torch.float64)
    found = walk(net, image, 0, ["0", "3"])
    assert leaves(found.steps) + found.rest == pytest.approx(found.score, rel=1e-9)
    assert found.rest == pytest.approx(float(net.model[6].bias[0].detach()), rel=1e-9)
