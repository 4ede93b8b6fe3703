"""Does a class map without a named layer read the one that a person would name? In blocks of real networks."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import LayerError, Network, attribution
from microtome.attribution.class_activation.default_layer import map_layer

SHAPE = (3, 12, 12)


class Branches(nn.Module):
    """GoogLeNet's block: it begins before its branches and ends after them."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.one(x).relu(), self.two(x).relu()], 1)


class Residual(nn.Module):
    """ConvNeXt's block: channels last inside, the sum at its end is the block's own."""

    def __init__(self) -> None:
        super().__init__()
        self.depthwise, self.norm, self.wide = nn.Conv2d(3, 3, 3, padding=1, groups=3), nn.LayerNorm(3), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.wide(self.norm(self.depthwise(x).permute(0, 2, 3, 1))).permute(0, 3, 1, 2)


class NormOfChannels(nn.Module):
    """A layer norm over the channels of maps, also of those pooled to one position."""

    def __init__(self) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.ones(3)), nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x.permute(0, 2, 3, 1), (3,), self.weight, self.bias).permute(0, 3, 1, 2)


class PoolFormerBlock(nn.Module):
    """A class called after pooling that is none."""

    def __init__(self) -> None:
        super().__init__()
        self.wide = nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.wide(F.avg_pool2d(x, 3, 1, 1) - x)


class Windows(nn.Module):
    """MaxViT's attention: (images, windows, tokens, channels) inside, maps at its end."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm, self.values = nn.Conv2d(3, 4, 3, padding=1), nn.LayerNorm(4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        n, c, h, w = x.shape
        x = x.reshape(n, c, h // 3, 3, w // 3, 3).permute(0, 2, 4, 3, 5, 1).reshape(n, -1, 9, c)
        y = self.norm(x)
        x = x + (y @ y.transpose(-1, -2)).softmax(-1) @ self.values(y)
        return x.reshape(n, h // 3, w // 3, 3, 3, c).permute(0, 5, 1, 3, 2, 4).reshape(n, c, h, w)


def network(block: nn.Module, channels: int, *behind: nn.Module) -> Network:
    torch.manual_seed(0)
    pooled = nn.AdaptiveAvgPool2d(1), *behind, nn.Flatten(), nn.Linear(channels, 2)
    return Network(nn.Sequential(block, *pooled).eval(), SHAPE)


@pytest.mark.parametrize(
    ("block", "channels", "behind"),
    [(Branches, 6, []), (Residual, 3, []), (Residual, 3, [NormOfChannels]), (PoolFormerBlock, 3, []), (Windows, 4, [])],
)
def test_it_is_the_output_of_the_last_block(block, channels, behind):
    """Behind it stand pooling and a linear head, so the class's CAM over hw is the map: a closed form."""
    net = network(block(), channels, *(made() for made in behind))
    assert map_layer(net, None) == "0"
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    found = attribution.grad_cam(net, x, 1)
    assert (found.layer, found.values.shape) == ("0", (2, 1, 12, 12))
    if not behind:
        maps, weights = net.model[0](x), net.model[-1].weight[1]
        expected = torch.einsum("c,nchw->nhw", weights, maps).relu()[:, None] / 144
        torch.testing.assert_close(found.values, expected.detach())


def test_a_container_that_ends_in_a_pooling_is_none():
    features = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2))
    assert map_layer(network(features, 4), None) == "0.1"


def test_windows_are_no_maps():
    """16 windows of 9 tokens are no picture of 16 x 9."""
    net = network(Windows(), 4)
    for layer in ("0/add", "0.norm", "0.values"):
        with pytest.raises(LayerError, match=r"windows or heads|channels, height and width"):
            attribution.grad_cam(net, torch.rand(1, *SHAPE), 1, layer=layer)


class Heads(nn.Module):
    """MViT's attention: three heads of four tokens, to which the queries are added; then tokens, and their mean."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.norm, self.out = nn.Conv2d(3, 12, 6, 6), nn.LayerNorm(4), nn.Linear(12, 2)
        self.pool = nn.Conv2d(4, 4, 3, padding=1, groups=4)

    def forward(self, x: Tensor) -> Tensor:
        maps = self.pool(self.patches(x).reshape(len(x) * 3, 4, 2, 2))  # each head apart
        q = self.norm(maps.reshape(len(x), 3, 4, 4).transpose(2, 3))
        mixed = F.scaled_dot_product_attention(q, q, q) + q
        return self.out(mixed.transpose(1, 2).reshape(len(x), 4, 12).mean(1))


def test_heads_of_tokens_are_no_maps():
    torch.manual_seed(0)
    net = Network(Heads().eval(), SHAPE)
    assert not net.layer("/add").spatial
    assert not net.layer("pool").spatial
    assert map_layer(net, None) == "patches"
    with pytest.raises(LayerError, match="windows or heads"):  # 3 x 4 on a square picture
        attribution.grad_cam(net, torch.rand(1, *SHAPE), 1, layer="norm")
