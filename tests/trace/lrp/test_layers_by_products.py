"""Does a linear layer follow its rule, whatever product spells it? Against torch's own linear layer."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network, attribution
from microtome.attribution import rules

C, SIDE = 4, 5
IMAGES = torch.rand(2, 3, SIDE, SIDE, dtype=torch.double, generator=torch.Generator().manual_seed(1))
RULES = {"epsilon": rules.Epsilon(0.5), "z-plus": rules.ZPlus(), "gamma": rules.Gamma(), "flat": rules.Flat()}
Layer = Callable[[nn.Module, Tensor], Tensor]


class Mixing(nn.Module):
    """A convolution, a layer under test that mixes channels, and a head."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        dice = torch.Generator().manual_seed(0)
        self.layer = layer
        self.c, self.head = nn.Conv2d(3, C, 3), nn.Linear(C, 3)
        self.weight, self.bias = nn.Parameter(torch.zeros(C, C)), nn.Parameter(torch.zeros(C))
        self.double()
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=dice, dtype=torch.double))

    def forward(self, x: Tensor) -> Tensor:
        x = self.c(x)
        return self.head(self.layer(self, x).reshape(x.shape).relu().mean((2, 3)))


def last(x: Tensor) -> Tensor:
    return x.movedim(1, -1)


def first(x: Tensor) -> Tensor:
    return x.movedim(-1, 1)


def written_over(x: Tensor, weight: Tensor) -> Tensor:
    """The layer's values are overwritten after the product."""
    x = x.clone()
    terms = x[:, None] * weight
    x.zero_()
    return terms.sum(2)


WITHOUT_BIAS: dict[str, Layer] = {
    "einsum": lambda s, x: torch.einsum("nchw,dc->ndhw", x, s.weight),
    "einsum, weights first": lambda s, x: torch.einsum("dc,nchw->ndhw", s.weight, x),
    "einsum, dots": lambda s, x: first(torch.einsum("...c,dc->...d", last(x), s.weight)),
    "matmul": lambda s, x: first(last(x) @ s.weight.T),
    "matmul from the left": lambda s, x: s.weight @ x.flatten(2),
    "bmm": lambda s, x: torch.bmm(s.weight.expand(len(x), C, C), x.flatten(2)),
    "tensordot": lambda s, x: first(torch.tensordot(x, s.weight, ([1], [1]))),
    "tensordot, weights first": lambda s, x: torch.tensordot(s.weight, x, ([1], [1])).transpose(0, 1),
    "inner": lambda s, x: first(torch.inner(last(x), s.weight)),
    "place by place": lambda s, x: (x[:, None] * s.weight[:, :, None, None]).sum(2),
    "place by place, channels last": lambda s, x: first((last(x)[..., None, :] * s.weight).sum(-1)),
    "place by place, laid out anew": lambda s, x: (
        (x[:, None] * s.weight[:, :, None, None]).flatten(3).transpose(2, 3).sum(-1)
    ),
    "place by place, in place": lambda s, x: x[:, None].repeat(1, C, 1, 1, 1).mul_(s.weight[:, :, None, None]).sum(2),
    "place by place, written over": lambda s, x: written_over(x, s.weight[:, :, None, None]),
    "a row of weights at a time": lambda s, x: torch.stack([(x * row[:, None, None]).sum(1) for row in s.weight], 1),
    "one vector at a time": lambda s, x: torch.stack(
        [torch.mv(last(x).reshape(-1, C), row).view(len(x), *x.shape[2:]) for row in s.weight], 1
    ),
}
WITH_BIAS: dict[str, Layer] = {
    "einsum": lambda s, x: torch.einsum("nchw,dc->ndhw", x, s.weight) + s.bias[:, None, None],
    "place by place": lambda s, x: (x[:, None] * s.weight[:, :, None, None]).sum(2) + s.bias[:, None, None],
    "a row of weights at a time": lambda s, x: torch.stack(
        [(x * s.weight[k, :, None, None]).sum(1) + s.bias[k] for k in range(C)], 1
    ),
    "matmul from the left": lambda s, x: s.bias[:, None] + s.weight @ x.flatten(2),
    "baddbmm": lambda s, x: torch.baddbmm(s.bias[None, :, None], s.weight.expand(len(x), -1, -1), x.flatten(2)),
    "addmm": lambda s, x: first(torch.addmm(s.bias, last(x).reshape(-1, C), s.weight.T).view_as(last(x))),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("bias", "spelling"), [
    *((False, name) for name in WITHOUT_BIAS), *((True, name) for name in WITH_BIAS),
])  # fmt: skip
def test_a_product_with_a_constant_is_a_linear_layer(bias: bool, spelling: str, rule: str) -> None:
    """Oracle: the same layer as ``F.linear``; pixels, biases and stabilisers. Rounding alone: 1e-12 expected."""

    def named(s: nn.Module, x: Tensor) -> Tensor:
        return first(F.linear(last(x), s.weight, s.bias if bias else None))

    written = (WITH_BIAS if bias else WITHOUT_BIAS)[spelling]
    expected, found = (
        attribution.lrp(Network(Mixing(layer).eval(), (3, SIDE, SIDE)), IMAGES, 1, rules=RULES[rule])
        for layer in (named, written)
    )
    scale = float(expected.values.abs().max())
    torch.testing.assert_close(found.values, expected.values, rtol=0, atol=1e-10 * scale)
    torch.testing.assert_close(found.bias_share, expected.bias_share, rtol=1e-9, atol=1e-10 * scale)
    torch.testing.assert_close(found.stabiliser_share, expected.stabiliser_share, rtol=1e-9, atol=1e-10 * scale)
