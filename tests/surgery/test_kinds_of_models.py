"""Surgery on repeated blocks, transposed convolutions, thin groups, hooks, and layers whose attributes are read."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from microtome import Network, surgery
from microtome.data import Images
from microtome.errors import LayerError
from microtome.training import landscape

SIZE = (3, 12, 12)


class Repeated(nn.Module):
    """One convolution and its batch norm run three times, as in recurrent residual networks."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.block = nn.Sequential(nn.Conv2d(8, 8, 3, padding=1), nn.BatchNorm2d(8))
        self.mid, self.head = nn.Conv2d(8, 10, 3), nn.Linear(10, 4)
        for module in (self.norm, self.block[1]):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)

    def forward(self, x):
        y = self.norm(self.stem(x))
        for _ in range(3):
            y = y + self.block(y).relu()
        return self.head(self.mid(y).relu().mean((2, 3)))


class NormAgain(nn.Module):
    """A batch norm behind two convolutions: setting it to pass one's values would pass the other's."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.other, self.norm = nn.Conv2d(3, 8, 3), nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8)
        self.next, self.head = nn.Conv2d(8, 6, 3), nn.Linear(6, 4)
        self.norm.running_mean.uniform_(-0.3, 0.3)
        self.norm.running_var.uniform_(0.5, 2)

    def forward(self, x):
        return self.head(self.next(self.norm(self.one(x)) + self.norm(self.other(x))).relu().mean((2, 3)))


class Upwards(nn.Module):
    """A transposed convolution reads channels, of another number than it makes."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.up = nn.Conv2d(3, 10, 3, stride=2), nn.ConvTranspose2d(10, 8, 3, stride=2)
        self.last, self.head = nn.Conv2d(8, 6, 3), nn.Linear(6, 4)
        with torch.no_grad():
            self.up.weight[4] = 0  # nothing reads channel 4

    def forward(self, x):
        return self.head(self.last(self.up(self.down(x).relu()).relu()).relu().mean((2, 3)))


def thin_groups() -> nn.Module:
    """A second convolution of two groups that follows the channels it reads when one is left in each."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(512, 4)
    )
    with torch.no_grad():
        for group in (0, 4):
            model[0].weight[group + 1 : group + 4] = model[0].weight[group]
            model[0].bias[group + 1 : group + 4] = model[0].bias[group]
    return model


def hooked() -> nn.Module:
    """Somebody's hook changes what a convolution gives."""
    model = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)
    )
    model[0].register_forward_hook(lambda module, given, output: output * 2 + 1)
    return model


MODELS = {
    "repeated": Repeated, "a norm again": NormAgain, "upwards": Upwards, "thin groups": thin_groups, "hooked": hooked,
}  # fmt: skip


@pytest.fixture
def data():
    return Images.from_float(torch.rand(24, *SIZE, generator=torch.Generator().manual_seed(0)), torch.arange(24) % 4)


def network(name: str) -> Network:
    torch.manual_seed(0)
    return Network(MODELS[name]().eval(), SIZE)


@pytest.mark.parametrize("name", MODELS)
def test_the_smaller_network_is_as_far_away_as_it_says(name, data):
    """Oracle: plain passes of the user's model and of the smaller one."""
    net = network(name)
    before = copy.deepcopy(net.model.state_dict())
    for found in (surgery.lossless(net, data, tolerance=0.05), surgery.compress(net, data, multiply_adds=0.7)):
        with torch.no_grad():
            away = float((found.network.model(data.images) - net.model(data.images)).abs().max())
        assert abs(away - float(found.largest_change)) <= 1e-5 + 1e-3 * away
    pruned = surgery.prune(net, data, rounds=1, multiply_adds=0.8, epochs=1, batch=12)
    assert max(one.masked_difference for one in pruned.rounds) < 1e-4
    assert all(torch.equal(value, net.model.state_dict()[key]) for key, value in before.items())


def test_what_a_transposed_convolution_does_not_read_is_removed(data):
    found = surgery.lossless(network("upwards"), data, tolerance=0.0)
    assert ("its outgoing weights are zero", [4]) in list(zip(found.reasons, found.units, strict=True))


def test_groups_of_one_channel_follow_what_they_read(data):
    found = surgery.lossless(network("thin groups"), data, tolerance=1e-3)
    assert found.network.model[0].out_channels == 2


def test_a_layer_whose_attributes_the_model_reads_is_not_left_out(data):
    """torch's encoder layer asks its norm for its epsilon and hands its weights to a kernel."""

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.patches, self.head = nn.Conv2d(3, 8, 4, 4), nn.Linear(8, 4)
            self.layer = nn.TransformerEncoderLayer(8, 2, 16, 0.0, batch_first=True)

        def forward(self, x):
            return self.head(self.layer(self.patches(x).flatten(2).transpose(1, 2)).mean(1))

    net = Network(Tokens().eval(), SIZE)
    with pytest.raises(LayerError, match=r'reads attributes of layer "layer.norm1"'):
        surgery.without(net, "layer.norm1", data, epochs=1, batch=12)


def test_the_loss_of_a_model_with_a_repeated_block(data):
    """Oracle: plain passes of copies with moved weights. A batch norm that runs thrice is folded into no kernel."""
    net = network("repeated")
    direction = landscape.random_direction(net, seed=3)
    expected = []
    for step in (-0.5, 0.0, 0.5):
        moved = copy.deepcopy(net.model)
        with torch.no_grad():
            for key, weight in moved.named_parameters():
                weight.add_(step * direction.get(key, torch.zeros(())))
            expected.append(nn.functional.cross_entropy(moved(data.images), data.labels))
    found = landscape.line(net, data, steps=3, extent=0.5, seed=3)
    torch.testing.assert_close(found.loss.flatten().float(), torch.stack(expected), rtol=1e-5, atol=1e-6)
