"""Are gradients summed behind the affine first layers, and sent back once, those summed at the pixels?"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from microtome import Network, attribution
from microtome.attribution.gradients.affine_prefix import entrance
from microtome.attribution.gradients.integrated_gradients import quadrature


class Cube(torch.autograd.Function):
    """Somebody's own function, of which the engine sees nothing but that a value appears."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return torch.from_numpy(x.detach().numpy() ** 3)

    @staticmethod
    def backward(ctx, signal: Tensor) -> Tensor:
        return 3 * ctx.saved_tensors[0] ** 2 * signal


class Skipping(nn.Module):
    """The image reaches the scores past the convolution, too, in the open or by a path that cannot be seen."""

    def __init__(self, *, hidden: bool) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 2, 3, padding=1)
        self.head = nn.Linear(72, 3)
        self.past = Cube.apply if hidden else nn.Tanh()

    def forward(self, x: Tensor) -> Tensor:
        return self.head((self.conv(x).relu() + self.past(x)).flatten(1))


class Bending(nn.Module):
    """A convolution of somebody's own that bends what it reads."""

    def __init__(self) -> None:
        super().__init__()
        self.before = nn.ReLU()
        self.weight = nn.Parameter(torch.randn(3, 2, 3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return nn.functional.conv2d(self.before(x), self.weight)


def bending() -> nn.Module:
    return nn.Sequential(Bending(), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))


def plain() -> nn.Module:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(4)
    norm.running_mean.uniform_(-1, 1)
    norm.running_var.uniform_(0.5, 2)
    return nn.Sequential(
        nn.ReflectionPad2d(1), nn.Conv2d(2, 4, 3, stride=2), norm, nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(36, 3)
    )


def by_points(net: Network, images: Tensor, steps: int) -> Tensor:
    """Integrated gradients from black, one point after the other, at the pixels."""
    nodes, weights = quadrature("gauss-legendre", steps)
    total = torch.zeros_like(images)
    for node, weight in zip(nodes, weights, strict=True):
        total += weight * net.run(node * images, 1, record="input", gradient=True).gradient["input"]
    return images * total


@pytest.mark.parametrize(
    ("model", "found"),
    [
        (plain(), "2"),
        (Skipping(hidden=False), "input"),
        (bending(), "input"),
        (nn.Sequential(nn.BatchNorm2d(2, track_running_stats=False), nn.Flatten(), nn.Linear(72, 3)), "input"),
        (nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(72, 3)), "input"),
    ],
)
def test_the_entrance_ends_where_something_bends_or_another_way_begins(model: nn.Module, found: str) -> None:
    assert entrance(Network(model, input_shape=(2, 6, 6))) == found


@pytest.mark.parametrize("build", [plain, bending, lambda: Skipping(hidden=False), lambda: Skipping(hidden=True)])
def test_integrated_gradients_are_those_summed_at_the_pixels(build) -> None:
    net = Network(build().double(), input_shape=(2, 6, 6), mean=(0.3, 0.4), std=(0.2, 0.5))
    images = torch.rand(3, 2, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    found = attribution.integrated_gradients(net, images, 1, steps=7, batch=4).values
    torch.testing.assert_close(found, by_points(net, images, 7), rtol=1e-11, atol=1e-12)
