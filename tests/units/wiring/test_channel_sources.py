"""Where do the channels that a layer reads come from? Held against orders of channels that are known."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network, data, units
from microtome.atlas.album import Album
from microtome.errors import LayerError
from microtome.explorer.answers.unit_answers import linear_layer_of
from microtome.units.wiring.channel_sources import reads_pixels

ORDER = [3, 1, 0, 2, 5, 4]
TURNED = torch.eye(6)[ORDER]  # a matrix that puts channels into this order
NO_ONE = -1  # a constant
MOVES = {
    "nothing": (lambda y: y, range(6)),
    "flip": (lambda y: y.flip(1), [5, 4, 3, 2, 1, 0]),
    "index": (lambda y: y[:, ORDER], ORDER),
    "index_select": (lambda y: y.index_select(1, torch.tensor(ORDER)), ORDER),
    "roll": (lambda y: y.roll(1, 1), [5, 0, 1, 2, 3, 4]),
    "take_along_dim": (lambda y: torch.take_along_dim(y, torch.tensor(ORDER).view(1, 6, 1, 1), 1), ORDER),
    "einsum": (lambda y: torch.einsum("nchw,dc->ndhw", y, TURNED), ORDER),
    "matmul": (lambda y: (TURNED @ y.flatten(2)).unflatten(2, y.shape[2:]), ORDER),
    "channel_shuffle": (lambda y: F.channel_shuffle(y, 2), [0, 3, 1, 4, 2, 5]),
    "shuffle by views": (
        lambda y: y.unflatten(1, (2, 3)).transpose(1, 2).reshape(y.shape), [0, 3, 1, 4, 2, 5],
    ),
    "halves exchanged": (lambda y: torch.cat(y.chunk(2, 1)[::-1], 1), [3, 4, 5, 0, 1, 2]),
    "a half twice": (lambda y: torch.cat([y[:, :3], y[:, :3]], 1), [0, 1, 2, 0, 1, 2]),
    "beside a constant": (lambda y: torch.cat([torch.ones_like(y[:, :2]), y[:, 2:]], 1), [NO_ONE, NO_ONE, 2, 3, 4, 5]),
    "padded channels": (lambda y: F.pad(y[:, :4], (0, 0, 0, 0, 1, 1)), [NO_ONE, 0, 1, 2, 3, NO_ONE]),
    "a channel overwritten": (lambda y: written(y.clone()), [0, NO_ONE, 2, 3, 4, 5]),
    "other positions": (lambda y: y.flip(3).roll(1, 2)[:, :, 1:, 1:].transpose(2, 3), range(6)),
    "softmax": (lambda y: y.softmax(1), range(6)),
    "pooled": (lambda y: F.avg_pool2d(F.max_pool2d(y, 2), 2, 1), range(6)),
    "as tokens": (lambda y: F.layer_norm(y.permute(0, 2, 3, 1), (6,)).permute(0, 3, 1, 2), range(6)),
}  # fmt: skip


def written(y: Tensor) -> Tensor:
    y[:, 1] = 3.0
    return y


class Between(nn.Module):
    """Two convolutions, and something between them."""

    def __init__(self, between):
        super().__init__()
        self.between = between
        self.first, self.second, self.head = nn.Conv2d(3, 6, 3), nn.Conv2d(6, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.second(self.between(self.first(x).relu())).mean((2, 3)))


@pytest.mark.parametrize("move", MOVES)
def test_connections_follow_channels_that_move(move):
    torch.manual_seed(0)
    between, order = MOVES[move]
    model = Between(between).eval()
    found = units.connections(Network(model, (3, 14, 14)), "second")
    norms = model.second.weight.detach().flatten(2).norm(dim=2)
    for unit in range(4):
        expected = torch.zeros(6)
        for column, source in enumerate(order):
            if source != NO_ONE:
                expected[source] = torch.hypot(expected[source], norms[unit, column])
        given = {link.unit: link.norm for link in found.inputs(unit, 9)}
        assert {link.layer for link in found.inputs(unit, 9)} == {"first"}
        assert given == pytest.approx({source: float(norm) for source, norm in enumerate(expected) if norm > 0})
    assert found.unknown == ""


@pytest.mark.parametrize("move", MOVES)
def test_a_dissection_names_the_channels_of_its_source(move):
    """Oracle: the known order; or the numbers of the source, if a layer of its own moves the channels."""
    torch.manual_seed(0)
    between, order = MOVES[move]
    net, image = Network(Between(between).eval(), (3, 14, 14)), torch.rand(3, 14, 14)
    found = units.dissect(net, image, "second", 0)
    if found.source == "/relu":
        assert found.channels.tolist() == list(order)
    elif found.source != "second@input":
        maps = net.layer(found.source).axes.maps(net.activations(image, found.source)[found.source], 1)[0]
        for row, channel in zip(found.inputs, found.channels.tolist(), strict=True):
            assert torch.isin(row, maps[channel]).all()
    else:
        assert NO_ONE in order
    if NO_ONE not in order:
        assert found.source != "second@input"


@pytest.mark.parametrize("way", ["linear", "addmm", "matmul"])
def test_a_matrix_product_names_its_source_in_every_spelling(way):
    class Product(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.linear = nn.Conv2d(3, 6, 3), nn.Linear(6, 3)

        def forward(self, x):
            y, weight, bias = self.conv(x).relu().mean((2, 3))[:, ORDER], self.linear.weight, self.linear.bias
            if way == "addmm":
                return torch.addmm(bias, y, weight.t())
            return y @ weight.t() + bias if way == "matmul" else F.linear(y, weight, bias)

    found = units.dissect(Network(Product().eval(), (3, 8, 8)), torch.rand(3, 8, 8), f"/{way}", 0)
    assert (found.source, found.channels.tolist()) == ("/mean", ORDER)


def test_the_explorer_takes_no_units_for_those_of_a_convolution_before_a_shuffle():
    class Shuffled(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6)
            self.shuffle, self.head = nn.ChannelShuffle(2), nn.Linear(6, 3)

        def forward(self, x):
            return self.head(self.shuffle(self.norm(self.conv(x)).relu()).mean((2, 3)))

    net = Network(Shuffled().eval(), (3, 8, 8))
    assert linear_layer_of(net, "norm") == linear_layer_of(net, "/relu") == "conv"
    with pytest.raises(LayerError, match="no sum over input channels"):
        linear_layer_of(net, "shuffle")


@pytest.mark.parametrize(
    "mix",
    [lambda y: y.sort(1).values, lambda y: y.cumsum(1), lambda y: y[..., :6, :6].transpose(1, 3)],
    ids=["sort", "cumsum", "axes exchanged"],
)
def test_channels_that_mix_are_told_to_be_unknown(mix):
    torch.manual_seed(0)
    found = units.connections(Network(Between(mix).eval(), (3, 14, 14)), "second")
    assert "second" in found.unknown
    assert {link.unit for unit in range(4) for link in found.inputs(unit)} <= {0}  # cumsum: the first is itself


def test_the_units_of_a_layer_behind_mixed_channels_have_no_connections():
    class Sorted(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Conv2d(1, 4, 1), nn.Conv2d(4, 2, 1)

        def forward(self, x):
            return self.second(torch.relu(self.first(x).sort(1).values)).mean((2, 3))

    net = Network(Sorted().eval(), (1, 3, 3))
    assert units.connections(net, "second").inputs(0) == []
    with pytest.raises(LayerError, match="an operation rearranges"):
        units.connections(net, "/relu")


def test_an_operation_that_takes_no_random_numbers_leaves_channels_unknown():
    class Factor(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.head = nn.Conv2d(1, 4, 3), nn.Linear(4, 2)

        def forward(self, x):
            y = self.first(x).mean((2, 3))
            ones = torch.linalg.cholesky(torch.eye(4) + 0 * y[:, :, None])  # of any other numbers there is none
            return self.head(ones.diagonal(dim1=1, dim2=2) * y)

    found = units.connections(Network(Factor().eval(), (1, 8, 8)), "head")
    assert {link.layer for link in found.inputs(0)} <= {"first"}


@pytest.mark.parametrize(
    ("move", "units_of", "inputs_of"),
    [("nothing", "/relu", "/relu"), ("pooled", "/relu", "/relu"), ("index", "/relu", ""), ("flip", "", "")],
)
def test_pages_link_channels_to_units_only_where_they_are_the_same(move, units_of, inputs_of):
    net = Network(Between(MOVES[move][0]).eval(), (3, 14, 14))
    album: Any = SimpleNamespace(net=net, layers=["/relu", "second"])
    album.source_layer = lambda layer: Album.source_layer(album, layer)
    assert Album.source_layer(album, net.layer("second").inputs[0]) == units_of
    assert Album.read_layer(album, "second") == inputs_of


def test_the_channels_of_tokens_are_known():
    class Tokens(nn.Module):
        def __init__(self):
            super().__init__()
            self.patches, self.norm = nn.Conv2d(3, 6, 4, 4), nn.LayerNorm(6)
            self.first, self.second, self.head = nn.Linear(6, 5), nn.Linear(5, 6), nn.Linear(6, 3)

        def forward(self, x):
            tokens = self.patches(x).flatten(2).transpose(1, 2)
            return self.head((tokens + self.second(F.gelu(self.first(self.norm(tokens))))).mean(1))

    net = Network(Tokens().eval(), (3, 24, 24))
    assert {link.layer for link in units.connections(net, "first").inputs(0)} == {"patches"}
    assert {link.layer for link in units.connections(net, "head").inputs(0, 20)} == {"patches", "second"}
    assert units.connections(net, "first").unknown == ""


def test_changed_weights_are_read_again():
    net = Network(Between(lambda y: y).eval(), (3, 14, 14))
    before = units.connections(net, "second").inputs(0, 1)[0].norm
    with torch.no_grad():
        net.module("second").weight.mul_(2)
    assert units.connections(net, "second").inputs(0, 1)[0].norm == pytest.approx(2 * before)


class Padded(nn.Conv2d):
    """A convolution of the user's own class, with a module inside that pads."""

    def __init__(self, *sizes):
        super().__init__(*sizes)
        self.pads = nn.ZeroPad2d(1)

    def forward(self, x):
        return super().forward(self.pads(x))


class First(nn.Module):
    """A network that prepares its image before the first layer."""

    def __init__(self, prepare, convolution=nn.Conv2d):
        super().__init__()
        self.prepare = prepare
        self.first, self.second, self.head = convolution(3, 8, 5), convolution(8, 4, 3), nn.Linear(4, 3)

    def forward(self, x):
        return self.head(self.second(self.first(self.prepare(x)).relu()).relu().mean((2, 3)))


PREPARED = {
    "as it is": lambda x: x,
    "normalised": lambda x: (x - torch.tensor([0.4, 0.5, 0.5]).view(3, 1, 1)) / 0.2,
    "padded": lambda x: F.pad(x, (1, 1, 1, 1), mode="reflect"),
    "resized": lambda x: F.interpolate(x, scale_factor=2),
}


@pytest.mark.parametrize("convolution", [nn.Conv2d, Padded])
@pytest.mark.parametrize("prepared", PREPARED)
def test_the_first_layer_is_found_whatever_prepares_the_image(prepared, convolution):
    torch.manual_seed(0)
    net = Network(First(PREPARED[prepared], convolution).eval(), (3, 20, 20))
    assert units.filters(net, "first").first
    assert not units.filters(net, "second").first
    images = data.Images((torch.rand(8, 3, 20, 20) * 255).to(torch.uint8))
    assert units.natural_filters(net, images, patches=200).filters.layer == "first"
    assert units.explain_path(net, torch.rand(3, 20, 20), 0, labels=False).layers == ["first", "second"]


@pytest.mark.parametrize(
    "mixed",
    [lambda x: x[:, [2, 1, 0]], lambda x: x.mean(1, keepdim=True).expand(-1, 3, -1, -1), lambda x: x.cumsum(1)],
    ids=["blue first", "gray", "mixed"],
)
def test_filters_are_no_colours_where_the_image_has_others(mixed):
    """Three input channels are drawn as red, green and blue only if they are these."""
    net = Network(First(mixed).eval(), (3, 20, 20))
    assert not reads_pixels(net, "first")
    assert not units.filters(net, "first").first
