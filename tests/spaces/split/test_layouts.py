"""A 1 x 1 convolution and a Linear layer on tokens reject the same energy, however the tokens are laid out.

Oracle: the network with the convolution, whose images lie along the first axis.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from microtome import LayerError, Network, spaces

IMAGES = torch.rand(3, 3, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1))
LAYOUTS = ("channels last", "(N, T, C)", "(T, N, C)", "windows", "(N T, C)")


class Model(nn.Module):
    def __init__(self, layout: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layout = layout
        self.stem, self.map, self.head = nn.Conv2d(3, 6, 2, 2), nn.Linear(6, 5), nn.Linear(5, 4)
        if layout == "convolution":
            linear, self.map = self.map, nn.Conv2d(6, 5, 1)
            self.map.weight.data, self.map.bias.data = linear.weight.data[..., None, None], linear.bias.data

    def forward(self, x: Tensor) -> Tensor:
        y, n = self.stem(x).relu(), len(x)
        if self.layout == "convolution":
            return self.head(self.map(y).relu().mean((2, 3)))
        if self.layout == "channels last":
            return self.head(self.map(y.permute(0, 2, 3, 1)).relu().mean((1, 2)))
        if self.layout == "(N, T, C)":
            return self.head(self.map(y.flatten(2).mT).relu().mean(1))
        if self.layout == "(T, N, C)":
            return self.head(self.map(y.flatten(2).permute(2, 0, 1)).relu().mean(0))
        if self.layout == "windows":
            windows = y.view(n, 6, 2, 2, 2, 2).permute(0, 2, 4, 3, 5, 1).reshape(4 * n, 4, 6)
            return self.head(self.map(windows).relu().view(n, -1, 5).mean(1))
        return self.head(self.map(y.permute(0, 2, 3, 1).reshape(-1, 6)).relu().view(n, -1, 5).mean(1))


def network(layout: str) -> Network:
    return Network(Model(layout).double().eval(), (3, 8, 8))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_energy_is_that_of_each_image(layout: str) -> None:
    net, expected = network(layout), network("convolution")
    for method in (spaces.rejected_energy, spaces.kept_and_lost):
        found, right = (method(one, IMAGES, layers=["map"]) for one in (net, expected))
        torch.testing.assert_close(found.share, right.share, rtol=1e-6, atol=1e-9)
        torch.testing.assert_close(found.null_share, right.null_share, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("layout", LAYOUTS)
def test_vectors_of_tokens_are_refused_and_not_taken_for_images(layout: str) -> None:
    net = network(layout)
    with pytest.raises(LayerError, match="expected a Linear layer on vectors or a convolution"):
        spaces.weight_vectors(net, IMAGES, layer="map")
    with pytest.raises(LayerError, match="expected a Linear layer on vectors or a convolution"):
        spaces.class_residuals(net, [(image, label) for label, image in enumerate(IMAGES)], layer="map")
