"""Does a ReLU whose zero the model holds keep its name, whether the zero is frozen, learns or moves?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from microtome import Network, attribution
from microtome.trace.tracing.tracer import Tracer


class Floored(nn.Module):
    """A ReLU whose zero the model holds, in the hidden layer and before the softmax."""

    def __init__(self, value: float, held: str, spelling: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(1, 4, 3), nn.Linear(144, 3)
        floor = torch.tensor(value)
        if held == "buffer":
            self.register_buffer("floor", floor)
        elif held == "view of a buffer":
            self.register_buffer("whole", floor.repeat(3))
        elif held == "list":
            self.floors = [floor]
        else:
            self.floor = floor if held == "attribute" else nn.Parameter(floor, requires_grad=held == "weight")
        self.held, self.spelling = held, spelling

    def forward(self, x: Tensor) -> Tensor:
        floor = (
            self.whole[1] if self.held == "view of a buffer" else self.floors[0] if self.held == "list" else self.floor
        )
        x = self.spelling(self.first(x), floor)
        return self.spelling(self.last(x.flatten(1)), floor).softmax(1)


HELD = ("weight", "frozen weight", "buffer", "view of a buffer", "attribute", "list")
FLOORS = {
    "maximum": torch.maximum,
    "the constant first": lambda x, floor: torch.maximum(floor, x),
    "max": torch.max,
    "clamp": lambda x, floor: x.clamp(min=floor),
    "clamp_min": lambda x, floor: torch.clamp_min(x, floor),
}


def opened(value: float, held: str, spelling: Callable[[Tensor, Tensor], Tensor]) -> Network:
    return Network(Floored(value, held, spelling).eval(), (1, 8, 8))


@pytest.mark.parametrize("held", HELD)
@pytest.mark.parametrize("spelling", FLOORS)
def test_a_floor_that_the_model_holds_keeps_its_name_and_acts_as_a_relu_where_it_is_zero(
    spelling: str, held: str
) -> None:
    """Oracle: the same network with torch.relu. A weight may be frozen, learn and move: the names stay."""
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    names = set()
    for value in (0.0, 0.25):
        net = opened(value, held, FLOORS[spelling])
        names.add(tuple(net.layers))
        tracer = Tracer(net.model, net.head.record, live=net.head.record)
        tracer.run_as_is(net.normalise(x))
        assert net.head.layer in tracer.value
        if not value:
            usual = opened(0.0, held, lambda x, _: torch.relu(x))
            for method in (attribution.guided_backprop, attribution.deconvnet, attribution.lrp):
                torch.testing.assert_close(method(net, x, 0).values, method(usual, x, 0).values)
    assert len(names) == 1
    weight, frozen = (tuple(opened(0.0, one, FLOORS[spelling]).layers) for one in ("weight", "frozen weight"))
    assert names == {weight} == {frozen}


def test_a_buffer_that_changes_is_followed_by_a_network_that_is_open() -> None:
    """Its layers keep their names, and values are those of the new bound."""
    net = opened(0.0, "buffer", torch.maximum)
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        net.model.floor.fill_(0.25)
    for name in net.layers:
        net.activations(x, [name])
    torch.testing.assert_close(net.activations(x, ["/maximum"])["/maximum"], net.model.first(x).clamp(min=0.25))


@pytest.mark.parametrize("zero", [torch.zeros_like, lambda x: x.new_zeros(1), lambda x: torch.tensor(0.0)])
def test_a_zero_that_the_pass_makes_is_a_relu(zero: Callable[[Tensor], Tensor]) -> None:
    assert "/relu" in opened(0.0, "buffer", lambda x, _: torch.maximum(x, zero(x))).layers


class Between(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return x.clamp(min=torch.zeros(64), max=torch.full((64,), 0.5))


def test_bounds_of_many_numbers() -> None:
    net = Network(Between(), (1, 8, 8))
    assert "/rectifying_clamp" in net.layers
    x = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(net.logits(x), x.flatten(1).clamp(0, 0.5))
