"""Directions in weight space: filter norms by hand, invariance under rescaling, exact ends, the plane of a training."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from microtome import InputError, Network, training
from microtome.training.landscape import directions
from training.landscape.small_networks import loss_by_hand, pairs, small

landscape = training.landscape


def test_filters_of_a_direction_have_the_norms_of_the_network_s():
    torch.manual_seed(0)

    class Odd(nn.Module):
        def __init__(self):
            super().__init__()
            self.up = nn.ConvTranspose2d(4, 6, 3, groups=2)
            self.conv, self.bn, self.fc = nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Linear(6, 3)
            self.dead = nn.Parameter(torch.zeros(3, 2))

        def forward(self, x):
            return self.fc(self.up(self.bn(self.conv(x))).mean((2, 3))) + self.dead.sum()

    net = Network(Odd(), (1, 6, 6))
    found = directions.random_direction(net, seed=3)
    assert set(found) == {"up.weight", "conv.weight", "fc.weight", "dead"}  # biases and norms are fixed
    for name in ("conv", "fc"):
        weight = getattr(net.model, name).weight.detach().double()
        ratio = found[f"{name}.weight"].flatten(1).norm(dim=1) / weight.flatten(1).norm(dim=1)
        torch.testing.assert_close(ratio, torch.ones_like(ratio), rtol=1e-6, atol=0)
    up, weight = found["up.weight"], net.model.up.weight.detach().double()
    for group in range(2):  # output channel o of a group is made by the group's two inputs
        for o in range(3):
            mine, its = (w[2 * group : 2 * group + 2, o].norm() for w in (up, weight))
            assert float(mine) == pytest.approx(float(its), rel=1e-6)
    assert not bool(found["dead"].any())
    whole = directions.random_direction(net, seed=3, normalization="layer", biases="random")
    assert float(whole["conv.weight"].norm()) == pytest.approx(float(net.model.conv.weight.detach().norm()), rel=1e-6)
    assert float(whole["fc.bias"].norm()) == pytest.approx(float(net.model.fc.bias.detach().norm()), rel=1e-6)
    plain = directions.random_direction(net, seed=3, normalization="none")
    assert float(plain["conv.weight"].std()) == pytest.approx(1, abs=0.4)


@pytest.mark.parametrize("tied", [nn.utils.parametrizations.spectral_norm, nn.utils.parametrizations.weight_norm])
def test_a_parametrised_weight_has_the_filters_of_its_layer(tied):
    """Oracle: the norm of each output channel of a transposed convolution, by hand. Inputs stand on its first axis."""
    torch.manual_seed(0)
    model = nn.Sequential(tied(nn.ConvTranspose2d(4, 6, 3, groups=2)), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    found = directions.random_direction(Network(model, (4, 5, 5)), seed=1)
    name = max(found)  # original, or original1: the part of the weight's shape
    drawn, weight = found[name], dict(model.named_parameters())[name].detach().double()
    assert weight.shape == (4, 3, 3, 3)
    for group in range(2):
        for out in range(3):
            mine, its = (w[2 * group : 2 * group + 2, out].norm() for w in (drawn, weight))
            assert float(mine) == pytest.approx(float(its), rel=1e-6)


def test_a_linear_layer_that_is_called_norm_moves():
    class NormedLinear(nn.Linear):
        pass

    class ScaleNorm(nn.Module):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(16, 1))

        def forward(self, x):
            return x * self.scale[:, 0]

    net = Network(nn.Sequential(nn.Flatten(), ScaleNorm(), NormedLinear(16, 3)), (1, 4, 4))
    assert set(directions.random_direction(net)) == {"2.weight"}


@pytest.mark.filterwarnings("ignore:Complex modules are a new feature")
def test_a_network_without_weights_that_move_says_so():
    norms = Network(nn.Sequential(nn.BatchNorm2d(1), nn.Flatten()), (1, 2, 2))
    with pytest.raises(InputError, match="belong to norms"):
        landscape.line(norms, pairs(5, (1, 2, 2)))
    assert landscape.line(norms, pairs(5, (1, 2, 2)), norms="random", steps=3).loss.isfinite().all()
    spectrum = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False).to(torch.complex64))
    spectrum.register_forward_pre_hook(lambda model, given: (given[0].to(torch.complex64),))
    spectrum.register_forward_hook(lambda model, given, scores: scores.abs())
    with pytest.raises(InputError, match="are not real"):
        directions.random_direction(Network(spectrum, (1, 2, 2)))
    with pytest.raises(InputError, match="it has none"):
        directions.random_direction(Network(nn.Flatten(), (1, 2, 2)))


@pytest.mark.parametrize("count", [1, 12])
def test_weights_on_one_line_span_no_plane(tmp_path, count):
    """A network of one parameter, and a training that goes straight on: the second direction would be rounding."""

    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.ones(count))

        def forward(self, x):
            return x.flatten(1)[:, :3] * self.weight.sum()

    model = Scaled()
    recorder = training.Recorder(tmp_path, model, gradients=False)
    for _ in range(4):
        with torch.no_grad():
            model.weight += 0.1
        recorder.step(1.0)
        recorder.epoch()
    with pytest.raises(InputError, match="do not lie on one line"):
        landscape.surface(Network(model, (1, 2, 2)), pairs(5, (1, 2, 2)), steps=3, run=recorder.run)


def test_rescaled_relu_layers_leave_the_normalised_surface_and_change_the_plain_one():
    """Invariance: relu(10 W x) / 10 is relu(W x). Independent of the code: a property that Li et al. ask for."""
    net, data = small(norm=False), pairs(30)
    model = copy.deepcopy(net.model)
    with torch.no_grad():
        model[0].weight.mul_(10)
        model[0].bias.mul_(10)
        model[2].weight.div_(10)
    other = Network(model, (1, 6, 6))
    found = {
        kind: [landscape.surface(n, data, steps=5, normalization=kind).loss for n in (net, other)]
        for kind in ("filter", "none")
    }
    torch.testing.assert_close(*found["filter"], rtol=1e-5, atol=1e-6)
    assert float((found["none"][0] / found["none"][1]).log().abs().max()) > 0.3


@pytest.mark.parametrize("norm", [True, False])
def test_the_way_between_networks_and_a_plane_through_them_meet_both(norm):
    a, b, data, test = small(1, norm), small(2, norm), pairs(40), pairs(25, seed=5)
    found = landscape.between(a, b, data, test=test, steps=5)
    assert found.alpha.tolist() == [0, 0.25, 0.5, 0.75, 1]
    for place, net in ((0, a), (-1, b)):
        for line, images in ((found, data), (found.test, test)):
            alone = landscape.line(net, images, steps=3)
            assert line.loss[place] == alone.loss[1]  # to the last bit
            assert line.accuracy[place] == alone.accuracy[1]
    half = {n: (v + b.model.state_dict()[n]) / 2 for n, v in a.model.state_dict().items() if v.is_floating_point()}
    assert float(found.loss[2]) == pytest.approx(loss_by_hand(a.model, data, half)[0], rel=1e-5)
    plane = landscape.surface(a, data, steps=3, directions=(landscape.toward(a, b), landscape.random_direction(a)))
    assert plane.loss[1, 1] == found.loss[0]
    assert plane.loss[2, 1] == found.loss[-1]
    wide = landscape.between(a, b, data, steps=5, margin=0.5)
    assert (wide.alpha[2], wide.alpha[6], len(wide.alpha)) == (0, 1, 9)
    with pytest.raises(InputError, match=r'one architecture were expected; .* for example "0\.weight"'):
        landscape.between(a, Network(nn.Sequential(nn.Conv2d(1, 2, 6), nn.Flatten(), nn.Linear(2, 3)), (1, 6, 6)), data)


def test_the_plane_of_a_training(tmp_path):
    """Oracle: a path that lies in a known plane but for one step, with weights written by hand."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Flatten(), nn.Linear(4, 3, bias=False))
    theta = model[1].weight.detach().clone()
    offsets = torch.zeros(5, 12)
    offsets[:, 0] = torch.tensor([4.0, 3.0, 2.0, 1.0, 0.0])
    offsets[:, 1] = torch.tensor([0.0, 2.0, 2.0, 1.0, 0.0])
    offsets[2, 5] = 0.5
    recorder = training.Recorder(tmp_path, model, gradients=False)
    for offset in offsets:
        with torch.no_grad():
            model[1].weight.copy_(theta + offset.view(3, 4))
        recorder.step(1.0)
        recorder.epoch()
    net = Network(model, (1, 2, 2))
    plane = landscape.principal(net, recorder.run)
    torch.testing.assert_close(
        plane.path.square().sum(1) + plane.distance.square(), offsets.double().square().sum(1), rtol=1e-5, atol=1e-10
    )
    drawn, true = plane.path.diff(dim=0).norm(dim=1).sum(), offsets.double().diff(dim=0).norm(dim=1).sum()
    assert plane.off_plane == pytest.approx(1 - float(drawn / true), abs=1e-6)
    assert 0 < plane.off_plane < 0.1
    found = landscape.surface(net, pairs(20, (1, 2, 2)), steps=7, run=recorder.run)
    assert (found.alpha == 0).sum() == (found.beta == 0).sum() == 1
    for axis, coordinates in ((found.alpha, found.path[:, 0]), (found.beta, found.path[:, 1])):
        assert axis[0] < coordinates.min()
        assert axis[-1] > coordinates.max()
    flat = training.Recorder(tmp_path / "flat", model, gradients=False)
    for offset in (offsets[0], offsets[1] + 0.37, offsets[4]):  # three weights lie in a plane
        with torch.no_grad():
            model[1].weight.copy_(theta + offset.view(3, 4))
        flat.step(1.0)
        flat.epoch()
    assert landscape.principal(Network(model, (1, 2, 2)), flat.run).off_plane == 0.0
    with pytest.raises(InputError, match="the run is of another network"):
        landscape.surface(small(), pairs(5), run=recorder.run)
    assert found.plot().axes
