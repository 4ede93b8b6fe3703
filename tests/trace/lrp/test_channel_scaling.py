"""A batch norm written by hand forms one layer with the convolution before it, like a named batch norm."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network, attribution
from microtome.attribution import rules

C, SIDE = 4, 6
IMAGES = torch.rand(2, 3, SIDE, SIDE, dtype=torch.double, generator=torch.Generator().manual_seed(1))
DICE = torch.Generator().manual_seed(2)
MEAN, WEIGHT, BIAS = (torch.randn(C, 1, 1, dtype=torch.double, generator=DICE) for _ in range(3))
DEVIATION = torch.rand(C, 1, 1, dtype=torch.double, generator=DICE) + 0.5
SCALE = WEIGHT / DEVIATION
RULES = {"epsilon": rules.Epsilon(1e-9), "z-plus": rules.ZPlus(), "gamma": rules.Gamma(), "w-square": rules.WSquare()}
Norm = Callable[[Tensor], Tensor]


class Normed(nn.Module):
    """A convolution, a norm of its channels, a rectifier and a head."""

    def __init__(self, norm: Norm) -> None:
        super().__init__()
        dice = torch.Generator().manual_seed(0)
        self.norm = norm
        self.c, self.d, self.head = nn.Conv2d(3, C, 3), nn.Conv2d(C, C, 3), nn.Linear(C, 3)
        self.double()
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=dice, dtype=torch.double))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.norm(self.d(self.c(x).relu())).relu().mean((2, 3)))


def named(y: Tensor) -> Tensor:
    flat = (one.flatten() for one in (MEAN, DEVIATION**2, WEIGHT, BIAS))
    return F.batch_norm(y, *flat, eps=0.0)


BY_HAND: dict[str, Norm] = {
    "step by step": lambda y: (y - MEAN) / DEVIATION * WEIGHT + BIAS,
    "the other way round": lambda y: BIAS + WEIGHT * ((y - MEAN) / DEVIATION),
    "scale and shift": lambda y: y * SCALE + (BIAS - MEAN * SCALE),
    "one operation": lambda y: torch.addcmul(BIAS - MEAN * SCALE, y, SCALE),
    "with a number": lambda y: y * 2 * (SCALE / 2) + (BIAS - MEAN * SCALE),
    "for all places": lambda y: y * SCALE.expand(y.shape[1:]) + (BIAS - MEAN * SCALE).expand(y.shape[1:]),
}


def relevance(norm: Norm, rule: str) -> attribution.Attribution:
    return attribution.lrp(Network(Normed(norm).eval(), (3, SIDE, SIDE)), IMAGES, 1, rules=RULES[rule])


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", BY_HAND)
def test_as_the_named_norm(name: str, rule: str) -> None:
    """Oracle: torch's batch norm. Only rounding: 1e-12 expected."""
    expected, found = (relevance(norm, rule) for norm in (named, BY_HAND[name]))
    scale = float(expected.values.abs().max())
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-9 * scale)
    torch.testing.assert_close(found.bias_share, expected.bias_share, rtol=1e-8, atol=1e-9 * scale)


SEVERAL_READERS: dict[str, tuple[Norm, Norm]] = {
    "of the convolution, by hand": (
        lambda y: (y * SCALE + BIAS) + y.tanh(),
        lambda y: (lambda copy: (copy * SCALE + BIAS) + copy.tanh())(y.clone()),
    ),
    "of what is scaled": (
        lambda y: (lambda scaled: (scaled + BIAS) + scaled.tanh())(y * SCALE),
        lambda y: (lambda scaled: (scaled + BIAS) + scaled.tanh())((y * SCALE).clone()),
    ),
    "two norms": (lambda y: named(y) + F.batch_norm(y, *_others()), lambda y: _apart(y)),
}


def _others() -> tuple[Tensor, Tensor]:
    return -MEAN.flatten(), DEVIATION.flatten()


def _apart(y: Tensor) -> Tensor:
    copy = y.clone()
    return named(copy) + F.batch_norm(copy.clone(), *_others())


@pytest.mark.parametrize("rule", ["z-plus", "gamma"])
@pytest.mark.parametrize("name", SEVERAL_READERS)
def test_what_others_read_too_stays_a_layer_of_its_own(name: str, rule: str) -> None:
    """Oracle: the same network with a copy between the layer and the norm, which separates them."""
    found, expected = (relevance(norm, rule) for norm in SEVERAL_READERS[name])
    scale = float(expected.values.abs().max())
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-6 * scale)
    total = found.values.flatten(1).sum(1) + found.bias_share + found.stabiliser_share
    torch.testing.assert_close(total, found.score, rtol=1e-6, atol=1e-9)
