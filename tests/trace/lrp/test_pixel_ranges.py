"""A model that prepares its images itself gets the same relevance as a model with prepared images."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network, attribution

SIDE = 6
IMAGES = torch.rand(3, 3, SIDE, SIDE, dtype=torch.double, generator=torch.Generator().manual_seed(1))
MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.25)
M, S = (torch.tensor(numbers, dtype=torch.double).view(1, 3, 1, 1) for numbers in (MEAN, STD))
Preparation = Callable[[Tensor], Tensor]


class Prepared(nn.Module):
    """A convolutional network behind a preparation of its images."""

    def __init__(self, prepare: Preparation) -> None:
        super().__init__()
        dice = torch.Generator().manual_seed(0)
        self.prepare = prepare
        self.c, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
        self.double()
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=dice, dtype=torch.double))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.c(self.prepare(x)).relu().mean((2, 3)))


NORMALISED: dict[str, Preparation] = {
    "difference and quotient": lambda x: (x - M) / S,
    "in place": lambda x: x.sub_(M).div_(S),
    "one image at a time": lambda x: torch.stack([(image - M[0]) / S[0] for image in x]),
    "one channel at a time": lambda x: torch.cat([(x[:, k : k + 1] - MEAN[k]) / STD[k] for k in range(3)], 1),
    "negative, twice": lambda x: -((M - x) / S).neg().neg(),
    "batch norm": lambda x: F.batch_norm(x, M.flatten(), S.flatten() ** 2, eps=0.0),
    "product and sum": lambda x: torch.addcmul(-M / S, x, 1 / S),
}
LAID_OUT: dict[str, Preparation] = {
    "images apart": lambda x: torch.cat([image[None] for image in x]),
    "halves of the batch": lambda x: torch.cat(x.chunk(2)),
    "transposed twice": lambda x: x.mT.contiguous().mT,
    "as a sequence": lambda x: x.flatten(2).permute(2, 0, 1).permute(1, 2, 0).unflatten(2, (SIDE, SIDE)),
    "strided": lambda x: torch.as_strided(x.contiguous(), x.shape, x.contiguous().stride()),
    "channels chosen": lambda x: x.index_select(1, torch.arange(3)),
    "folded": lambda x: F.unfold(x, 1).view_as(x),
    "into an empty tensor": lambda x: torch.zeros_like(x).index_copy(1, torch.arange(3), x),
    "clipped": lambda x: x.clamp(0, 1),
}
METHODS = {
    "deep Taylor": attribution.deep_taylor,
    "epsilon": lambda net, x, target: attribution.lrp(net, x, target, rules="epsilon"),
    "box": lambda net, x, target: attribution.lrp(net, x, target, rules="epsilon-gamma-box"),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", [*NORMALISED, *LAID_OUT])
def test_pixels_prepared_by_the_model_are_pixels(name: str, method: str) -> None:
    """Oracle: the network without the preparation; ``Network`` normalises its images. Only rounding: 1e-12."""
    mean, std = (MEAN, STD) if name in NORMALISED else ((0.0,) * 3, (1.0,) * 3)
    plain = Network(Prepared(lambda x: x).eval(), (3, SIDE, SIDE), mean, std)
    found = Network(Prepared((NORMALISED | LAID_OUT)[name]).eval(), (3, SIDE, SIDE))
    expected, got = (METHODS[method](net, IMAGES, target=1) for net in (plain, found))
    scale = float(expected.values.abs().max())
    torch.testing.assert_close(got.values, expected.values, rtol=0, atol=1e-9 * scale)
    torch.testing.assert_close(got.bias_share, expected.bias_share, rtol=1e-8, atol=1e-9 * scale)


def test_the_range_of_constants_beside_pixels_is_the_constants() -> None:
    """A channel of constants gets nothing by the box rule: x = low = high there."""

    def with_places(x: Tensor) -> Tensor:
        places = torch.linspace(-1, 1, SIDE, dtype=x.dtype).expand(len(x), 1, SIDE, SIDE)
        return torch.cat([x[:, :2], places], 1)

    net = Network(Prepared(with_places).eval(), (3, SIDE, SIDE))
    found = attribution.deep_taylor(net, IMAGES, target=1)
    torch.testing.assert_close(found.bias_share, torch.zeros_like(found.bias_share), rtol=0, atol=1e-9)
