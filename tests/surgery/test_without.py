"""A layer taken out: adapters by least squares, accuracies, files, and errors."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microtome import InputError, LayerError, ModelError, Network, data, load, zoo
from microtome.surgery import without
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
    return Network(model, (1, 8, 8))


def test_a_convolution_is_taken_out_and_the_rest_learns(net, digits, tmp_path):
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    found = without(net, "conv2", digits[0], test=digits[1], epochs=4, batch=32)
    assert found.before > 0.85
    assert found.without < found.before
    assert found.retrained > found.without
    assert found.adapter == "each of 12 channels a multiple of the one channel that predicts it best, of 8"
    right = found.network.logits(digits[1].images).argmax(1) == digits[1].labels
    assert float(right.double().mean()) == pytest.approx(found.retrained)
    assert found.parameters[1] == found.parameters[0] - (12 * 8 * 25 + 12) + 12 * 8 + 12
    found.save(tmp_path / "w.safetensors")
    x = digits[1].images[:4]
    assert torch.equal(load(tmp_path / "w.safetensors").rebuild(net).logits(x), found.network.logits(x))
    assert all(torch.equal(before[name], value) for name, value in net.model.state_dict().items())
    assert "as it was" in "".join(text.get_text() for text in found.plot().axes[0].get_xticklabels())


def test_linear_explains_more_than_copies_and_both_are_least_squares(net, digits):
    """Oracle: torch.linalg.lstsq on the values themselves."""
    some = digits[0].subset(range(256))
    copies, linear = (
        without(net, "conv2", some, test=digits[1], adapter=kind, sample=256) for kind in ("copies", "linear")
    )
    values = net.activations(some.images, ["conv2@input", "conv2"])
    x = values["conv2@input"].movedim(1, -1).flatten(0, 2).double()
    y = values["conv2"].movedim(1, -1).flatten(0, 2).double()
    x = torch.cat([x, torch.ones_like(x[:, :1])], 1)
    left = (y - x @ torch.linalg.lstsq(x, y).solution).square().sum()
    assert linear.explained == pytest.approx(float(1 - left / (y - y.mean(0)).square().sum()), abs=1e-4)
    best = torch.stack([
        torch.stack([torch.corrcoef(torch.stack([x[:, j], y[:, k]]))[0, 1] ** 2 for j in range(8)]).nan_to_num().max()
        for k in range(12)
    ])  # fmt: skip
    variance = (y - y.mean(0)).square().sum(0)
    assert copies.explained == pytest.approx(float((best * variance).sum() / variance.sum()), abs=1e-4)
    assert linear.explained > copies.explained


def test_a_layer_that_repeats_the_one_before_can_go():
    """Planted: conv2 hands every channel on, so nothing is lost without it."""
    torch.manual_seed(0)
    second = nn.Conv2d(4, 4, 3, padding=1)
    with torch.no_grad():
        second.weight.zero_()
        second.bias.zero_()
        for channel in range(4):
            second.weight[channel, (channel + 1) % 4, 1, 1] = 2.0
    model = nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), second, nn.ReLU(), nn.Flatten(), nn.Linear(144, 3))
    net = Network(model, (1, 8, 8))
    x = torch.rand(80, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    labels = net.logits(x).argmax(1)
    items = list(zip(x, labels.tolist(), strict=True))
    found = without(net, "2", items, test=items, adapter="copies", lr=1e-6)
    assert found.explained == pytest.approx(1, abs=1e-5)
    assert found.before == found.without == 1
    passed = without(net, "2", items, test=items, adapter="identity", lr=1e-6)
    assert passed.explained < 0.5
    assert passed.without < 1


def test_residual_blocks_and_bad_input(net, digits):
    model = zoo.resnet18((1, 16, 16), 10)
    small = Network(model, (1, 16, 16))
    items = [(torch.rand(1, 16, 16), k % 10) for k in range(20)]
    found = without(small, "layer1.1", items, lr=1e-5)
    assert found.kind == "identity"
    assert found.images == 4
    strided = without(small, "layer2.0", items, lr=1e-5, adapter="linear")
    assert strided.adapter.startswith("averaged to the layer's size")
    with pytest.raises(LayerError, match="is the operation relu"):
        without(net, "relu", digits[0])
    with pytest.raises(LayerError, match="runs 2 times"):
        without(small, "layer1.0.relu", items)
    with pytest.raises(LayerError, match="is a matrix itself"):
        without(net, "fc4", digits[0], adapter="linear")
    with pytest.raises(InputError, match="nothing can be passed on"):
        without(net, "conv2", digits[0], adapter="identity")
    with pytest.raises(InputError, match="there is no adapter"):
        without(net, "conv2", digits[0], adapter="none")
    with pytest.raises(ModelError, match="another network"):
        found.rebuild(net)
