"""Layers of complex numbers, integers and booleans: read where that has a meaning, otherwise refused in words."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn

from microtome import Network, attribution, representation, synthesis, units
from microtome.data import Images
from microtome.errors import LayerError, OpaqueError

SIZE = (3, 9, 8)


class Fourier(nn.Module):
    """A filter on the frequencies of the image; a factor in radians makes complex numbers of real ones, too."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
        self.gain = nn.Parameter(torch.randn(4, 7, 4, dtype=torch.complex64))

    def forward(self, x):
        turned = self.conv(x) * 0.1j
        waves = torch.fft.rfft2(self.conv(x)) * self.gain
        maps = torch.fft.irfft2(waves, s=(7, 6)).relu() + turned.exp().real
        return self.head(maps.mean((2, 3)))


class Counting(nn.Module):
    """Maps of classes and masks stand between the layers; the order of the places is a layer of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.names, self.head = nn.Conv2d(3, 4, 3), nn.Embedding(4, 4), nn.Linear(4, 3)

    def forward(self, x):
        maps = self.conv(x)
        winner = maps.argmax(1, keepdim=True)
        above = maps > 0
        counts = maps.mul(8).round().int()
        order = maps.flatten(2).argsort(2)
        chosen = maps.flatten(2).gather(2, order[:, :, -5:]).mean(2)
        maps = maps.masked_fill(~above, 0.0) + self.names(winner[:, 0]).movedim(3, 1) + 0.1 * counts
        return self.head(maps.mean((2, 3)) + chosen)


@pytest.fixture
def data():
    return Images.from_float(torch.rand(8, *SIZE, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 2)


def network(kind: type[nn.Module]) -> Network:
    torch.manual_seed(0)
    return Network(kind().eval(), SIZE)


READERS = {
    "ablation": lambda net, data, layer: units.ablate(net, data, layer, units=[0]),
    "activation maps": lambda net, data, layer: units.activation_maps(net, data.images[:2], layer),
    "cka": lambda net, data, layer: representation.cka(net, None, data, [layer], permutations=3),
    "criteria": lambda net, data, layer: units.criteria(net, data, layer, columns=("variation",)),
    "features": lambda net, data, layer: representation.features(net, data, layer),
    "grad-cam": lambda net, data, layer: attribution.grad_cam(net, data.images[:2], 0, layer=layer),
    "invert": lambda net, data, layer: synthesis.invert(net, data.images[0], layer, starts=1, steps=2),
    "maximize": lambda net, data, layer: synthesis.maximize(net, layer, channels=[0], steps=2),
    "maximize, plainly": lambda net, data, layer: synthesis.maximize(
        net, layer, channels=[0], steps=2, prior=synthesis.Prior(l2=1e-2)
    ),
    "project back": lambda net, data, layer: units.project_back(net, data.images[:1], layer, 0),
    "similar": lambda net, data, layer: units.similar(net, data, layer),
    "specialised": lambda net, data, layer: units.specialised(net, data, layer),
    "top images": lambda net, data, layer: units.top_images(net, data, layer, 0, k=2),
    "top patches": lambda net, data, layer: units.top_patches(net, data, layer, k=2),
    "tuning": lambda net, data, layer: units.tuning(net, layer),
    "what and where": lambda net, data, layer: units.what_where(net, layer),
}
ASK_A_GRADIENT = {"grad-cam", "invert", "maximize", "maximize, plainly", "project back"}


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("layer", ["/rfft2", "/mul", "/mul.1", "/exp"])
def test_complex_numbers_are_refused(reader, layer, data):
    """They have no sign and no order; taking the real part in silence would show other numbers."""
    with pytest.raises(LayerError, match=f'layer "{layer}" holds complex numbers'):
        READERS[reader](network(Fourier), data, layer)


def test_one_complex_number_of_an_image_is_refused(data):
    """Also in a layer without units."""

    class OneNumber(nn.Module):
        def forward(self, x):
            return torch.fft.rfft2(x).sum((1, 2, 3)).abs()[:, None] * torch.ones(3)

    with pytest.raises(LayerError, match='layer "/sum" holds complex numbers'):
        synthesis.invert(network(OneNumber), data.images[0], "/sum", starts=1, steps=2)


def test_without_names_layers_of_complex_numbers_are_left_out(data):
    net = network(Fourier)
    real = ["conv", "conv#2", "/fft_irfft2", "/relu", "/real", "/add", "/mean", "head"]
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # torch warns where it discards an imaginary part
        assert list(units.top_patches(net, data, k=2)) == real
        units.specialised(net, data)
        units.activation_maps(net, data.images[:1])
        assert attribution.grad_cam(net, data.images[:1], 0).layer == "/add"


@pytest.mark.parametrize("reader", READERS)
@pytest.mark.parametrize("layer", ["/argmax", "/gt", "/int", "/argsort"])
def test_integers_and_booleans_are_numbers_without_a_gradient(reader, layer, data):
    """A plain reader takes them as numbers; what asks for a gradient is refused by name."""
    net = network(Counting)
    if reader in ASK_A_GRADIENT or reader == "tuning":
        with pytest.raises((OpaqueError, LayerError), match=r"differentiable|suitable|Suitable"):
            READERS[reader](net, data, layer)
    else:
        READERS[reader](net, data, layer)


def test_the_values_of_integer_layers_are_those_of_plain_torch(data):
    """Oracle: plain torch."""
    net = network(Counting)
    maps = net.model.conv(data.images)
    expected = {"/gt": (maps > 0).float(), "/int": maps.mul(8).round()}
    for layer, values in expected.items():
        found = units.top_patches(net, data, layer, k=2)[layer].activation
        assert torch.equal(found, values.flatten(2).amax(2).T.sort(1, descending=True).values[:, :2])
    zeroed = expected["/int"].clone()
    zeroed[:, 1] = 0
    changed = net.model.head(
        (maps.relu() + net.model.names(maps.argmax(1)).movedim(3, 1) + 0.1 * zeroed).mean((2, 3))
        + maps.flatten(2).topk(5, 2).values.mean(2)
    )
    right = [int((one.argmax(1) == data.labels).sum()) / 8 for one in (net.model(data.images), changed)]
    found = units.ablate(net, data, "/int", units=[1], value="zero")
    assert [found.before, float(found.after[0])] == right


def test_grad_cam_without_a_layer_passes_by_orders_of_places(data):
    """The order of places is read as tokens, in search of a layer; it has no gradient."""
    net = network(Counting)
    assert attribution.grad_cam(net, data.images[:1], 0).layer in net.layers
