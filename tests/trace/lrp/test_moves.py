"""Is all relevance booked where constants stand in a value, and does it come back from what was moved or chosen?"""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network, attribution

SHAPE = (3, 8, 8)
EXACT = attribution.rules.Epsilon(1e-13)  # so that stabilisers take nothing that could be seen
SIDES = torch.arange(8)
MASK = (SIDES[:, None] + SIDES) % 3 == 0
INDEX = torch.tensor([0, 2])


class Between(nn.Module):
    """A convolution, something in between, a head."""

    def __init__(self, between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.between = between
        self.stem, self.head = nn.Conv2d(3, 6, 3, padding=1, bias=False), nn.Linear(6, 4, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.between(self.stem(x)).flatten(2).mean(2))


def relevance(between: Callable[[Tensor], Tensor]) -> tuple[attribution.RelevanceAttribution, Tensor, nn.Module]:
    model = Between(between).double()
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return attribution.lrp(Network(model, SHAPE), x, 0, rules=EXACT), x, model


def written(y: Tensor, index: object, value: Tensor | float) -> Tensor:
    y = y.clone()
    y[index] = value
    return y


def framed(y: Tensor, write: Callable[[Tensor, Tensor], object]) -> Tensor:
    z = torch.ones(len(y), 6, 10, 10, dtype=y.dtype)
    write(z, y)
    return z


def in_place(y: Tensor, index: object, value: float) -> Tensor:
    y[index] = value
    return y


CONSTANTS: dict[str, Callable[[Tensor], Tensor]] = {
    "y[:, 0] = 3": lambda y: in_place(y, (slice(None), 0), 3.0),
    "y[mask] = 1": lambda y: written(y, (slice(None), slice(None), MASK), 1.0),
    "y[:, index] = tensor": lambda y: written(y, (slice(None), INDEX), torch.full((), 2.0, dtype=y.dtype)),
    "z[inside] = y": lambda y: framed(y, lambda z, y: z.__setitem__((..., slice(1, 9), slice(1, 9)), y)),
    "z[inside].copy_(y)": lambda y: framed(y, lambda z, y: z[..., 1:9, 1:9].copy_(y)),
    "z[inside] += y": lambda y: framed(y, lambda z, y: z[..., 1:9, 1:9].add_(y)),
    "z.narrow().add_(y)": lambda y: framed(y, lambda z, y: z.narrow(2, 0, 8).narrow(3, 2, 8).add_(y)),
    "two views": lambda y: framed(
        y, lambda z, y: (z[..., :4, :8].copy_(y[..., :4, :]), z[..., 5:9, :8].copy_(y[..., 4:, :]))
    ),
    "y[:, 0] += 1": lambda y: (y[:, 0].add_(1.0), y)[1],
    "fill_": lambda y: (y[:, 1].fill_(2.0), y)[1],
    "masked_fill": lambda y: y.masked_fill(MASK, 2.0),
    "where": lambda y: torch.where(MASK, y, 2.0),
    "where, tensor": lambda y: torch.where(MASK, torch.full_like(y, 0.5), y),
    "index_fill": lambda y: y.index_fill(1, INDEX, 2.0),
    "index_put": lambda y: y.index_put((torch.arange(len(y))[:, None], INDEX), torch.tensor(2.0, dtype=y.dtype)),
    "index_copy": lambda y: y.index_copy(1, INDEX, torch.full((len(y), 2, 8, 8), 2.0, dtype=y.dtype)),
    "scatter": lambda y: y.scatter(3, torch.zeros(len(y), 6, 8, 1, dtype=torch.long), 5.0),
    "slice_scatter": lambda y: y.slice_scatter(torch.full((len(y), 2, 8, 8), 2.0, dtype=y.dtype), 1, 0, 2),
    "select_scatter": lambda y: y.select_scatter(torch.full((len(y), 8, 8), 2.0, dtype=y.dtype), 1, 3),
    "masked_scatter": lambda y: y.masked_scatter(MASK, torch.full_like(y, 3.0)),
    "scatter_add": lambda y: torch.ones_like(y).scatter_add(3, SIDES.expand(len(y), 6, 8, 8), y),
    "index_add": lambda y: torch.ones_like(y).index_add(2, SIDES, y),
    "cat": lambda y: torch.cat([y, torch.ones_like(y)], 3),
    "stack": lambda y: torch.stack([y, torch.ones_like(y)], 4),
    "pad": lambda y: F.pad(y, (1, 2, 0, 1), value=1.5),
    "lerp": lambda y: torch.lerp(y, torch.ones_like(y), 0.3),
    "sum": lambda y: y + 0.7,
    "rsub": lambda y: torch.rsub(y, 2.0, alpha=0.5),
    "rsub of two": lambda y: torch.rsub(y.flip(3), y, alpha=3.0),
    "tril": lambda y: y.tril(1) + y.triu(2),
}


@pytest.mark.parametrize("name", list(CONSTANTS))
def test_constants_keep_what_arrives_at_them(name: str) -> None:
    """Oracle: the score is affine in the pixels, so a pixel has x times the gradient and constants have the rest."""
    found, x, model = relevance(CONSTANTS[name])
    pixels = x.clone().requires_grad_()
    expected = x * torch.autograd.grad(model(pixels)[:, 0].sum(), pixels)[0]
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-7 * float(expected.abs().max()))
    constant = model(torch.zeros_like(x))[:, 0]
    torch.testing.assert_close(found.bias_share + found.stabiliser_share, constant, rtol=0, atol=1e-7)
    total = found.values.sum((1, 2, 3)) + found.bias_share + found.stabiliser_share
    torch.testing.assert_close(total, found.score, rtol=1e-9, atol=1e-12)


Pair = namedtuple("Pair", "first second")


class Output(OrderedDict):  # as transformers.ModelOutput: by name and by position
    def __getitem__(self, key):
        return list(self.values())[key] if isinstance(key, int) else super().__getitem__(key)


@dataclass(frozen=True)
class Parts:
    maps: Tensor
    name: str = "parts"


class Returns(nn.Module):
    def __init__(self, wrap):
        super().__init__()
        self.wrap, self.scale = wrap, nn.Conv2d(6, 6, 1, bias=False)

    def forward(self, y):
        return self.wrap(self.scale(y))


def tokens(y: Tensor) -> Tensor:
    return y.flatten(2)


CHOICES: dict[str, Callable[[Tensor], Tensor]] = {
    "topk.values": lambda y: tokens(y).topk(3, 2).values,
    "topk[0]": lambda y: tokens(y).topk(3, 2)[0],
    "sort.values": lambda y: tokens(y).sort(2).values[..., -3:],
    "median.values": lambda y: tokens(y).median(2).values[..., None],
    "kthvalue": lambda y: tokens(y).kthvalue(5, 2).values[..., None],
    "max(dim).values": lambda y: tokens(y).max(2).values[..., None],
    "min(dim)": lambda y: tokens(y).min(2)[0][..., None],
    "aminmax.max": lambda y: tokens(y).aminmax(dim=2).max[..., None],
    "cummax": lambda y: tokens(y).cummax(2).values,
    "maximum": lambda y: torch.maximum(y, y.flip(1)),
    "fmin": lambda y: torch.fmin(y, y.flip(1)),
    "max of two": lambda y: torch.max(y, y.flip(1)),
    "where of two": lambda y: torch.where(y > y.flip(1), y, y.flip(1)),
    "var_mean, the mean": lambda y: torch.var_mean(y, (2, 3), keepdim=True)[1],
}


@pytest.mark.parametrize("name", list(CHOICES))
def test_named_tuples_and_choices(name: str) -> None:
    """Oracle: pixels times the gradient, since choosing is linear where it chooses."""
    found, x, model = relevance(CHOICES[name])
    pixels = x.clone().requires_grad_()
    expected = x * torch.autograd.grad(model(pixels)[:, 0].sum(), pixels)[0]
    torch.testing.assert_close(found.values, expected, rtol=0, atol=1e-7 * float(expected.abs().max()))


@pytest.mark.parametrize(
    ("wrap", "read"),
    [
        (lambda y: Pair(y, 1), lambda out: out.first),
        (lambda y: Output(last=y, other=None), lambda out: out[0]),
        (lambda y: {"maps": [y]}, lambda out: out["maps"][0]),
        (lambda y: Parts(y), lambda out: out.maps if out.name == "parts" else None),
        (lambda y: y.topk(3, 3), lambda out: out.values),
    ],
    ids=["named tuple", "model output", "dict of lists", "frozen dataclass", "torch's own"],
)
def test_outputs_come_back_as_what_they_were(wrap, read) -> None:
    """Oracle: the same model whose layer returns the plain tensor; a layer's gradient exchanges what it returned."""

    def net(whole: bool) -> Network:
        torch.manual_seed(0)
        layer = Returns(wrap if whole else lambda y: read(wrap(y)))
        model = Between(lambda y: read(layer(y)) if whole else layer(y))
        model.layer = layer
        return Network(model.double(), SHAPE)

    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    one, other = (net(whole).run(x, 0, record="layer", gradient=True).gradient["layer"] for whole in (True, False))
    torch.testing.assert_close(one if one.shape == other.shape else one[..., :3], other)
    one, other = (attribution.lrp(net(whole), x, 0, rules=EXACT).values for whole in (True, False))
    torch.testing.assert_close(one, other)


def relu_(y: Tensor) -> Tensor:
    return F.relu(y, inplace=True)


W = torch.linspace(-1, 1, 36, dtype=torch.float64).reshape(6, 6)
IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "linear on tokens": lambda y: F.linear(tokens(y).transpose(1, 2).contiguous(), W, W[0]).add_(0.3).transpose(1, 2),
    "linear on tokens, relu_": lambda y: relu_(F.linear(tokens(y).transpose(1, 2).contiguous(), W)).transpose(1, 2),
    "matmul": lambda y: (tokens(y).transpose(1, 2) @ W).mul_(2.0).transpose(1, 2),
    "einsum": lambda y: torch.einsum("nct,dc->ndt", tokens(y), W).add_(1.0),
    "einsum that only moves": lambda y: torch.einsum("nct->ntc", tokens(y)).add_(1.0).transpose(1, 2),
    "instance norm": lambda y: relu_(F.instance_norm(y)),
    "group norm": lambda y: F.group_norm(y, 2).add_(0.2),
    "pooling to one": lambda y: F.adaptive_avg_pool2d(y, 1).add_(0.1),
    "interpolate": lambda y: F.interpolate(y, scale_factor=2).mul_(0.5),
    "a view of it": lambda y: (z := F.linear(tokens(y).transpose(1, 2).contiguous(), W), z[:, :3].mul_(2.0), z)[
        -1
    ].transpose(1, 2),
}


@pytest.mark.parametrize("name", list(IN_PLACE))
def test_in_place_calls_on_what_a_rule_returned(name: str) -> None:
    """Oracle: all is booked, and the pass leaves the scores as the plain model has them."""
    found, x, model = relevance(IN_PLACE[name])
    torch.testing.assert_close(found.score, model(x)[:, 0])
    total = found.values.sum((1, 2, 3)) + found.bias_share + found.stabiliser_share
    torch.testing.assert_close(total, found.score, rtol=1e-6, atol=1e-9)


def test_glu_is_its_spelled_out_form() -> None:
    wide = torch.linspace(-1, 1, 72, dtype=torch.float64).reshape(12, 6, 1, 1)
    one = relevance(lambda y: F.glu(F.conv2d(y, wide), 1))[0].values
    other = relevance(lambda y: (lambda a, b: a * b.sigmoid())(*F.conv2d(y, wide).chunk(2, 1)))[0].values
    torch.testing.assert_close(one, other)
