"""Does relevance take a product's signal side, however attention and gates are written? Against plain autograd."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network, OpaqueError, attribution

SHAPE = (3, 4, 4)
HEADS, WIDTH, TOKENS = 2, 6, 16


def talking_heads(net: Attending, q: Tensor, k: Tensor, v: Tensor, held) -> Tensor:
    """CaiT: heads are mixed by a linear layer before the softmax and after it."""
    weights = net.mix((q @ k.transpose(-1, -2)).permute(0, 2, 3, 1)).softmax(2)
    return held(net.mix(weights).permute(0, 3, 1, 2)) @ v


def gated_mixture(net: Attending, q: Tensor, k: Tensor, v: Tensor, held) -> Tensor:
    """ConViT: two attentions weighed by constants and made to sum to one again."""
    weights = 0.7 * (q @ k.transpose(-1, -2)).softmax(-1) + 0.4 * net.places.softmax(-1)
    weights /= weights.sum(-1).unsqueeze(-1)
    return held(weights) @ v


def einsum(net: Attending, q: Tensor, k: Tensor, v: Tensor, held) -> Tensor:
    weights = torch.einsum("nhqd,nhkd->nhqk", q, k).softmax(-1)
    return torch.einsum("nhqk,nhkd->nhqd", held(weights), v)


def weights_on_the_right(net: Attending, q: Tensor, k: Tensor, v: Tensor, held) -> Tensor:
    """LeViT as convolutions: values are columns."""
    weights = held((q @ k.transpose(-1, -2)).softmax(-1))
    return (v.transpose(-1, -2) @ weights.transpose(-1, -2)).transpose(-1, -2)


def outlook(net: Attending, q: Tensor, k: Tensor, v: Tensor, held) -> Tensor:
    """VOLO: weights of the neighbours of each place, folded together."""
    n = len(v)
    maps = v.permute(0, 1, 3, 2).reshape(n, WIDTH, 4, 4)
    around = F.unfold(maps, 3, padding=1).reshape(n, HEADS, WIDTH // HEADS, 9, TOKENS).permute(0, 1, 4, 3, 2)
    weights = held((around @ around.transpose(-1, -2)).softmax(-1))
    back = (weights @ around).permute(0, 1, 4, 3, 2).reshape(n, WIDTH * 9, TOKENS)
    return F.fold(back, (4, 4), 3, padding=1).reshape(n, HEADS, -1, TOKENS).transpose(-1, -2)


def response_norm(net: Attending, q: Tensor, k: Tensor, v: Tensor, held) -> Tensor:
    """ConvNeXt V2: each channel weighed by its share of the energy, and the product added to what it reads."""
    energy = v.norm(p=2, dim=2, keepdim=True)
    return v + torch.addcmul(torch.zeros(()), torch.ones(()), v * held(energy / energy.mean(-1, keepdim=True)))


SPELLINGS = [talking_heads, gated_mixture, einsum, weights_on_the_right, outlook, response_norm]


class Attending(nn.Module):
    """Values without a nonlinearity, and one operation that mixes them: with the weights held it is linear."""

    def __init__(self, attend) -> None:
        super().__init__()
        self.qkv, self.head = nn.Linear(3, 3 * WIDTH, bias=False), nn.Linear(WIDTH, 3, bias=False)
        self.mix = nn.Linear(HEADS, HEADS)
        self.places = nn.Parameter(torch.randn(1, HEADS, TOKENS, TOKENS))
        self.attend, self.held = attend, lambda weights: weights

    def forward(self, x: Tensor) -> Tensor:
        n = len(x)
        tokens = x.flatten(2).transpose(1, 2)
        qkv = self.qkv(tokens).reshape_as(tokens.new_empty(n, TOKENS, 3 * WIDTH))
        q, k, v = qkv.reshape(n, TOKENS, 3, HEADS, -1).permute(2, 0, 3, 1, 4)
        mixed = self.attend(self, q, k, v, self.held).transpose(1, 2).reshape(n, TOKENS, -1)
        return self.head(mixed.mean(1))


@pytest.mark.parametrize("attend", SPELLINGS)
def test_attention_is_held_however_it_is_written(attend):
    """Oracle: pixels times the gradient of the same model with its weights detached, which is linear in the pixels."""
    torch.manual_seed(0)
    model = Attending(attend).double()
    x = torch.rand(2, *SHAPE, dtype=torch.float64)
    found = attribution.lrp(Network(model, SHAPE), x, 1, rules="epsilon")
    model.held = Tensor.detach
    pixels = x.clone().requires_grad_()
    expected = x * torch.autograd.grad(model(pixels)[:, 1].sum(), pixels)[0]
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))
    total = found.values.sum((1, 2, 3)) + found.bias_share + found.stabiliser_share
    torch.testing.assert_close(total, found.score, rtol=1e-9, atol=1e-12)


class WholeLayer(nn.Module):
    """Self-attention as one layer of torch, or with its projections written out."""

    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.attend, self.head = (
            nn.Linear(3, WIDTH),
            nn.MultiheadAttention(WIDTH, HEADS),
            nn.Linear(WIDTH, 3),
        )
        nn.init.normal_(self.attend.in_proj_bias)
        nn.init.normal_(self.attend.out_proj.bias)
        self.by_hand = by_hand

    def forward(self, x: Tensor) -> Tensor:
        t = self.embed(x.flatten(2).permute(2, 0, 1))
        if not self.by_hand:
            return self.head(self.attend(t, t, t)[0].mean(0))
        projections = zip(self.attend.in_proj_weight.chunk(3), self.attend.in_proj_bias.chunk(3), strict=True)
        parts = (F.linear(t, *one).unflatten(2, (HEADS, -1)).permute(1, 2, 0, 3) for one in projections)
        mixed = F.scaled_dot_product_attention(*parts).permute(2, 0, 1, 3).flatten(2)
        return self.head(self.attend.out_proj(mixed).mean(0))


@pytest.mark.parametrize("rules", ["epsilon", "z-plus", "gamma", "w-square"])
def test_projections_within_an_attention_layer_follow_the_rule(rules):
    """Oracle: the same layer with its projections written as linear layers. Only rounding: 1e-12 expected."""
    x = torch.rand(2, *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    whole, written = (
        attribution.lrp(Network(WholeLayer(by_hand).double().eval(), SHAPE), x, 1, rules=rules)
        for by_hand in (False, True)
    )
    scale = float(written.values.abs().max())
    torch.testing.assert_close(whole.values, written.values, rtol=0, atol=1e-8 * scale)
    torch.testing.assert_close(whole.bias_share, written.bias_share, rtol=1e-6, atol=1e-8 * scale)


@pytest.mark.parametrize("norm", ["normalize", "rms_norm"])
def test_lengths_are_held(norm):
    """SwiftFormer and norms without a mean. Oracle: pixels times gradient with the length detached; no bias."""

    class Unit(nn.Module):
        held = False

        def __init__(self):
            super().__init__()
            self.wide, self.head = nn.Linear(3, 6, bias=False), nn.Linear(6, 2, bias=False)

        def forward(self, x):
            x = self.wide(x.flatten(2).transpose(1, 2))
            if self.held:
                length = x.norm(dim=-1, keepdim=True) / (6**0.5 if norm == "rms_norm" else 1)
                x = x / length.detach()
            else:
                x = F.normalize(x, dim=-1) if norm == "normalize" else F.rms_norm(x, (6,))
            return self.head(x.mean(1))

    torch.manual_seed(0)
    model, x = Unit().double(), torch.rand(2, *SHAPE, dtype=torch.float64)
    found = attribution.lrp(Network(model, SHAPE), x, 1, rules="epsilon").values
    model.held, pixels = True, x.clone().requires_grad_()
    expected = x * torch.autograd.grad(model(pixels)[:, 1].sum(), pixels)[0]
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


class Contracted(nn.Module):
    """A convolution of one pixel and a head, both written as einsum with constant weights."""

    def __init__(self) -> None:
        super().__init__()
        self.pixel, self.head = nn.Linear(3, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.einsum("nchw,dc->ndhw", x, self.pixel.weight).relu()
        return torch.einsum("ndhw,kd->nk", [x, self.head.weight])


def test_einsum_with_constant_weights_is_a_linear_layer():
    """Oracle: without biases, epsilon relevance of a ReLU network is pixels times gradient."""
    torch.manual_seed(0)
    model, x = Contracted().double(), torch.rand(2, *SHAPE, dtype=torch.float64)
    net = Network(model, SHAPE)
    expected = x * attribution.gradient(net, x, 0).values
    found = attribution.lrp(net, x, 0, rules="epsilon").values
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-3 * float(expected.abs().max()))


def test_a_softmax_that_weighs_nothing_is_refused():
    """As a nonlinearity it has no rule; its relevance was once dropped without a word."""
    layers = nn.Conv2d(3, 4, 1), nn.Softmax(1), nn.Conv2d(4, 2, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    with pytest.raises(OpaqueError, match='"softmax" at "1/softmax"'):
        attribution.lrp(Network(nn.Sequential(*layers), SHAPE), torch.rand(1, *SHAPE), 0)
