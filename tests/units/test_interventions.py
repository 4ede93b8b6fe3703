"""Interventions against plain PyTorch: the same change written into the model by hand."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from microtome import Network, attribution, units
from microtome.errors import InputError, LayerError


class Plain(nn.Module):
    """A small network with modules and functions, in place and not; ``change`` is applied by hand where it is asked."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 6, 3, padding=1)
        self.fc = nn.Linear(6, 3)
        self.changes = {}

    def _changed(self, name: str, value: torch.Tensor) -> torch.Tensor:
        if name not in self.changes:
            return value
        scale, shift = self.changes[name]
        shape = (1, -1) + (1,) * (value.dim() - 2)
        value = value * scale.view(shape)
        return value + shift.view(shape) if shift.any() else value

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self._changed("conv1", self.conv1(x))
        x = self.norm(x)
        x = self._changed("/relu", functional.relu_(x))
        x = self._changed("conv2", self.conv2(x))
        x = x.relu().mean((2, 3))
        return self.fc(x)


class Tokens(nn.Module):
    """Units are the last axis, as in a transformer."""

    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Conv2d(1, 5, 4, 4)
        self.mix = nn.Linear(5, 5)
        self.head = nn.Linear(5, 3)
        self.scale = torch.ones(5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        tokens = self.embed(x).flatten(2).transpose(1, 2)
        return self.head(torch.tanh(self.mix(tokens) * self.scale).mean(1))


@pytest.fixture
def net() -> Network:
    torch.manual_seed(0)
    model = Plain()
    model.norm.running_mean.uniform_(-0.2, 0.2)
    model.norm.running_var.uniform_(0.5, 2)
    return Network(model.double().eval(), (1, 8, 8))


X = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_hand(net: Network, layer: str, units_: int, scale: dict, clamp: dict) -> Network:
    """The model with the change written into its forward; shares no code with the interventions."""
    factor, shift = torch.ones(units_).double(), torch.zeros(units_).double()
    for unit, number in scale.items():
        factor[unit] = number
    for unit, number in clamp.items():
        factor[unit], shift[unit] = 0, number
    model = copy.deepcopy(net.model)
    model.changes = {layer: (factor, shift)}
    return net.around(model)


@pytest.mark.parametrize(("layer", "count"), [("conv1", 4), ("/relu", 4), ("conv2", 6)])
@pytest.mark.parametrize(("scale", "clamp"), [({1: 0.0}, {}), ({2: 2.0, 0: -1.0}, {}), ({1: 0.0}, {3: 0.7})])
def test_scores_and_maps_are_those_of_the_model_changed_by_hand(net, layer, count, scale, clamp):
    changed = units.intervene(net, scale={layer: scale}, clamp={layer: clamp})
    other = by_hand(net, layer, count, scale, clamp)
    torch.testing.assert_close(changed.logits(X), other.logits(X), rtol=1e-12, atol=0)
    assert not torch.allclose(changed.logits(X), net.logits(X))
    for method, options in (
        (attribution.saliency, {}),
        (attribution.grad_cam, {"layer": "/relu.1"}),
        (attribution.guided_backprop, {}),
        (attribution.lrp, {}),
        (attribution.occlusion, {"window": 3, "stride": 2}),
    ):
        found, expected = method(changed, X, 1, **options).values, method(other, X, 1, **options).values
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12, msg=lambda text, m=method: f"{m}: {text}")


def test_the_value_that_is_recorded_is_the_changed_one_and_other_names_stay(net):
    changed = units.intervene(net, scale={"conv1": {1: 0.0}}, clamp={"/relu": {2: 0.5}})
    found = changed.activations(X, ["conv1", "/relu", "conv2"])
    plain = net.activations(X, ["conv1"])
    assert not found["conv1"][:, 1].any()
    torch.testing.assert_close(found["conv1"][:, 0], plain["conv1"][:, 0], rtol=0, atol=0)
    assert bool((found["/relu"][:, 2] == 0.5).all())
    assert found["conv2"].shape == (2, 6, 8, 8)


def test_units_on_the_last_axis():
    torch.manual_seed(0)
    model = Tokens().double()
    net = Network(model, (1, 8, 8))
    changed = units.intervene(net, scale={"mix": {3: 0.0, 1: 2.0}})
    other = copy.deepcopy(model)
    other.scale = torch.tensor([1.0, 2, 1, 0, 1], dtype=torch.float64)
    torch.testing.assert_close(changed.logits(X), other(X).detach(), rtol=1e-12, atol=0)


def test_the_network_itself_stays_and_an_intervention_comes_on_top_of_another(net):
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    score = net.logits(X)
    one = units.intervene(net, scale={"conv1": {1: 2.0}})
    two = units.intervene(one, scale={"conv1": {1: 3.0}}, clamp={"conv1": {0: 1.0}})
    at_once = units.intervene(net, scale={"conv1": {1: 6.0}}, clamp={"conv1": {0: 1.0}})
    torch.testing.assert_close(two.logits(X), at_once.logits(X), rtol=1e-12, atol=0)
    torch.testing.assert_close(net.logits(X), score, rtol=0, atol=0)
    assert all(torch.equal(value, before[name]) for name, value in net.model.state_dict().items())
    assert len({net.fingerprint, one.fingerprint, two.fingerprint}) == 3
    assert at_once.fingerprint == units.intervene(net, scale={"conv1": {1: 6.0}}, clamp={"conv1": {0: 1}}).fingerprint


def test_relevance_of_a_scaled_unit_is_conserved():
    """Doubling is one linear map: what arrives at it passes on whole, so nothing of the score is lost on the way."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2, bias=False))
    net = units.intervene(Network(model.double(), (1, 8, 8)), scale={"0": {1: 2.0}})
    made = attribution.lrp(net, X, 0, rules="epsilon")
    torch.testing.assert_close(made.values.flatten(1).sum(1), made.score, rtol=1e-4, atol=0)


def test_an_ablated_convolution_is_not_folded_into_its_norm(net):
    """Before a batch norm zero is not zero after it; the quicker copy must know."""
    changed = units.intervene(net, scale={"conv1": {1: 0.0}})
    quick = changed.quick(X, changed.logits(X), 10**9)
    torch.testing.assert_close(quick.logits(X), changed.logits(X), rtol=1e-6, atol=1e-9)
    assert quick is not changed


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"scale": {"conv9": {0: 0.0}}}, LayerError, "Nearest"),
        ({"scale": {"conv1": {4: 0.0}}}, InputError, "units 0 to 3"),
        ({"clamp": {"conv1": {0: float("nan")}}}, InputError, "finite"),
        ({"scale": {"conv1": {0: 2.0}}, "clamp": {"conv1": {0: 1.0}}}, InputError, "both scaled and clamped"),
    ],
)
def test_bad_interventions_say_what_is_wrong(net, options, error, says):
    with pytest.raises(error, match=says):
        units.intervene(net, **options)
