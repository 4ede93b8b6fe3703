"""The gradient of batch norm for one image is right whatever the layouts in memory are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from microtome import Network, attribution, spaces
from microtome.trace import batch_norm_gradient


class Hybrid(nn.Module):
    """Convolution, batch norm, tokens: the gradient arrives at the batch norm with the channels innermost."""

    def __init__(self, *, tokens_first: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.tokens_first = tokens_first
        self.c, self.n, self.l, self.h = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Linear(6, 5), nn.Linear(5, 4)
        self.p = nn.Linear(6, 6)
        self.n.running_var.uniform_(0.5, 2.0)
        self.n.running_mean.normal_()

    def forward(self, x: Tensor) -> Tensor:
        y = self.c(x)
        if self.tokens_first:  # the input of the batch norm is laid out as tokens, too, the gradient is not
            y = self.p(y.flatten(2).transpose(1, 2)).transpose(1, 2).unflatten(2, y.shape[2:])
            return self.h(nn.functional.linear(self.n(y).square().mean((2, 3)), self.l.weight))
        return self.h(self.l(self.n(y).flatten(2).transpose(1, 2)).square().mean(1))


@pytest.mark.parametrize("tokens_first", [False, True])
@pytest.mark.parametrize("shape", [(8, 7), (8, 3), (3, 9)])
def test_the_gradient_equals_finite_differences(shape: tuple[int, int], *, tokens_first: bool) -> None:
    """Oracle: central differences of the plain model in float64; it takes no backward pass."""
    model = Hybrid(tokens_first=tokens_first).eval()
    image = torch.rand(1, 3, *shape, generator=torch.Generator().manual_seed(1))
    ours = attribution.gradient(Network(model, (3, *shape)), image, target=2).values.double()
    wide = Hybrid(tokens_first=tokens_first).eval()
    wide.load_state_dict(model.state_dict())
    wide.double()
    for seed in range(3):
        way = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.double)
        with torch.no_grad():
            high, low = wide(image.double() + 1e-6 * way), wide(image.double() - 1e-6 * way)
        expected = float((high - low)[0, 2]) / 2e-6
        assert float((ours * way).sum()) == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_guided_and_jacobian_of_one_image_are_those_in_a_batch() -> None:
    net = Network(Hybrid(tokens_first=False).eval(), (3, 8, 7))
    images = torch.rand(3, 3, 8, 7, generator=torch.Generator().manual_seed(1))
    whole = attribution.guided_backprop(net, images, target=1, batch=3).values
    single = attribution.guided_backprop(net, images, target=1, batch=1).values
    torch.testing.assert_close(single, whole, rtol=1e-4, atol=1e-6)
    y = torch.randn(3, 4, generator=torch.Generator().manual_seed(2)).double()
    maps = spaces.jacobian(net, images)
    one = spaces.jacobian(net, images[:1])
    torch.testing.assert_close(one.adjoint(y[:1]), maps.adjoint(y)[:1], rtol=1e-4, atol=1e-6)


TAILS = {
    "mean": lambda y: y.mean((2, 3)),
    "max pool": lambda y: nn.functional.max_pool2d(y, 2).flatten(1),
    "pad": lambda y: nn.functional.pad(y, (1, 1, 1, 1)).flatten(1),
    "cat of chunks": lambda y: torch.cat(y.chunk(2, 1)[::-1], 1).mean((2, 3)),
    "gate": lambda y: (y * y.mean((2, 3), keepdim=True).sigmoid())[:, :, 1:].sum((2, 3)),
}


class Plain(nn.Module):
    """Two convolutions with a batch norm between, and an end."""

    def __init__(self, tail: str, *, late_channels_last: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.norm, self.second = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.Conv2d(6, 4, 3)
        self.norm.running_var.uniform_(0.5, 2.0)
        self.tail = TAILS[tail]
        if late_channels_last:
            self.second = self.second.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> Tensor:
        return self.tail(self.second(self.norm(self.first(x))))


@pytest.mark.parametrize("late_channels_last", [False, True])
@pytest.mark.parametrize("tail", TAILS)
def test_ordinary_networks_keep_the_right_gradient(tail: str, *, late_channels_last: bool) -> None:
    """Oracle: torch's gradient of the same model in float64 for two images, where the fault does not occur."""
    model = Plain(tail, late_channels_last=late_channels_last).eval()
    image = torch.rand(1, 3, 9, 8, generator=torch.Generator().manual_seed(1))
    ours = attribution.gradient(Network(model, (3, 9, 8)), image, target=2).values
    pair = image.double().repeat(2, 1, 1, 1).requires_grad_()
    wide = Plain(tail, late_channels_last=late_channels_last).eval().double()
    expected = torch.autograd.grad(wide(pair)[0, 2], pair)[0][:1]
    torch.testing.assert_close(ours.double(), expected, rtol=1e-4, atol=1e-6)


def test_only_a_graph_that_may_change_a_layout_gets_hooks(monkeypatch: pytest.MonkeyPatch) -> None:
    """In most networks no function changes a layout, so that the walk over the graph is all that it costs."""
    hooked: list[tuple[int, ...]] = []
    monkeypatch.setattr(batch_norm_gradient, "_as_strided", lambda strides: hooked.append(strides) or (lambda _: None))
    image = torch.rand(1, 3, 9, 8, generator=torch.Generator().manual_seed(1)).requires_grad_()
    batch_norm_gradient.align_batch_norm_gradients([Plain("mean", late_channels_last=False).eval()(image)], image)
    assert hooked == []
    batch_norm_gradient.align_batch_norm_gradients([Plain("mean", late_channels_last=True).eval()(image)], image)
    assert len(hooked) == 1
