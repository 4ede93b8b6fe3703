"""Recorded values are copied only where the model, or anything else, may write on their memory."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from microtome import Network

IMAGES = torch.rand(3, 2, 6, 6, generator=torch.Generator().manual_seed(0))


def written_later(x: torch.Tensor) -> torch.Tensor:
    return x.relu_() if x.shape else x


def past_the_counter(x: torch.Tensor) -> torch.Tensor:
    x.data.mul_(2)
    return x + 1


def by_numpy(x: torch.Tensor) -> torch.Tensor:
    x.detach().numpy()[:] *= 3
    return x + 1


def by_a_view(x: torch.Tensor) -> torch.Tensor:
    x.view(-1)[::2].zero_()
    return x + 1


def left_alone(x: torch.Tensor) -> torch.Tensor:
    return x.relu()


class Twice(nn.Module):
    """A convolution, something that happens to its value, and a linear layer."""

    def __init__(self, happens) -> None:
        super().__init__()
        self.conv, self.happens, self.fc = nn.Conv2d(2, 4, 3), happens, nn.Linear(64, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc(self.happens(self.conv(x)).flatten(1))


def conv_of(net: Network) -> torch.Tensor:
    """The plain value of the convolution."""
    return nn.functional.conv2d(IMAGES, net.model.conv.weight, net.model.conv.bias).detach()


@pytest.mark.parametrize("happens", [written_later, past_the_counter, by_numpy, by_a_view, left_alone])
def test_a_value_is_as_it_was_when_it_was_computed(happens):
    """Whatever the model writes on it later, and whichever layers are read with it."""
    net = Network(Twice(happens), (2, 6, 6))
    for layers in ("conv", ["conv", "fc"], ["fc", "conv", "logits"]):
        assert torch.equal(net.activations(IMAGES, layers)["conv"], conv_of(net))


@pytest.mark.parametrize(("happens", "copied"), [(left_alone, False), (written_later, True)])
def test_only_values_that_are_overwritten_are_copied(happens, copied):
    """The tensor that the convolution returned is the result, if nothing else can write on it."""
    net = Network(Twice(happens), (2, 6, 6))
    places: list[int] = []
    net.model.conv.register_forward_hook(lambda module, args, value: places.append(value.data_ptr()))
    value = net.activations(IMAGES, ["conv", "fc"])["conv"]
    assert (value.data_ptr() != places[-1]) is copied
    assert ("conv" in net.graph.untouched) is not copied


class Sometimes(nn.Module):
    """Overwrites the value of its convolution for bright images only."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.fc, self.passes = nn.Conv2d(2, 4, 3), nn.Linear(64, 3), []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.passes.append(len(x))
        y = self.conv(x)
        return self.fc((y.relu_() if x.mean() > 0.9 else y.relu()).flatten(1))


def test_a_pass_that_overwrites_for_the_first_time_is_run_again():
    """Reading the network has not shown it; the pass is run once more, and later passes copy the value at once."""
    net, passes = Network(Sometimes(), (2, 6, 6)), []
    net.model.register_forward_pre_hook(lambda module, args: passes.append(len(args[0])))
    bright = IMAGES + 1
    plain = nn.functional.conv2d(bright, net.model.conv.weight, net.model.conv.bias).detach()
    assert "conv" in net.graph.untouched
    for images, value, count in ((IMAGES, conv_of(net), 1), (bright, plain, 2), (bright, plain, 1)):
        passes.clear()
        assert torch.equal(net.activations(images, ["conv", "fc"], check=False)["conv"], value)
        assert len(passes) == count
    assert "conv" not in net.graph.untouched


class Keeping(nn.Module):
    """Returns memory that it keeps: a buffer, an attribute, an array, a part of something larger, or its input."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.how, self.array = how, np.zeros((3, 2, 6, 6), np.float32)
        self.register_buffer("place", torch.zeros(3, 2, 6, 6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.how == "buffer":
            return self.place[: len(x)].copy_(x * 2)
        if self.how == "attribute":
            self.held = x * 2
            return self.held
        if self.how == "view":
            value = x * 2
            self.held = value.view(-1)
            return value
        if self.how == "array":
            found = torch.from_numpy(self.array)[: len(x)]
            return found.copy_(x * 2)
        if self.how == "part":
            return torch.cat([x * 2, x], dim=1)[:, :2]
        return x


@pytest.mark.parametrize("how", ["buffer", "attribute", "view", "array", "part", "input"])
@pytest.mark.parametrize("layers", ["first", ["first", "fc"]])
def test_memory_that_something_else_keeps_is_copied(how, layers):
    """The next pass, what is restored afterwards, and the user's images do not change a result; it holds no more."""
    model = nn.Sequential()
    model.add_module("first", Keeping(how))
    model.add_module("flat", nn.Flatten())
    model.add_module("fc", nn.Linear(72, 3))
    net = Network(model, (2, 6, 6))
    images = IMAGES.clone()
    value = net.activations(images, layers)["first"]
    expected = IMAGES * (1 if how == "input" else 2)
    net.activations(torch.zeros(3, 2, 6, 6), layers)
    assert torch.equal(value, expected)
    value.zero_()
    assert torch.equal(images, IMAGES)
    assert value.untyped_storage().nbytes() == value.nbytes


def test_results_do_not_share_memory():
    """A block and its last layer have the same value; to write on one does not change the other."""
    model = nn.Sequential(nn.Sequential(nn.Conv2d(2, 4, 3), nn.Dropout()), nn.Flatten(), nn.Linear(64, 3))
    net = Network(model, (2, 6, 6))
    values = net.activations(IMAGES, ["0", "0.0", "0.1", "1"])
    plain = nn.functional.conv2d(IMAGES, model[0][0].weight, model[0][0].bias).detach()
    for name in list(values):
        assert torch.equal(values.pop(name).flatten(), plain.flatten())
    values = net.activations(IMAGES, ["0", "0.0", "0.1", "1"])
    for number, value in enumerate(values.values()):
        value.fill_(number)
    assert [value.unique().tolist() for value in values.values()] == [[0.0], [1.0], [2.0], [3.0]]


class SometimesInference(Sometimes):
    """Does so in inference mode, without version counters."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode(bool(x.mean() > 0.9)):
            return super().forward(x.clone()) * 1


def test_values_without_version_counter_are_copied():
    """Nothing would show that the model has overwritten them."""
    net = Network(SometimesInference(), (2, 6, 6))
    bright = IMAGES + 1
    plain = nn.functional.conv2d(bright, net.model.conv.weight, net.model.conv.bias).detach()
    assert "conv" in net.graph.untouched
    assert torch.equal(net.activations(bright, ["conv", "fc"], check=False)["conv"], plain)
