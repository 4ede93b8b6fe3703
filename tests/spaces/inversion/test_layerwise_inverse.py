"""Does the network, run backwards, give the image that made the output, and say so where it cannot?"""

from __future__ import annotations

import itertools
import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

import microtome as mt
from microtome import spaces
from microtome.spaces.inversion.activation_inverses import InverseFunction, inverse_function
from microtome.trace import Call

ACTIVATIONS = {
    "selu": nn.SELU(),
    "elu": nn.ELU(0.7),
    "celu": nn.CELU(1.3),
    "leaky": nn.LeakyReLU(0.2, inplace=True),
    "prelu": nn.PReLU(6, 0.3),
    "tanh": nn.Tanh(),
    "sigmoid": nn.Sigmoid(),
    "softplus": nn.Softplus(beta=2.0),
    "identity": nn.Identity(),
}


def network(activation):
    torch.manual_seed(0)
    layers = (nn.Flatten(), nn.Linear(4, 6), activation, nn.BatchNorm1d(6), nn.Linear(6, 6), nn.Linear(6, 8))
    model = nn.Sequential(*layers).double()
    model[3].running_mean.uniform_(-1, 1)
    model[3].running_var.uniform_(0.5, 2)
    model[3].weight.data.uniform_(0.5, 2)
    return mt.Network(model, (1, 2, 2), mean=0.2, std=0.7)


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_images_come_back(name):
    """Closed form: the identity, for widths that do not shrink."""
    net = network(ACTIVATIONS[name])
    x = torch.rand(5, 1, 2, 2, dtype=torch.float64)
    found = spaces.invert(net, net.logits(x), truth=x)
    torch.testing.assert_close(found.images, x, rtol=0, atol=1e-10)
    assert bool(found.valid.all())
    assert float(found.error.max()) < 1e-12
    assert all(row["error"] < 1e-10 and row["exact"] for row in found.layers)


@pytest.mark.parametrize("padding_mode", ["zeros", "circular"])
def test_convolutional_networks_come_back(padding_mode):
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 2, 3, padding=1, padding_mode=padding_mode),
        nn.SELU(),
        nn.PixelUnshuffle(2),
        nn.Conv2d(8, 9, 1, bias=False),
        nn.BatchNorm2d(9),
        nn.Tanh(),
        nn.Flatten(),
    ).double()
    net = mt.Network(model, (1, 6, 6))
    x = torch.rand(3, 1, 6, 6, dtype=torch.float64)
    torch.testing.assert_close(spaces.invert(net, net.logits(x)).images, x, rtol=0, atol=1e-9)


def test_conjugate_gradients_invert_large_convolutions(monkeypatch):
    """Oracle: the dense route."""
    import sys

    torch.manual_seed(1)
    net = mt.Network(nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.SELU(), nn.Flatten()).double(), (1, 6, 6))
    x = torch.rand(3, 1, 6, 6, dtype=torch.float64)
    monkeypatch.setattr(sys.modules["microtome.spaces.inversion.inverse_steps"], "_DENSE_SIDE", 1)
    torch.testing.assert_close(spaces.invert(net, net.logits(x)).images, x, rtol=0, atol=1e-9)


def test_shrinking_widths_give_the_shortest_image_and_the_null_space_of_another():
    """Closed form: one Linear layer; W^+ y is the row-space part, and beside=x restores x."""
    torch.manual_seed(0)
    net = mt.Network(nn.Sequential(nn.Flatten(), nn.Linear(9, 4)).double(), (1, 3, 3))
    x = torch.rand(3, 1, 3, 3, dtype=torch.float64)
    s = spaces.subspaces(net, "1")
    found = spaces.invert(net, net.logits(x))
    torch.testing.assert_close(found.images, s.project(x), rtol=0, atol=1e-12)
    assert not found.layers[-1]["exact"]
    assert "4 of 9" in found.layers[-1]["why"]
    assert float(found.error.max()) < 1e-12
    torch.testing.assert_close(spaces.invert(net, net.logits(x), beside=x).images, x, rtol=0, atol=1e-12)
    other = torch.rand(1, 1, 3, 3, dtype=torch.float64)
    mixed = spaces.invert(net, net.logits(x), beside=other).images
    torch.testing.assert_close(mixed, s.project(x) + s.reject(other), rtol=0, atol=1e-12)


def test_outputs_out_of_range_are_named_or_marked():
    net = mt.Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.Tanh()).double(), (1, 2, 2))
    y = torch.tensor([[0.1, 0.2, -0.3, 0.4], [0.1, 1.5, 0.0, 0.0]])
    with pytest.raises(mt.InputError, match=r'1 of 2 outputs cannot come out of "2": values in \(-1, 1\)'):
        spaces.invert(net, y)
    found = spaces.invert(net, y, strict=False)
    assert found.valid.tolist() == [True, False]
    assert bool(found.images[1].isnan().all())
    assert float(found.error[0]) < 1e-12
    assert found.layers[-1]["outside"] == 1


@pytest.mark.parametrize("size", [1, 3])
@pytest.mark.parametrize("whole", [True, False])
def test_large_convolutions_are_called_exact_only_where_it_is_known(size, whole, monkeypatch):
    """By construction: a convolution that is deaf to a channel loses it, however many outputs it has."""
    monkeypatch.setattr(sys.modules["microtome.spaces.inversion.inverse_steps"], "_DENSE_SIDE", 1)
    torch.manual_seed(0)
    layer = nn.Conv2d(4, 8, size, padding=size // 2)
    if not whole:
        layer.weight.data[:, 1] = 0
    net = mt.Network(nn.Sequential(layer, nn.Flatten()), (4, 6, 6))
    found = spaces.invertibility(net)
    assert found.exact == found.layers[0]["exact"] == (whole and size == 1)
    if size == 1:  # known from the kernel; oracle: the dense matrix
        matrix = spaces.operator(net, "0").dense()
        assert found.layers[0]["rank"] == int(torch.linalg.matrix_rank(matrix))
        s = torch.linalg.svdvals(matrix)[: found.layers[0]["rank"]]
        assert found.layers[0]["condition_number"] == pytest.approx(float(s[0] / s[-1]), rel=1e-9)
    else:
        assert "not known" in str(found.table())


def test_what_cannot_be_undone_is_said():
    class Residual(nn.Module):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x):
            x = x.flatten(1)
            return functional.selu(self.fc(x)) + x

    net = mt.Network(Residual(), (1, 2, 2))
    report = spaces.invertibility(net)
    assert not report.invertible
    assert "more than one branch" in report.layers[-1]["why"]
    relu = mt.Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4)), (1, 2, 2))
    with pytest.raises(mt.LayerError, match='"2" cannot be undone: relu gives 0'):
        spaces.invert(relu, torch.zeros(1, 4))
    assert "relu gives 0" in str(spaces.invertibility(relu).table())
    with pytest.raises(mt.InputError, match=r"shape \(N, 4\)"):
        spaces.invert(relu, torch.zeros(1, 5))


def test_a_closing_log_softmax_is_left_out():
    net = mt.Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 6), nn.LogSoftmax(1)).double(), (1, 2, 2))
    x = torch.rand(2, 1, 2, 2, dtype=torch.float64)
    torch.testing.assert_close(spaces.invert(net, net.logits(x)).images, x, rtol=0, atol=1e-12)


def selu_network(widths, shape, seed):
    torch.manual_seed(seed)
    layers = [nn.Flatten()]
    for narrow, wide in itertools.pairwise(widths):
        layers += [nn.Linear(narrow, wide), nn.SELU()]
        nn.init.normal_(layers[-2].weight, std=narrow**-0.5)  # as SELU networks start
    return mt.Network(nn.Sequential(*layers).double(), shape)


def off(found, x):
    return (found.images - x).flatten(1).norm(dim=1) / x.flatten(1).norm(dim=1)


@pytest.mark.parametrize(
    ("widths", "shape"), [((196, 224, 256, 288, 320, 352), (1, 14, 14)), ((64, 64, 64, 64, 64), (1, 8, 8))]
)
def test_selu_networks_reach_the_stated_precision(widths, shape):
    """Median error below 1e-9 over seeds, widths growing or equal, and the error is what rounding makes of it."""
    medians = []
    for seed in range(5):
        net = selu_network(widths, shape, seed)
        x = torch.rand(20, *shape, dtype=torch.float64)
        found = spaces.invert(net, net.logits(x))
        error = off(found, x)
        medians.append(error.median())
        assert float(error.median()) < 40 * float(found.rounding.median())
        assert float(error.median()) > 0.1 * float(found.rounding.median())
    assert float(torch.stack(medians).median()) < 1e-9


def test_square_layers_of_bad_condition_are_told_from_good_ones():
    """The same network with orthogonal weights is exact to 1e-13; with random ones it cannot be, and says so."""
    net = selu_network((196,) * 6, (1, 14, 14), 2)
    x = torch.rand(10, 1, 14, 14, dtype=torch.float64)
    bad = spaces.invert(net, net.logits(x))
    for module in net.model:
        if isinstance(module, nn.Linear):
            nn.init.orthogonal_(module.weight)
    good = spaces.invert(net, net.logits(x))
    assert float(off(good, x).max()) < 1e-13
    assert float(good.rounding.max()) < 1e-14
    assert float(off(bad, x).median()) > 1e-10
    assert float(bad.rounding.median()) > 1e-10


def test_newton_s_method_takes_back_what_the_layers_inverses_lost(monkeypatch):
    """Oracle: the layer by layer answer, with the refinement switched off."""
    import sys

    cases = [
        (selu_network((64,) * 5, (1, 8, 8), seed), torch.rand(20, 1, 8, 8, dtype=torch.float64)) for seed in range(5)
    ]
    with_it = torch.stack([off(spaces.invert(net, net.logits(x)), x).median() for net, x in cases])
    module = sys.modules["microtome.spaces.inversion.layerwise_inverse"]
    monkeypatch.setattr(module, "refined", lambda net, inverses, images, outputs: images)
    without = torch.stack([off(spaces.invert(net, net.logits(x)), x).median() for net, x in cases])
    assert float((with_it / without).log().mean().exp()) < 0.7


@pytest.mark.parametrize("function", ["softsign", "logsigmoid", "exp"])
def test_inverse_functions(function):
    x = torch.linspace(-3, 3, 31, dtype=torch.float64)
    func = getattr(functional, function, None) or getattr(torch, function)
    inverse = inverse_function(Call(function, func, (x,), {}, False))
    assert isinstance(inverse, InverseFunction)
    torch.testing.assert_close(inverse.undo(func(x)), x, rtol=0, atol=1e-12)
