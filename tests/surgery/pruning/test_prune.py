"""Pruned networks: equal to masked ones, smaller in fact, retrained, kept on disk, and refused where they cannot be."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from microtome import InputError, LayerError, ModelError, Network, data, load, zoo
from microtome.data import Images
from microtome.errors import StoreError
from microtome.surgery import prune
from microtome.surgery.channels.removal import masked, prunable, without
from microtome.training import Recipe, fit


class Everything(nn.Module):
    """Residual adds, a concatenation, grouped and depthwise convolutions, batch norm, a gate, a functional kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.inner, self.outer = nn.Conv2d(8, 6, 3, padding=1), nn.Conv2d(6, 8, 3, padding=1)
        self.grouped = nn.Conv2d(8, 12, 3, padding=1, groups=4)
        self.depthwise = nn.Conv2d(12, 24, 3, padding=1, groups=12)
        self.squeeze, self.excite = nn.Conv2d(24, 4, 1), nn.Conv2d(4, 24, 1)
        self.branch = nn.Conv2d(8, 5, 1)
        self.kernel = nn.Parameter(torch.randn(7, 29, 1, 1) / 5)
        self.act = nn.PReLU(7)
        self.fc1, self.fc2 = nn.Linear(7 * 16, 20), nn.Linear(20, 3)

    def forward(self, x):
        x = F.relu(self.norm(self.stem(x)))
        y = self.outer(F.relu_(self.inner(x)))
        y += x
        x = F.max_pool2d(y, 2)
        z = F.relu(self.depthwise(self.grouped(x)))
        z = z * torch.sigmoid(self.excite(F.relu(self.squeeze(z.mean((2, 3), keepdim=True)))))
        x = torch.cat([z, self.branch(x)], 1)
        x = self.act(F.conv2d(x, self.kernel))
        return self.fc2(torch.tanh(self.fc1(x.flatten(1))))


def everything(dtype: torch.dtype = torch.float64) -> Network:
    torch.manual_seed(0)
    model = Everything()
    model.norm.running_mean.uniform_(-0.2, 0.2)
    return Network(model.to(dtype), (1, 8, 8))


def half(found, keep: int = 2) -> list[int]:
    return [channel for family in found.families.values() for channel in family.channels[::keep]]


def test_every_family_is_found_and_a_pruned_network_equals_the_masked_one():
    net = everything()
    found = prunable(net)
    # stem and outer make the residual stream together; the gate goes with the depthwise channels.
    assert {"stem", "inner", "squeeze", "branch", "fc1"} <= set(found.families)
    assert found.family("outer").name == "stem"
    assert found.family("excite") == found.family("depthwise") == found.family("grouped")
    assert set(found.refused) == {"fc2"}
    gone = half(found)
    small, same = without(net, found.channels, gone), masked(net, found.channels, gone)
    x = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(small.logits(x), same.logits(x), rtol=0, atol=1e-13)
    assert float((small.logits(x) - net.logits(x)).abs().max()) > 1e-3
    assert small.model.stem.out_channels == 4
    assert small.model.depthwise.groups == small.model.depthwise.in_channels == 4
    assert small.model.grouped.groups == 4
    assert small.model.kernel.shape[0] == 3


def test_pruned_equals_masked_bitwise_where_sums_are_exact():
    """Oracle: small integers, whose sums are the same in any order, so nothing but the cut can differ."""
    torch.manual_seed(1)
    model = nn.Sequential(
        nn.Conv2d(1, 6, 3), nn.ReLU(), nn.Conv2d(6, 8, 3, groups=2), nn.ReLU(), nn.Flatten(), nn.Linear(128, 4)
    )
    for parameter in model.parameters():
        parameter.data.copy_(torch.randint(-2, 3, parameter.shape).float())
    net = Network(model, (1, 8, 8))
    found = prunable(net)
    gone = half(found)
    x = torch.randint(0, 2, (4, 1, 8, 8)).float()
    assert torch.equal(without(net, found.channels, gone).logits(x), masked(net, found.channels, gone).logits(x))


def test_multiply_adds_are_those_of_the_smaller_network():
    """Oracle: the smaller network counted by torch's own counter."""
    from torch.utils.flop_counter import FlopCounterMode

    net = everything(torch.float32)
    found = prunable(net)
    for gone in ([], half(found)):
        small = without(net, found.channels, gone)
        with FlopCounterMode(display=False) as counter:
            small.model(torch.rand(1, 1, 8, 8))
        assert found.channels.multiply_adds(gone) == counter.get_total_flops() / 2


class Written(nn.Module):
    """A size is written into the code."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.two = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 4, 3)
        self.fc = nn.Linear(64, 3)

    def forward(self, x):
        x = F.relu(self.conv(x))
        return self.fc(F.relu(self.two(x)).view(-1, 64))


def test_what_cannot_be_removed_is_named():
    net = Network(Written(), (1, 8, 8))
    found = prunable(net)
    assert set(found.families) == {"conv"}
    assert "hard-coded" in found.refused["two"]
    with pytest.raises(InputError, match='layer "two" cannot be removed: the smaller model does not run'):
        found.family("two")
    with pytest.raises(InputError, match="the network's output"):
        found.family("fc")
    torch.manual_seed(0)
    shuffled = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ChannelShuffle(2), nn.Flatten(), nn.Linear(288, 2))
    assert "mixes them" in prunable(Network(shuffled, (1, 8, 8))).refused["0"]
    normed = nn.Sequential(nn.Conv2d(1, 8, 3), nn.GroupNorm(2, 8), nn.Flatten(), nn.Linear(288, 2))
    assert "normalises over them" in prunable(Network(normed, (1, 8, 8))).refused["0"]


@pytest.fixture(scope="module")
def digits() -> tuple[data.Images, data.Images]:
    both = data.digits()
    return both.subset(range(1200)), both.subset(range(1200, 1797))


@pytest.fixture(scope="module")
def net(digits) -> Network:
    torch.manual_seed(0)
    model = zoo.SimpleConvNet((1, 8, 8), 10, channels=(16, 16, 24), hidden=32)
    fit(model, digits[0], recipe=Recipe(epochs=6, batch=32, optimizer="adam", lr=0.004))
    return Network(model, (1, 8, 8))


def test_rounds_retrain_and_stay_on_disk(net, digits, tmp_path):
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    asked = {"conv1": 6, "conv2": 8, "conv3": 8}
    found = prune(net, digits[0], test=digits[1], rounds=3, channels=asked, epochs=5, batch=32, folder=tmp_path)
    assert [one.channels["conv1"] for one in found.rounds] == [12, 8, 6]
    assert {layer: found.rounds[-1].channels[layer] for layer in asked} == asked
    assert found.network.model.conv2.weight.shape == (8, 6, 5, 5)
    assert found.accuracy > 0.85
    assert found.rounds[-1].retrained >= found.accuracy - 0.01
    assert all(one.masked_difference < 1e-4 for one in found.rounds)
    x = digits[1].images[:7]
    for number, one in enumerate(found.rounds, 1):
        again = load(tmp_path / f"round-{number}.safetensors")
        assert torch.equal(again.rebuild(net).logits(x), one.network.logits(x))
        assert torch.equal(found.rebuild(net, number).logits(x), one.network.logits(x))
    assert all(torch.equal(before[name], value) for name, value in net.model.state_dict().items())
    found.save(tmp_path / "all.safetensors")
    assert load(tmp_path / "all.safetensors").table() == found.table()
    right = found.network.logits(digits[1].images).argmax(1) == digits[1].labels
    assert float(right.double().mean()) == pytest.approx(found.rounds[-1].retrained)


def test_an_interrupted_pruning_goes_on_with_the_same_result(net, digits, tmp_path):
    options = {"rounds": 3, "channels": {"conv1": 6, "conv3": 8}, "epochs": 1, "batch": 32, "tolerance": 1.0}
    whole = prune(net, digits[0], test=digits[1], **options)
    seen = []

    def interrupt(progress):
        seen.append(progress)
        if (tmp_path / "round-1.safetensors").exists():
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        prune(net, digits[0], test=digits[1], folder=tmp_path, progress=interrupt, **options)
    first = (tmp_path / "round-1.safetensors").read_bytes()
    assert not (tmp_path / "round-2.safetensors").exists()
    again = prune(net, digits[0], test=digits[1], folder=tmp_path, **options)
    assert (tmp_path / "round-1.safetensors").read_bytes() == first
    assert again.table() == whole.table()
    for name, value in whole.network.model.state_dict().items():
        assert torch.equal(again.network.model.state_dict()[name], value)
    third = prune(net, digits[0], test=digits[1], folder=tmp_path, **options)  # all is there
    assert third.table() == whole.table()


def test_rounds_of_other_options_or_another_network_are_refused(net, digits, tmp_path):
    options = {"rounds": 2, "channels": {"conv1": 8}, "batch": 32, "tolerance": 1.0}
    prune(net, digits[0], test=digits[1], folder=tmp_path, **options)
    with pytest.raises(StoreError, match=r"round-1.*was made with rounds=2, not 3; choose another folder"):
        prune(net, digits[0], test=digits[1], folder=tmp_path, **{**options, "rounds": 3})
    with pytest.raises(StoreError, match="made with seed=0, not 1"):
        prune(net, digits[0], test=digits[1], folder=tmp_path, seed=1, **options)
    with pytest.raises(StoreError, match="made with test="):
        prune(net, digits[0], test=digits[1].subset([*range(1, len(digits[1])), 0]), folder=tmp_path, **options)
    mirrored = Images(digits[1].pixels.flip(-1), digits[1].labels, digits[1].classes)
    with pytest.raises(StoreError, match="made with test="):
        prune(net, digits[0], test=mirrored, folder=tmp_path, **options)
    pixels = digits[0].pixels.clone()
    pixels[len(pixels) // 2] = 255 - pixels[len(pixels) // 2]
    one_other = Images(pixels, digits[0].labels, digits[0].classes)
    with pytest.raises(StoreError, match="made with train="):
        prune(net, one_other, test=digits[1], folder=tmp_path, **options)
    with pytest.raises(StoreError, match="made with train="):
        prune(net, digits[0].subset(range(1000)), test=digits[1], folder=tmp_path, **options)
    other = Network(zoo.SimpleConvNet((1, 8, 8), 10, channels=(16, 16, 24), hidden=32), (1, 8, 8))
    with pytest.raises(StoreError, match="a round of another network"):
        prune(other, digits[0], test=digits[1], folder=tmp_path, **options)


def test_a_round_that_loses_too_much_ends_it(net, digits):
    found = prune(
        net, digits[0].subset(range(60)), test=digits[1], rounds=3, multiply_adds=0.002, criterion="magnitude", lr=1e-6
    )
    assert not found.rounds[-1].kept
    assert len(found.rounds) < 3 or found.rounds[-1].retrained < found.accuracy - 0.01
    if len(found.rounds) == 1:
        assert found.network is net


@pytest.mark.parametrize("criterion", ["magnitude", "taylor", "variation", "class_selectivity"])
def test_criteria_choose_different_channels(net, digits, criterion):
    small = digits[0].subset(range(200))
    found = prune(
        net, small, test=digits[1], rounds=1, channels={"conv2": 8}, criterion=criterion, tolerance=1, lr=1e-5
    )
    kept = found.rounds[0].removed[0]
    other = prune(net, small, test=digits[1], rounds=1, channels={"conv2": 8}, tolerance=1, lr=1e-5,
                  criterion=lambda net, data, layer: torch.arange(16.0))  # fmt: skip
    family = prunable(net).families["conv2"]
    assert other.rounds[0].removed[0] == sorted(family.channels[:8])
    assert kept != other.rounds[0].removed[0]


def test_bad_input(net, digits):
    with pytest.raises(InputError, match="must keep between 1 and all"):
        prune(net, digits[0], channels={"conv1": 0})
    with pytest.raises(LayerError, match="Nearest"):
        prune(net, digits[0], channels={"conv9": 3})
    with pytest.raises(InputError, match="cannot be reached without emptying"):
        prune(net, digits[0].subset(range(60)), multiply_adds=1e-5, rounds=1)
    with pytest.raises(InputError, match="cannot be reached without emptying"):
        prune(net, digits[0].subset(range(60)), multiply_adds=1e-5, rounds=1, criterion="magnitude")
    train = digits[0]
    partly = Images(train.pixels, torch.where(torch.arange(len(train)) % 4 == 0, -1, train.labels))
    with pytest.raises(InputError, match="needs a label for every image"):
        prune(net, partly, test=digits[1], criterion="taylor", rounds=1)
    with pytest.raises(InputError, match="Nearest: taylor"):
        prune(net, digits[0].subset(range(60)), rounds=1, criterion="tailor")
    found = prune(net, digits[0].subset(range(60)), test=digits[1].subset(range(60)), rounds=1, tolerance=1)
    with pytest.raises(ModelError, match="another network"):
        found.rebuild(Network(zoo.SimpleConvNet((1, 8, 8), 10, channels=(8, 8, 8)), (1, 8, 8)))
    with pytest.raises(InputError, match="rounds 1 to 1"):
        found.rebuild(net, 4)
