"""Dissection: the terms against loops written from the definition, for every kind of convolution."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm, weight_norm

from microtome import Network, units
from microtome.errors import InputError, LayerError


class Functional(nn.Module):
    """A convolution made by a function on an input padded on two sides only, and a product of matrices."""

    def __init__(self):
        super().__init__()
        self.kernel = nn.Parameter(torch.randn(4, 6, 3, 2))
        self.matrix = nn.Parameter(torch.randn(4, 5))

    def forward(self, x):
        x = F.conv2d(F.pad(x, (1, 0, 2, 1)), self.kernel).relu_()
        return x.mean((2, 3)) @ self.matrix


CONVOLUTIONS = {
    "plain": {"kernel_size": 3},
    "stride": {"kernel_size": (3, 5), "stride": (2, 3), "padding": (1, 2)},
    "same": {"kernel_size": 4, "padding": "same"},
    "valid": {"kernel_size": 2, "padding": "valid", "bias": False},
    "circular": {"kernel_size": 3, "padding": 1, "padding_mode": "circular"},
    "reflect": {"kernel_size": 5, "padding": 2, "padding_mode": "reflect"},
    "groups": {"kernel_size": 3, "groups": 3, "padding": 1},
    "depthwise": {"kernel_size": 3, "groups": 6, "dilation": 2, "padding": 2},
    "dilation": {"kernel_size": 3, "dilation": (1, 3), "stride": 2, "padding": 3},
}


def _by_loops(x, kernel, stride, dilation):
    """Cross-correlation of one padded channel with one kernel: the definition, position by position, in float64."""
    (h, w), (kh, kw) = x.shape, kernel.shape
    rows = (h - dilation[0] * (kh - 1) - 1) // stride[0] + 1
    columns = (w - dilation[1] * (kw - 1) - 1) // stride[1] + 1
    out = torch.zeros(rows, columns, dtype=torch.float64)
    for i in range(rows):
        for j in range(columns):
            for p in range(kh):
                for q in range(kw):
                    pixel = x[i * stride[0] + p * dilation[0], j * stride[1] + q * dilation[1]]
                    out[i, j] += float(pixel) * float(kernel[p, q])
    return out


def _padded(conv, x):
    """The input with the padding that the module's arguments ask for, worked out here."""
    if conv.padding == "valid":
        return x
    if conv.padding == "same":
        total = [d * (k - 1) for d, k in zip(conv.dilation, conv.kernel_size, strict=True)]
        return F.pad(x, (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2))
    mode = {"zeros": "constant"}.get(conv.padding_mode, conv.padding_mode)
    return F.pad(x, (conv.padding[1], conv.padding[1], conv.padding[0], conv.padding[0]), mode=mode)


@pytest.mark.filterwarnings("ignore:Using padding=.same.")
@pytest.mark.parametrize("name", CONVOLUTIONS)
def test_every_convolution_is_the_sum_of_its_parts(name):
    """Oracle: five nested loops in float64; the network computes in float32, hence 1e-5 of the largest term."""
    torch.manual_seed(0)
    conv = nn.Conv2d(6, 6, **CONVOLUTIONS[name])
    net = Network(nn.Sequential(conv, nn.Flatten()), input_shape=(6, 10, 11), mean=0.3, std=0.7)
    image = torch.rand(6, 10, 11)
    sheet = units.dissect(net, image, "0", 4)
    x = _padded(conv, ((image - 0.3) / 0.7)[None].double())[0]
    per_group = 6 // conv.groups
    first = 4 // per_group * per_group
    assert sheet.channels.tolist() == list(range(first, first + per_group))
    for row, channel in enumerate(sheet.channels.tolist()):
        expected = _by_loops(x[channel], conv.weight[4, row].detach(), conv.stride, conv.dilation)
        assert torch.allclose(sheet.contributions[row].double(), expected, rtol=1e-5, atol=1e-5)
        assert torch.equal(sheet.weights[row], conv.weight[4, row].detach())
    assert torch.allclose(sheet.cumulative, sheet.contributions.cumsum(0), atol=1e-6)
    assert torch.allclose(sheet.cumulative[-1] + sheet.bias, sheet.output, atol=1e-5)
    assert torch.equal(sheet.output, net.activations(image, "0")["0"][0, 4])
    assert 0 <= sheet.gap <= sheet.bound
    assert sheet.bound < 1e-3


def test_functional_convolution_with_padding_on_two_sides():
    torch.manual_seed(1)
    model = Functional()
    net = Network(model, input_shape=(6, 7, 8))
    image = torch.rand(6, 7, 8)
    sheet = units.dissect(net, image, "conv2d", 2)
    x = F.pad(image, (1, 0, 2, 1)).double()
    for row in range(6):
        expected = _by_loops(x[row], model.kernel[2, row].detach(), (1, 1), (1, 1))
        assert torch.allclose(sheet.contributions[row].double(), expected, rtol=1e-5, atol=1e-5)
    assert sheet.bias == 0
    assert sheet.inputs.shape == (6, 10, 9)
    assert sheet.gap <= sheet.bound
    assert torch.all(sheet.output == F.conv2d(F.pad(image, (1, 0, 2, 1)), model.kernel)[2])  # before the relu in place


def test_a_convolution_on_pieces_of_the_image_shows_them_all():
    """A layer that reads four quarters as a batch; oracle: the convolution of each quarter, stacked."""

    class Quarters(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(2, 3, 3, stride=2, padding=1)

        def forward(self, x):
            pieces = x.unfold(2, 4, 4).unfold(3, 4, 4).permute(0, 2, 3, 1, 4, 5).reshape(-1, 2, 4, 4)
            return self.conv(pieces).reshape(len(x), 4, 3, -1).mean((1, 3))

    model = Quarters().double()
    image = torch.rand(2, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(0))
    result = units.dissect(Network(model, (2, 8, 8)), image, "conv", 1)
    quarters = torch.stack([image[:, i : i + 4, j : j + 4] for i in (0, 4) for j in (0, 4)])
    value = model.conv(quarters)[:, 1].reshape(8, 2)
    torch.testing.assert_close(result.output, value)
    torch.testing.assert_close(result.contributions.sum(0) + result.bias, value)
    torch.testing.assert_close(result.inputs, quarters.movedim(1, 0).reshape(2, 16, 4))
    assert result.gap <= result.bound


def test_product_of_matrices():
    model = Functional()
    net = Network(model, input_shape=(6, 7, 8))
    image = torch.rand(6, 7, 8)
    sheet = units.dissect(net, image, "matmul", 3)
    assert torch.allclose(sheet.inputs.flatten() * model.matrix[:, 3].detach(), sheet.contributions.flatten())
    assert torch.allclose(sheet.output.flatten(), net.logits(image)[0, 3])


def test_linear_behind_a_flattened_map_names_the_channels_of_the_map():
    torch.manual_seed(2)
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(3 * 2 * 2, 5))
    net = Network(model, input_shape=(1, 6, 6))
    image = torch.rand(1, 1, 6, 6)
    sheet = units.dissect(net, image, "4", 1, labels=["a", "b", "c"])
    assert sheet.channels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert sheet.source == "2"  # the flattening looked through
    assert sheet.labels[::4] == ("a", "b", "c")
    features = model[:4](image)[0].detach()
    assert torch.allclose(sheet.contributions.flatten(), features * model[4].weight[1].detach())
    assert abs(float(sheet.cumulative[-1]) + sheet.bias - float(sheet.output)) < 1e-6
    assert torch.allclose(sheet.at(0, 0).sum() + sheet.bias, net.logits(image)[0, 1])


def test_rows_are_ordered_by_their_root_mean_square_and_shares_add_to_one():
    torch.manual_seed(3)
    conv = nn.Conv2d(4, 2, 3, padding=1)
    with torch.no_grad():
        conv.weight[0] *= torch.tensor([0.1, 3.0, 1.0, 0.01])[:, None, None]
    net = Network(nn.Sequential(conv, nn.Flatten()), input_shape=(4, 8, 8))
    sheet = units.dissect(net, torch.rand(4, 8, 8), "0", 0)
    loud = [float(row.pow(2).mean().sqrt()) for row in sheet.contributions]
    assert sheet.order.tolist() == sorted(range(4), key=lambda j: -loud[j])
    assert sheet.order.tolist()[0] == 1
    assert sheet.order.tolist()[-1] == 3
    assert abs(float(sheet.share.sum()) - 1) < 1e-5
    assert [row[0] for row in sheet.table().rows] == sheet.order.tolist()


def test_the_gap_is_a_real_check(monkeypatch):
    """The certificate notices a network whose value is not the sum."""
    from microtome.units.wiring import linear_parts

    conv = nn.Conv2d(2, 2, 3)
    net = Network(nn.Sequential(conv, nn.Flatten()), input_shape=(2, 6, 6))
    image = torch.rand(2, 6, 6)
    true = units.dissect(net, image, "0", 0)
    found = linear_parts._linear_call

    def forged(*args):
        call = found(*args)
        call.arguments["weight"] = call.arguments["weight"] * 1.01
        return call

    monkeypatch.setattr(linear_parts, "_linear_call", forged)
    wrong = units.dissect(net, image, "0", 0)
    assert true.gap <= true.bound < wrong.gap


def test_half_precision_networks_are_taken_apart_in_float64():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()).to(torch.bfloat16)
    net = Network(model, input_shape=(3, 8, 8))
    sheet = units.dissect(net, torch.rand(3, 8, 8), "0", 1)
    assert sheet.contributions.dtype == torch.float32
    assert sheet.gap <= sheet.bound


def test_labels_come_from_a_tuning_and_must_fit():
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(1, 3, 5), nn.ReLU(), nn.Conv2d(3, 2, 3), nn.Flatten())
    net = Network(model, input_shape=(1, 12, 12))
    tuning = units.tuning(net, "0", stimuli=units.stimuli.bars(12, angles=4))
    sheet = units.dissect(net, torch.rand(1, 12, 12), "2", 0, labels=tuning)
    assert sheet.labels == tuning.labels
    with pytest.raises(InputError, match="there are 2 labels"):
        units.dissect(net, torch.rand(1, 12, 12), "2", 0, labels=["a", "b"])


def test_what_cannot_be_dissected_says_what_can():
    model = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten())
    net = Network(model, input_shape=(1, 6, 6))
    image = torch.rand(1, 6, 6)
    with pytest.raises(LayerError, match="Choose 0"):
        units.dissect(net, image, "1", 0)
    with pytest.raises(LayerError, match="Nearest"):
        units.dissect(net, image, "conv9", 0)
    with pytest.raises(InputError, match="channels 0 to 2"):
        units.dissect(net, image, "0", 3)
    with pytest.raises(InputError, match="one image"):
        units.dissect(net, torch.rand(2, 1, 6, 6), "0", 0)


def test_a_sheet_survives_saving(tmp_path):
    net = Network(nn.Sequential(nn.Conv2d(1, 3, 3), nn.Flatten()), input_shape=(1, 6, 6))
    sheet = units.dissect(net, torch.rand(1, 6, 6), "0", 0, labels=["pixel"])
    sheet.save(tmp_path / "sheet.safetensors")
    again = units.Dissection.load(tmp_path / "sheet.safetensors")
    assert torch.equal(again.cumulative, sheet.cumulative)
    assert again.labels == ("pixel",)
    assert again.gap == sheet.gap


class MixedPrecision(nn.Module):
    """Runs under autocast inside its forward."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)

    def forward(self, x):
        with torch.autocast("cpu", torch.bfloat16):
            return self.head(self.conv(x).relu().mean((2, 3))).float()


@pytest.mark.parametrize("layer", ["conv", "head"])
def test_an_operation_under_autocast_is_dissected_in_the_precision_of_the_model(layer):
    """Oracle: the value that a hook sees; the terms add up to it within the digits of bfloat16."""
    model, seen = MixedPrecision(), {}
    image = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    for name in ("conv", "head"):
        model.get_submodule(name).register_forward_hook(lambda module, args, y, name=name: seen.update({name: y}))
    model(image)
    value = seen[layer][0, 1].float()
    found = units.dissect(Network(model, (3, 8, 8)), image, layer, 1)
    assert torch.equal(found.output.reshape(value.shape), value)
    assert 0 < found.gap <= found.bound


def test_the_advice_for_a_layer_that_does_not_fit_is_another_layer():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(144, 2))
    model[0].register_forward_hook(lambda module, args, y: y * 2)
    with pytest.raises(LayerError, match=r"ends in mul.*Choose 2\."):
        units.dissect(Network(model, (3, 8, 8)), torch.rand(3, 8, 8), "0", 0)


def test_the_advice_names_parametrised_layers_and_no_containers():
    conv, line = weight_norm(nn.Conv2d(3, 4, 3)), spectral_norm(nn.Linear(144, 2))
    net = Network(nn.Sequential(nn.Sequential(conv), nn.ReLU(), nn.Flatten(), line), (3, 8, 8))
    with pytest.raises(LayerError, match=r"Choose 0\.0, 3\."):
        units.dissect(net, torch.rand(3, 8, 8), "1", 0)
    assert units.dissect(net, torch.rand(3, 8, 8), "0.0", 0).gap < 1e-6


def test_the_strength_of_huge_contributions_is_finite():
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.Flatten())
    model[0].weight.data.fill_(1e25)
    sheet = units.dissect(Network(model, (1, 2, 2)), torch.full((1, 2, 2), 0.5), "0", 0)
    assert float(sheet.strength) == pytest.approx(5e24)
