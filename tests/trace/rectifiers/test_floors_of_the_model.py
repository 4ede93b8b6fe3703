"""Does a ReLU whose zero may change keep its name, whether the zero is a weight, a buffer or a value?"""

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


def in_inference(x: Tensor) -> Tensor:
    with torch.inference_mode():
        return torch.zeros(1)


ZEROS: dict[str, Callable[[Tensor], Tensor]] = {
    "zeros_like": torch.zeros_like,
    "new_zeros": lambda x: x.new_zeros(1),
    "zeros": lambda x: torch.zeros(1, device=x.device),
    "tensor": lambda x: torch.tensor(0.0),
    "moved": lambda x: torch.zeros(1, dtype=torch.float64).to(x.dtype),
    "like another": lambda x: torch.tensor([0.0]).double().type_as(x),
    "a view": lambda x: torch.zeros(3, 3)[0, :1],
    "expanded": lambda x: x.new_zeros(()).expand_as(x),
    "full": lambda x: torch.full_like(x, 0),
    "without gradients": lambda x: in_inference(x).clone(),
}


@pytest.mark.parametrize("zero", ZEROS)
def test_a_zero_that_the_pass_makes_is_a_relu(zero: str) -> None:
    net = opened(0.0, "buffer", lambda x, _: torch.maximum(x, ZEROS[zero](x)))
    assert "/relu" in net.layers
    assert net.activations(torch.rand(2, 1, 8, 8), ["/relu"])["/relu"].min() == 0
    assert attribution.guided_backprop(net, torch.rand(1, 1, 8, 8), 0).values.isfinite().all()


def beyond(x: Tensor) -> Tensor:
    """What exceeds a bound: zero on flat images."""
    return (x.abs() - 1e-4).relu()


def written(x: Tensor) -> Tensor:
    """The same, written on zeros that the pass has made."""
    made = torch.zeros_like(x)
    made.copy_(beyond(x))
    return made


def taken(x: Tensor) -> Tensor:
    """The same, taken as a tensor again."""
    return torch.as_tensor(beyond(x))


class Two(nn.Module):
    """The larger of two maps, of which the second is zero on flat images."""

    def __init__(self, second: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.last, self.second = nn.Conv2d(1, 4, 3), nn.Linear(144, 3), second

    def forward(self, x: Tensor) -> Tensor:
        one = self.first(x)
        return self.last(torch.maximum(one, self.second(one - one.mean((2, 3), keepdim=True))).flatten(1))


@pytest.mark.parametrize("second", [beyond, written, taken])
def test_a_value_that_is_zero_for_the_gray_image_is_no_constant(second: Callable[[Tensor], Tensor]) -> None:
    """All layers of the network, which is read on a gray image, run for other images."""
    net = Network(Two(second).eval(), (1, 8, 8))
    assert "/maximum" in net.layers
    x = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    for name in net.layers:
        net.activations(x, [name])


class Between(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)
        return x.clamp(min=torch.zeros(64), max=torch.full((64,), 0.5))


def test_bounds_of_many_numbers() -> None:
    net = Network(Between(), (1, 8, 8))
    assert "/rectifying_clamp" in net.layers
    x = torch.rand(1, 1, 8, 8)
    torch.testing.assert_close(net.logits(x), x.flatten(1).clamp(0, 0.5))
