"""Does a ReLU whose zero is a weight keep its name, whether the weight is frozen, learns or moves?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from microtome import Network, attribution
from microtome.trace.tracing.tracer import Tracer


class Floored(nn.Module):
    """A ReLU whose zero is a weight, in the hidden layer and before the softmax."""

    def __init__(self, floor: nn.Parameter, spelling: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last = nn.Conv2d(1, 4, 3), nn.Linear(144, 3)
        self.floor, self.spelling = floor, spelling

    def forward(self, x: Tensor) -> Tensor:
        x = self.spelling(self.first(x), self.floor)
        return self.spelling(self.last(x.flatten(1)), self.floor).softmax(1)


FLOORS = {
    "maximum": torch.maximum,
    "the constant first": lambda x, floor: torch.maximum(floor, x),
    "max": torch.max,
    "clamp": lambda x, floor: x.clamp(min=floor),
    "clamp_min": lambda x, floor: torch.clamp_min(x, floor),
}


@pytest.mark.parametrize("spelling", FLOORS)
def test_a_floor_that_is_a_weight_keeps_its_name_and_acts_as_a_relu_where_it_is_zero(spelling: str) -> None:
    """Oracle: the same network with torch.relu. A weight may be frozen, learn and move: the names stay."""
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    names = set()
    for value, learns in ((0.0, True), (0.0, False), (0.25, True)):
        floor = nn.Parameter(torch.tensor(value), requires_grad=learns)
        net = Network(Floored(floor, FLOORS[spelling]).eval(), (1, 8, 8))
        names.add(tuple(net.layers))
        tracer = Tracer(net.model, net.head.record, live=net.head.record)
        tracer.run_as_is(net.normalise(x))
        assert net.head.layer in tracer.value
        if not value:
            usual = Network(Floored(floor, lambda x, _: torch.relu(x)).eval(), (1, 8, 8))
            for method in (attribution.guided_backprop, attribution.deconvnet, attribution.lrp):
                torch.testing.assert_close(method(net, x, 0).values, method(usual, x, 0).values)
    assert len(names) == 1
