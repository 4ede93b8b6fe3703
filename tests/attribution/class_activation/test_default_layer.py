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


class Encoder(nn.Module):
    """A container that returns tokens in which attention outweighs what came before (SigLIP, DINOv2)."""

    def __init__(self) -> None:
        super().__init__()
        self.patches, self.mix, self.norm = nn.Conv2d(3, 16, 3, 3), nn.MultiheadAttention(16, 4), nn.LayerNorm(16)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).permute(2, 0, 1)  # (T, N, C), the module's default layout
        q = self.norm(tokens)
        return tokens * 0.1 + 8 * self.mix(q, q, q, need_weights=False)[0]


class Over(nn.Module):
    """A mean over the tokens of an encoder, and a head."""

    def __init__(self, encoder: nn.Module, dim: int, width: int) -> None:
        super().__init__()
        self.encoder, self.head, self.dim = encoder, nn.Linear(width, 3), dim

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.encoder(x).mean(self.dim))


def test_a_container_of_tokens_is_the_last_layer():
    """Its head is linear behind a mean, so the map is its weights on the tokens over T: a closed form."""
    torch.manual_seed(0)
    net = Network(Over(Encoder(), 0, 16).eval(), SHAPE)
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    found = attribution.grad_cam(net, x, 1)
    assert (found.layer, found.values.shape) == ("encoder", (2, 1, 4, 4))
    tokens = net.model.encoder(x).detach()
    expected = torch.einsum("c,tnc->nt", net.model.head.weight[1].detach(), tokens).relu().view(2, 1, 4, 4) / 16
    torch.testing.assert_close(found.values, expected)


class LoRA(nn.Module):
    """A linear layer and a low-rank one beside it."""

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        self.base, self.down, self.up = base, nn.Linear(16, 2, bias=False), nn.Linear(2, base.out_features, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.base(x) + 0.5 * self.up(self.down(x))


class ClassToken(nn.Module):
    def __init__(self, wrap, *, fused: bool, dropped: bool) -> None:
        super().__init__()
        self.patches, self.norm, self.head = nn.Conv2d(3, 16, 3, 3), nn.LayerNorm(16), nn.Linear(16, 3)
        self.token = nn.Parameter(torch.randn(1, 1, 16))
        self.fused, self.drop = fused, nn.Dropout() if dropped else nn.Identity()
        self.project = nn.ModuleList([wrap(nn.Linear(16, 48))] if fused else [wrap(nn.Linear(16, 16)) for _ in "qkv"])

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(len(x), -1, -1), tokens], 1)
        n = self.norm(tokens)
        parts = self.project[0](n).chunk(3, 2) if self.fused else [project(n) for project in self.project]
        q, k, v = (part.unflatten(2, (4, 4)).transpose(1, 2) for part in parts)
        weights = self.drop((q[:, :, :1] @ k.transpose(2, 3) / 2).softmax(-1))
        return self.head((weights @ v).flatten(1) + n[:, 0])


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("fused", [False, True])
@pytest.mark.parametrize("wrap", [lambda linear: linear, LoRA])
def test_a_class_token_is_read_from_what_the_attention_projects(wrap, fused, dropped):
    """Neither its projections, plain or with LoRA, nor its weights, also behind a dropout, are the tokens."""
    torch.manual_seed(0)
    net = Network(ClassToken(wrap, fused=fused, dropped=dropped).eval(), SHAPE)
    found = attribution.grad_cam(net, torch.rand(1, *SHAPE), 1)
    assert (found.layer, found.values.shape) == ("norm", (1, 1, 4, 4))


@pytest.mark.parametrize("channels", [12, 16, 24])
def test_channels_are_not_taken_for_tokens(channels):
    """Swin's ending: pooling over transposed tokens, once with as many channels as tokens."""
    torch.manual_seed(0)
    patches = nn.Sequential(nn.Conv2d(3, channels, 3, 3), nn.Flatten(2))

    class Ending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.norm, self.pool = patches, nn.LayerNorm(channels), nn.AdaptiveAvgPool1d(1)
            self.head = nn.Linear(channels, 3)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.pool(self.norm(self.patches(x).transpose(1, 2)).transpose(1, 2)).flatten(1))

    net = Network(Ending(), SHAPE)
    found = attribution.grad_cam(net, torch.rand(1, *SHAPE), 1)
    assert (found.layer, found.values.shape) == ("norm", (1, 1, 4, 4))


def test_tokens_in_another_order_have_no_places():
    """Rolled tokens are as many as before; their places were measured before they were rolled."""

    class Rolled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.first, self.norm = nn.Conv2d(3, 16, 3, 3), nn.LayerNorm(16), nn.LayerNorm(16)

        def forward(self, x: Tensor) -> Tensor:
            return self.norm(self.first(self.patches(x).flatten(2).transpose(1, 2)).roll(5, 1))

    torch.manual_seed(0)
    net = Network(Over(Rolled(), 1, 16), SHAPE)
    with pytest.raises(LayerError, match="a token for every patch"):
        attribution.grad_cam(net, torch.rand(1, *SHAPE), 1, layer="encoder.norm")


class Auxiliary(nn.Module):
    """A branch that only training reads comes last; the scores do not depend on it."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.branch, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 2)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        maps = self.body(x).relu()
        aside = self.branch(maps).relu()
        return self.head(maps.mean((2, 3))), aside


def test_a_branch_that_the_score_does_not_read_is_no_default() -> None:
    """Oracle: the map of the last layer that the score is made of, by name; the branch ends later in the pass."""
    net = Network(Auxiliary(), SHAPE)
    assert map_layer(net, None) == "/relu"
    assert bool(attribution.grad_cam(net, torch.rand(1, *SHAPE)).layer == "/relu")


class Swish(torch.autograd.Function):
    """A swish with a derivative of its own; the operations inside carry no gradient."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x * x.sigmoid()

    @staticmethod
    def backward(ctx, arriving: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gate = x.sigmoid()
        return arriving * (gate + x * gate * (1 - gate))


class Ended(nn.Module):
    """A convolution, and an end of the test."""

    def __init__(self, end) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.end, self.head = nn.Conv2d(3, 6, 3), end, nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.end(self.conv(x)))


def mean_of_positives(y: Tensor) -> Tensor:
    return (y * (y > 0)).sum((2, 3)) / (y > 0).sum((2, 3)).clamp(min=1)


@pytest.mark.parametrize(
    ("end", "layer"), [(lambda y: Swish.apply(y).mean((2, 3)), "conv"), (mean_of_positives, "/mul")]
)
def test_a_value_that_no_gradient_reaches_is_no_default_layer(end, layer):
    """Oracle: plain autograd at the value, for a mask that counts and for steps inside an autograd function."""
    net = Network(Ended(end), SHAPE)
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(0))
    found = attribution.grad_cam(net, x, 1)
    assert found.layer == layer
    if layer == "conv":
        y = net.model.conv(x)
        (slope,) = torch.autograd.grad(net.model.head(end(y))[:, 1].sum(), y)
        expected = (slope.mean((2, 3), keepdim=True) * y).sum(1, keepdim=True).relu().detach()
        torch.testing.assert_close(found.values, expected)
