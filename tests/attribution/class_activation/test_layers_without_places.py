"""Does a class map avoid layers without places on the picture: frequencies, complex numbers, stacked branches?"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from microtome import LayerError, Network, attribution
from microtome.attribution.class_activation.default_layer import map_layer

SHAPE = (3, 8, 8)
X = torch.rand(2, *SHAPE, dtype=torch.double, generator=torch.Generator().manual_seed(0))


class Between(nn.Module):
    """A convolution, then ``steps`` with a second one, whose maps a linear layer reads by their means."""

    def __init__(self, steps: Callable[[Tensor, nn.Module], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1)
        self.head, self.steps = nn.Linear(4, 3), steps
        self.double()

    def forward(self, x: Tensor) -> Tensor:
        y = self.steps(self.first(x), self.second)
        return self.head(y if y.dim() == 2 else y.mean((2, 3)))


def network(steps: Callable[[Tensor, nn.Module], Tensor]) -> Network:
    return Network(Between(steps).eval(), SHAPE)


def filtered(y: Tensor, second: nn.Module) -> Tensor:
    return torch.fft.irfft2(torch.fft.rfft2(y) * 0.5, s=(8, 8)).relu()


def of_frequencies(y: Tensor, second: nn.Module) -> Tensor:
    """A convolution over the frequencies, and back (a fast Fourier convolution)."""
    parts = torch.view_as_real(torch.fft.rfft2(y))
    made = torch.stack([second(parts[..., 0]), second(parts[..., 1])], -1)
    return torch.fft.irfft2(torch.view_as_complex(made), s=(8, 8))


CHOSEN = {
    "sizes of frequencies": (lambda y, _: torch.fft.fft2(y.relu()).abs(), "/relu"),
    "real parts of frequencies": (lambda y, _: torch.fft.fftn(y.relu(), dim=(2, 3)).real, "/relu"),
    "convolution over frequencies": (lambda y, c: c(torch.fft.fft2(y.relu()).abs()).relu(), "/relu"),
    "transform of rows alone": (lambda y, _: torch.fft.rfft(y.relu(), dim=2).abs(), "/relu"),
    "there and back": (filtered, "/relu"),
    "a fast Fourier convolution": (of_frequencies, "/fft_irfft2"),
    "inverse first": (lambda y, _: torch.fft.fft(torch.fft.ifft(y)).real, "/real"),
    "complex numbers": (lambda y, c: (torch.complex(y, c(y)) * (0.3 + 1j)).mean((2, 3)).abs(), "second"),
    "real part of complex numbers": (lambda y, c: (torch.complex(y, c(y)) * (0.3 + 1j)).real, "/real"),
    "sum of stacked branches": (lambda y, c: torch.stack([y, c(y)], 1).relu().sum(1), "/sum"),
    "mean of stacked branches": (lambda y, c: torch.stack([y, c(y)]).mean(0), "/mean"),
    "convolution of stacked rows": (lambda y, c: c(torch.stack([row.relu() for row in y.unbind(2)], 2)), "second"),
}


@pytest.mark.parametrize("name", CHOSEN)
def test_the_default_layer_has_places_on_the_picture(name):
    """By reading the network; the map is Grad-CAM's definition there, by autograd in the plain model."""
    steps, expected = CHOSEN[name]
    net = network(steps)
    assert map_layer(net, None) == expected
    found = attribution.grad_cam(net, X, 1)
    features = net.activations(X, expected)[expected]
    record = net.run(X, 1, record=expected, gradient=True)
    by_hand = (record.gradient[expected].mean((2, 3), keepdim=True) * features).sum(1, keepdim=True).relu()
    torch.testing.assert_close(found.values, by_hand)
    assert net.layer(expected).spatial


@pytest.mark.parametrize(
    ("layer", "why"), [("/fft_fft2", "holds complex numbers"), ("/abs", "channels, height and width is needed")]
)
def test_frequencies_have_no_class_map(layer, why):
    with pytest.raises(LayerError, match=why):
        attribution.grad_cam(network(CHOSEN["sizes of frequencies"][0]), X, 1, layer=layer)


@pytest.mark.parametrize("method", [attribution.grad_cam, attribution.guided_grad_cam])
def test_complex_numbers_have_no_class_map(method):
    with pytest.raises(LayerError, match="complex numbers, which have no sign"):
        method(network(CHOSEN["real part of complex numbers"][0]), X, 1, layer="/mul")


def test_the_gradient_at_complex_values_is_autograds():
    """Oracle: the rest of the network from a complex leaf."""
    net = network(CHOSEN["real part of complex numbers"][0])
    record = net.run(X, 1, record="/mul", gradient=True)
    leaf = record.value["/mul"].detach().clone().requires_grad_()
    net.model.head(leaf.real.mean((2, 3)))[:, 1].sum().backward()
    torch.testing.assert_close(record.gradient["/mul"], leaf.grad)
