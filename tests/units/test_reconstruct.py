"""Reconstructions against a deconvnet written by hand: unpool, rectify, transposed filters, in float64."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conformance.spellings import SPELLINGS, weights
from microtome import InputError, Network, units
from microtome.units.streaming.crops import cut

MEAN, STD = 0.3, 0.6


class Net(nn.Module):
    """Two blocks as in the paper: convolution, rectifier, max-pooling."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv1, self.conv2 = nn.Conv2d(2, 6, 5, stride=2, padding=1), nn.Conv2d(6, 5, 3, padding=1)
        self.pool = nn.MaxPool2d(3, 2, 1)
        self.fc = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(F.relu(self.conv1(x)))
        x = F.relu(self.conv2(x))
        return self.fc(self.pool(x).mean((2, 3)))


def by_hand(model: Net, image: Tensor, unit: int, position: tuple[int, int], method: str) -> Tensor:
    """The signal in the image from one activation of conv2. Independent: no autograd, no engine."""
    x = ((image[None] - MEAN) / STD).double()
    before = F.conv2d(x, model.conv1.weight, model.conv1.bias, stride=2, padding=1)
    pooled, switches = F.max_pool2d(before.clamp(min=0), 3, 2, 1, return_indices=True)
    signal = torch.zeros(1, 5, pooled.shape[2], pooled.shape[3], dtype=torch.float64)
    signal[0, unit, position[0], position[1]] = 1
    signal = F.conv_transpose2d(signal, model.conv2.weight, padding=1)
    unpooled = torch.zeros_like(before).flatten(2)  # windows overlap: what meets in one place adds up
    unpooled.scatter_add_(2, switches.flatten(2), signal.flatten(2))
    signal = unpooled.view_as(before)
    if method != "gradient":
        signal = signal.clamp(min=0)
    if method != "deconvnet":
        signal = signal * (before > 0)
    left_over = [(side + 2 - 5) % 2 for side in image.shape[1:]]
    signal = F.conv_transpose2d(signal, model.conv1.weight, stride=2, padding=1, output_padding=left_over)
    return signal[0] / STD


@pytest.fixture(scope="module")
def net() -> Network:
    return Network(Net().double(), (2, 22, 27), mean=MEAN, std=STD)


@pytest.fixture(scope="module")
def data() -> list[Tensor]:
    torch.manual_seed(1)
    return [torch.rand(2, 22, 27) for _ in range(14)]


@pytest.fixture(scope="module")
def top(net: Network, data: Any) -> units.LayerPatches:
    return units.top_patches(net, data, "conv2", k=4)["conv2"]


@pytest.mark.parametrize("method", ["deconvnet", "guided", "gradient"])
@pytest.mark.parametrize("selection", ["top", "low", "binned"])
def test_reconstructions_equal_those_by_hand(net: Network, data: Any, top: Any, method: str, selection: str) -> None:
    found = units.reconstruct(net, top, method=method, k=3, selection=selection, batch=4)
    assert found.values.shape == (5, 3, 2, 17, 17)
    assert isinstance(net.model, Net)
    for unit in range(5):
        for rank in range(3):
            image, position, activation = top.entry(unit, rank, selection)
            signal = by_hand(net.model, data[image], unit, position, method)
            box = top.box(unit, rank, selection)
            torch.testing.assert_close(found.values[unit, rank].double(), cut(signal, box, 0.0), rtol=1e-5, atol=1e-7)
            assert torch.equal(found.crops[unit, rank], top.crop(unit, rank, selection))
            assert float(found.activation[unit, rank]) == activation
            assert float(found.share_inside[unit, rank]) == pytest.approx(1)


def test_the_methods_differ(net: Network, top: Any) -> None:
    made = [units.reconstruct(net, top, method=method, k=2).values for method in ("deconvnet", "guided", "gradient")]
    assert not torch.allclose(made[0], made[1])
    assert not torch.allclose(made[1], made[2])
    assert not torch.allclose(made[0], made[2])


def test_the_batch_and_the_choice_of_units_change_nothing(net: Network, top: Any) -> None:
    every = units.reconstruct(net, top, k=4, batch=1)
    some = units.reconstruct(net, top, k=4, units=[3, 1], batch=16)
    torch.testing.assert_close(some.values, every.values[[3, 1]])
    assert some.units == [3, 1]
    assert some.row(1) == 1
    with pytest.raises(InputError, match="was not reconstructed"):
        some.row(0)


@pytest.mark.parametrize("name", [name for name, one in SPELLINGS.items() if one.family == "residual"])
def test_every_spelling_gives_the_same_reconstruction(name: str) -> None:
    torch.manual_seed(0)
    data = [torch.rand(1, 12, 12) for _ in range(5)]
    made = []
    for one in (SPELLINGS[name], next(other for other in SPELLINGS.values() if other.family == "residual")):
        net = Network(one.build(weights("residual", 1)), (1, 12, 12))
        top = units.top_patches(net, data, one.layer, k=2)[one.layer]
        made.append(units.reconstruct(net, top, method="guided", k=2).values)
    torch.testing.assert_close(made[0], made[1], rtol=1e-6, atol=1e-9)


def test_a_linear_layer_is_taken_back_to_the_whole_picture(net: Network, data: Any) -> None:
    """Oracle: the plain gradient of one score by torch."""
    top = units.top_patches(net, data, "fc", k=2)["fc"]
    found = units.reconstruct(net, top, method="gradient", k=1, units=2)
    x = data[int(top.image[2, 0])][None].double().requires_grad_()
    (expected,) = torch.autograd.grad(net.model((x - MEAN) / STD)[0, 2], x)
    torch.testing.assert_close(found.values[0, 0].double(), expected[0], rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"method": "lrp"}, "deconvnet, guided, gradient"), ({"k": 0}, "at least 1"), ({"units": 9}, "units 0 to 4")],
)
def test_bad_input_is_one_clear_error(net: Network, top: Any, options: Any, words: str) -> None:
    with pytest.raises(InputError, match=words):
        units.reconstruct(net, top, **options)
