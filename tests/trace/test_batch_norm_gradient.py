"""The gradient of batch norm for one image is right whatever the layouts in memory are."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from microtome import Network, attribution, spaces


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
