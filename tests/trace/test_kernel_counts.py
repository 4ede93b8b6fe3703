"""How many kernels does a method start beside the plain pass? On a GPU each costs microseconds, whatever its work."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from microtome import Network, attribution
from oracles.kernel_counts import kernels

IMAGES = torch.rand(2, 3, 12, 12, generator=torch.Generator().manual_seed(0))
BLOCKS = 10


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.act = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.act(self.norm(self.conv(x)))


@pytest.fixture(scope="module")
def model() -> nn.Module:
    torch.manual_seed(0)
    body = [Block() for _ in range(BLOCKS)]
    return nn.Sequential(nn.Conv2d(3, 6, 3), *body, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)).eval()


def counted(model: nn.Module, method: Callable[..., Any], **options: Any) -> tuple[int, int]:
    """The kernels of a method, after what it reads once, and those of a plain forward and backward pass."""
    net = Network(model, (3, 12, 12))
    run = partial(method, net, IMAGES, 1, **options)
    for _ in range(2):
        run()

    def plain() -> None:
        leaf = IMAGES.clone().requires_grad_()
        torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)

    for parameter in model.parameters():
        parameter.requires_grad_(False)
    return kernels(run).total(), kernels(plain).total()


CHECKS = 60  # of images, classes, scores and results
# Kernels for each block beyond those of the plain pass, which has 8 for each.
MOST = {
    "saliency": (attribution.saliency, {}, 0),
    "guided": (attribution.guided_backprop, {}, 1),
    "deconvnet": (attribution.deconvnet, {}, 1),
    "LRP epsilon": (attribution.lrp, {"rules": "epsilon"}, 17),
    "LRP z-plus": (attribution.lrp, {"rules": "z-plus"}, 34),
    "LRP gamma": (attribution.lrp, {"rules": "gamma"}, 53),
}


@pytest.mark.parametrize("name", MOST)
def test_a_layer_takes_few_kernels_more_than_in_the_plain_pass(name: str, model: nn.Module) -> None:
    method, options, each = MOST[name]
    ours, plain = counted(model, method, **options)
    assert ours <= plain + each * BLOCKS + CHECKS


def test_the_constants_of_batch_norms_are_computed_together(model: nn.Module) -> None:
    """The root of the variance is taken once for all of them, and with the values of the pass."""
    net = Network(model, (3, 12, 12))
    count = kernels(partial(attribution.lrp, net, IMAGES, 1, rules="epsilon"))
    assert count["_foreach_add"] == count["_foreach_addcmul"] == 1
    assert not count["rsqrt"]
