"""Does a converted network answer by the mean of its maps, learn again, and leave the user's model alone?"""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import InputError, LayerError, Network, attribution, data, load, zoo
from microtome.cli.main import run
from microtome.surgery import CamConversion, convert_to_cam
from microtome.training import Recipe, fit


@pytest.fixture(scope="module")
def digits() -> tuple[data.Images, data.Images]:
    both = data.digits()
    return both.subset(range(1200)), both.subset(range(1200, 1797))


@pytest.fixture(scope="module")
def net(digits) -> Network:
    torch.manual_seed(0)
    model = zoo.SimpleConvNet((1, 8, 8), 10, channels=(8, 12, 16), hidden=32)
    fit(model, digits[0], recipe=Recipe(epochs=6, batch=32, optimizer="adam", lr=0.004))
    return Network(model, (1, 8, 8), classes=list("0123456789"))


@pytest.fixture(scope="module")
def converted(net, digits) -> CamConversion:
    return convert_to_cam(net, *digits, epochs=5, batch=32, lr=0.1)


def test_the_head_is_replaced_and_learns(net, converted, digits):
    assert converted.layer == "/relu.2"
    assert converted.accuracy["before"] > 0.85
    assert converted.accuracy["replaced"] < 0.35  # a head of random weights
    assert converted.accuracy["tuned"] > 0.85
    assert converted.loss[-1] < converted.loss[0]
    assert converted.parameters["after"] == converted.parameters["before"] - (16 * 32 + 32) - (32 * 10 + 10) + 170
    right = converted.network(net).logits(digits[1].images).argmax(1) == digits[1].labels
    assert float(right.double().mean()) == converted.accuracy["tuned"]


def test_scores_are_the_head_of_the_mean(net, converted, digits):
    """Oracle: the convolutions by hand with the tuned weights."""
    w, x = converted.weights, digits[1].images[:5]
    for index in (1, 2, 3):
        x = F.max_pool2d(x, 2) if index > 1 else x
        x = F.conv2d(x, w[f"body.conv{index}.weight"], w[f"body.conv{index}.bias"], padding=2).relu()
    expected = x.mean((2, 3)) @ w["head.weight"].T + w["head.bias"]
    torch.testing.assert_close(converted.network(net).logits(digits[1].images[:5]), expected)


def test_cam_works_there_and_grad_cam_is_its_positive_part(net, converted, digits):
    new, x = converted.network(net), digits[1].images[:4]
    plain = attribution.cam(new, x, 3)
    h, w = plain.values.shape[2:]
    torch.testing.assert_close(attribution.grad_cam(new, x, 3).values, plain.values.clamp(min=0) / (h * w))
    bias = converted.weights["head.bias"][3]
    torch.testing.assert_close(plain.values.mean((1, 2, 3)) + bias, plain.score)


def test_cam_names_the_call_on_other_networks(net, digits):
    with pytest.raises(LayerError, match=r"surgery\.convert_to_cam\(net, train, test\)"):
        attribution.cam(net, digits[1].images[:1])


class Awkward(nn.Module):
    """One ReLU object everywhere, batch norm, an in-place sum, a look at the head before it is reached, frozen."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(1, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.norm, self.act, self.drop = nn.BatchNorm2d(6), nn.ReLU(inplace=True), nn.Dropout(0.2)
        self.head = nn.Sequential(nn.Linear(6 * 64, 20), nn.ReLU(), nn.Linear(20, 10))
        self.requires_grad_(False)

    def forward(self, x: Tensor) -> Tensor:
        width = self.head[0].in_features
        y = self.act(self.norm(self.one(x)))
        z = self.two(y)
        z += y
        y = self.act(z)
        return self.head(self.drop(y.reshape(-1, width)))


def test_a_users_model_stays_as_it_is(digits):
    torch.manual_seed(0)
    model = Awkward().train()
    before = copy.deepcopy(model.state_dict())
    net = Network(model, (1, 8, 8), mean=0.3, std=0.4)
    found = convert_to_cam(net, *digits, layer="act#2", epochs=2, batch=32, lr=0.1)
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert found.accuracy["tuned"] > found.accuracy["replaced"] + 0.2
    assert not torch.equal(found.weights["body.one.weight"], before["one.weight"])
    assert float(attribution.cam(found.network(net), digits[1].images[:2]).values.abs().max()) > 0


def test_a_frozen_body_keeps_its_weights_and_norms(net, digits):
    torch.manual_seed(0)
    plain = Network(Awkward(), (1, 8, 8))
    found = convert_to_cam(plain, *digits, layer="act#2", epochs=2, lr=0.5, freeze=True)
    for name, value in plain.model.state_dict().items():
        if not name.startswith("head."):
            assert torch.equal(found.weights[f"body.{name}"], value)
    assert found.accuracy["tuned"] != found.accuracy["replaced"]


def test_it_is_kept_and_drawn(net, converted, digits, tmp_path):
    converted.save(tmp_path / "c.safetensors")
    again = load(tmp_path / "c.safetensors")
    x = digits[1].images[:3]
    assert torch.equal(again.network(net).logits(x), converted.network(net).logits(x))
    figure = converted.plot()
    assert [patch.get_height() for patch in figure.axes[0].patches] == [100 * v for v in converted.accuracy.values()]


def test_the_seed_decides(net, digits):
    few = digits[0].subset(range(64)), digits[1]
    one, same, other = (convert_to_cam(net, *few, epochs=1, seed=seed).weights["head.weight"] for seed in (0, 0, 1))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_what_cannot_be_converted_is_refused(net, digits):
    with pytest.raises(LayerError, match="fc4"):
        convert_to_cam(net, *digits, layer="fc4")
    with pytest.raises(InputError, match="labels"):
        convert_to_cam(net, digits[0], [image for image, _ in digits[1]])
    double = Network(copy.deepcopy(net.model).double(), (1, 8, 8))
    with pytest.raises(InputError, match="float32"):
        convert_to_cam(double, *digits)


def test_the_command_line(tmp_path, capsys):
    asked = ["cam-conversion", "--model", "zoo:simple-convnet", "--input-shape", "1,8,8", "--data", "digits"]
    assert run([*asked, "--test", "digits", "--epochs", "1", "-o", str(tmp_path / "c.safetensors")]) == 0
    assert "tuned     accuracy" in capsys.readouterr().out
    kept = load(tmp_path / "c.safetensors")
    again = kept.network(zoo.network("simple-convnet", input_shape=(1, 8, 8)))
    assert attribution.cam(again, torch.rand(1, 1, 8, 8)).values.shape == (1, 1, 2, 2)
