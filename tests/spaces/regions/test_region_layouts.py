"""Regions of networks whose values do not have the images first, or hold what belongs to no image."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

import microtome as mt
from microtome import spaces

CLASSES = 3


class Made(nn.Module):
    """A convolution and a head, and what a test puts between them."""

    def __init__(self, between) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.between, self.conv, self.mix = between, nn.Conv2d(2, 4, 3, padding=1), nn.Linear(4, 4)
        self.scale, self.head = nn.Parameter(torch.rand(4, 1, 1)), nn.Linear(4, CLASSES)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self, x))


def turned(m: Made, x: Tensor) -> Tensor:
    both = m.conv(torch.cat([x, x.flip(3)])).relu().mean((2, 3))
    return both.view(2, len(x), -1).mean(0)


LAYOUTS = {
    "flattened with the images": lambda m, x: m.conv(x).flatten().relu().view(len(x), 4, 5, 5).mean((2, 3)),
    "two views of an image in a batch": turned,
    "views side by side": lambda m, x: (
        m.conv(torch.stack([x, x.flip(2)], 1).flatten(0, 1)).relu().mean((2, 3)).view(len(x), 2, 4).mean(1)
    ),
    "tokens first": lambda m, x: m.mix(m.conv(x).flatten(2).permute(2, 0, 1).relu()).relu().mean(0),
    "one image after another": lambda m, x: torch.stack([m.conv(i[None])[0].relu().mean((1, 2)) for i in x]),
    "rectified weights": lambda m, x: (
        torch.conv2d(x, m.conv.weight.abs(), m.conv.bias - 1, padding=1).relu().mean((2, 3))
    ),
    "maximum with a smaller value": lambda m, x: torch.maximum(m.scale - 0.5, m.conv(x)).mean((2, 3)),
    "maximum by keyword": lambda m, x: torch.maximum(input=m.conv(x), other=m.scale - 0.5).mean((2, 3)),
    "maximum with the mean": lambda m, x: torch.maximum(m.conv(x), m.conv(x).mean((2, 3), keepdim=True)).mean((2, 3)),
    "sum with a scaled branch": lambda m, x: torch.addcmul(m.conv(x), m.conv(x).relu(), m.scale).mean((2, 3)),
    "blend": lambda m, x: torch.lerp(m.conv(x), m.conv(x).relu(), m.scale).mean((2, 3)),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_the_nearest_facet_is_where_the_jacobian_changes(name):
    """Oracle: autograd through the plain module; the map is the same before the facet, another behind it."""
    model = Made(LAYOUTS[name]).double()
    plain = copy.deepcopy(model)

    def slopes(x: Tensor) -> Tensor:
        return torch.autograd.functional.jacobian(lambda y: plain(y)[0], x).flatten(1)

    x = torch.rand(2, 2, 5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    net = mt.Network(model, (2, 5, 5))
    generator = torch.Generator().manual_seed(2)
    for probes in (8, None):
        found = spaces.linear_region(net, x, probes=probes)
        alone = spaces.facet_distance(net, x[1:], probes=probes)
        torch.testing.assert_close(alone.changing[0], found.changing[1], rtol=1e-9, atol=0)
        for index in range(len(x)):
            image, here = x[index : index + 1], slopes(x[index : index + 1])
            torch.testing.assert_close(found.weight[index], here, rtol=1e-9, atol=1e-12)
            step, away = found.normal[index], float(found.distance[index])
            torch.testing.assert_close(slopes(image + 0.999 * step), here, rtol=1e-9, atol=1e-12)
            assert float((slopes(image + 1.001 * step) - here).abs().max()) > 1e-6
            for _ in range(10):
                direction = torch.randn(image.shape, generator=generator, dtype=torch.float64)
                inside = image + 0.999 * away * direction / direction.norm()
                torch.testing.assert_close(slopes(inside), here, rtol=1e-9, atol=1e-12)


def test_a_product_of_two_values_of_the_image_is_refused_and_a_sum_with_one_is_not():
    for between in (
        lambda m, x: torch.addcmul(m.scale, m.conv(x), m.conv(x)).mean((2, 3)),
        lambda m, x: torch.lerp(m.conv(x), m.scale, m.conv(x)).mean((2, 3)),
    ):
        with pytest.raises(mt.OpaqueError, match="multiplies two values of the image"):
            spaces.linear_region(mt.Network(Made(between), (2, 5, 5)), torch.rand(1, 2, 5, 5))


def test_the_error_for_a_mask_does_not_say_what_the_mask_is_not():
    masked = Made(lambda m, x: (m.conv(x) * (m.conv(x) > 0).to(torch.int8)).mean((2, 3)))
    with pytest.raises(mt.OpaqueError, match="not recognised as a rectifier"):
        spaces.linear_region(mt.Network(masked, (2, 5, 5)), torch.rand(1, 2, 5, 5))
