"""Compression without training: the brain surgeon against brute force, absorption against lstsq, and real networks."""

from __future__ import annotations

import itertools
import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from microtome import InputError, LayerError, Network, data, load, zoo
from microtome.surgery import compress, latency
from microtome.surgery.channels.channel_map import channels_of
from microtome.surgery.channels.removal import prunable, without
from microtome.surgery.compression.layer_samples import inputs_of
from microtome.surgery.compression.moments import read_moments
from microtome.surgery.compression.optimal_brain_surgeon import Reading, order
from microtome.training import Recipe, fit


def test_the_first_removal_is_that_of_brute_force():
    """Oracle: for every channel the least-squares problem without its columns, solved by lstsq on the samples."""
    generator = torch.Generator().manual_seed(0)
    mix = torch.randn(13, 13, generator=generator, dtype=torch.float64)
    x = torch.cat([mix[:12] @ torch.randn(13, 400, generator=generator, dtype=torch.float64), torch.ones(1, 400)])
    weight = torch.randn(1, 5, 13, generator=generator, dtype=torch.float64)
    importance = torch.rand(1, 5, 1, generator=generator, dtype=torch.float64)
    columns = [torch.arange(3) + 3 * channel for channel in range(4)]
    reading = Reading(weight, (x @ x.T / 400)[None], importance, columns)
    found = order([reading], damping=0.0, until=2, steps=4)
    y = weight[0] @ x

    def cost(gone: tuple[int, ...]) -> float:
        kept = [row for row in range(13) if row == 12 or row // 3 not in gone]
        fitted = torch.linalg.lstsq(x[kept].T, y.T).solution.T @ x[kept]
        return float(((y - fitted).square() * importance[0]).sum() / 400)

    costs = {channel: cost((channel,)) for channel in range(4)}
    first = min(costs, key=costs.__getitem__)
    assert found.channels[0] == first
    assert found.cost[0] == pytest.approx(costs[first], rel=1e-3)
    second = min((c for c in range(4) if c != first), key=lambda c: cost((first, c)))
    assert found.channels[1] == second
    assert found.cost[1] == pytest.approx(cost((first, second)), rel=1e-3)


def test_costs_are_the_errors_on_images_that_the_adapted_weights_have_not_seen():
    """Oracle: ridge regression on 40 samples of 30 noisy inputs by numpy's way, its error on 4,000 others."""
    generator = torch.Generator().manual_seed(0)
    signal = torch.randn(30, 3, generator=generator, dtype=torch.float64)

    def inputs(count: int) -> torch.Tensor:
        x = signal @ torch.randn(3, count, generator=generator, dtype=torch.float64)
        x += torch.randn(30, count, generator=generator, dtype=torch.float64)
        return torch.cat([x, torch.ones(1, count, dtype=torch.float64)])

    seen, other = inputs(40), inputs(4000)
    weight = torch.randn(1, 5, 31, generator=generator, dtype=torch.float64)
    importance = torch.rand(1, 5, 1, generator=generator, dtype=torch.float64)
    columns = [torch.tensor([channel]) for channel in range(30)]
    moments, held_out = ((x @ x.T / x.shape[1])[None] for x in (seen, other))
    found = order([Reading(weight, moments, importance, columns, held_out)], damping=0.01)
    blind = order([Reading(weight, moments, importance, columns)], damping=0.01)
    assert found.channels == blind.channels
    ridge = 0.01 * float((seen[:30] ** 2).mean()) * torch.eye(31, dtype=torch.float64)
    ridge[-1, -1] *= 1e-4
    for count in (1, 8, 16, 24):
        kept = [row for row in range(31) if row not in found.channels[:count]]
        whole = moments[0] + ridge
        adapted = torch.linalg.solve(whole[kept][:, kept], whole[kept] @ weight[0].T).T
        error = (weight[0] @ other - adapted @ other[kept]).square() * importance[0]
        assert found.cost[count - 1] == pytest.approx(float(error.sum() / 4000), rel=1e-6)
        assert blind.cost[count - 1] < 0.9 * found.cost[count - 1]
    assert found.cost == sorted(found.cost)


@pytest.mark.parametrize("options", list(itertools.product((1, 2), (0, 1, "same"), (1, 2), (1, 2))), ids=str)
def test_what_a_convolution_reads_gives_what_it_gives(options):
    """Oracle: the convolution itself: weights times patches."""
    stride, padding, dilation, groups = options
    if padding == "same" and stride != 1:
        pytest.skip("torch refuses it")
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, 3, stride, padding, dilation, groups).double()
    net = Network(nn.Sequential(conv, nn.Flatten()), (4, 9, 7))
    image = torch.rand(2, 4, 9, 7, dtype=torch.float64)
    x = inputs_of(net.call("0", image))
    rows = conv.weight.view(groups, 6 // groups, -1) @ x + conv.bias.view(groups, -1, 1)
    value = conv(image)
    expected = value.flatten(2).view(2, groups, 6 // groups, -1).permute(1, 2, 0, 3).flatten(2)
    torch.testing.assert_close(rows, expected)
    moments = read_moments(net, channels_of(net.model, image[:1]), list(image.float()), exact=True)
    assert moments["0/conv2d"].samples == x.shape[2]


@pytest.fixture(scope="module")
def trained() -> tuple[Network, data.Images, data.Images]:
    both = data.digits()
    train, test = both.subset(range(1200)), both.subset(range(1200, 1797))
    torch.manual_seed(0)
    model = zoo.SimpleConvNet((1, 8, 8), 10, channels=(16, 24, 24), hidden=32)
    fit(model, train, recipe=Recipe(epochs=6, batch=32, optimizer="adam", lr=0.004))
    return Network(model, (1, 8, 8)), train, test


def accuracy(net: Network, test: data.Images) -> float:
    return float((net.logits(test.images).argmax(1) == test.labels).double().mean())


def test_half_the_multiply_adds_go_for_little_and_more_than_magnitude_leaves(trained, tmp_path):
    net, train, test = trained
    found = compress(net, train, multiply_adds=0.3)
    assert 0.25 < found.share <= 0.3
    assert accuracy(found.network, test) > accuracy(net, test) - 0.03
    family = prunable(net)
    gone = [
        channel
        for one in family.families.values()
        for channel, _ in sorted(
            zip(one.channels, net.module(one.name).weight.flatten(1).norm(dim=1).tolist(), strict=True),
            key=lambda pair: pair[1],
        )[: int(0.45 * len(one.channels))]
    ]
    assert family.channels.multiply_adds(gone) / family.channels.multiply_adds() > found.share
    assert accuracy(found.network, test) > accuracy(without(net, family.channels, gone), test)
    found.save(tmp_path / "c.safetensors")
    x = test.images[:5]
    assert torch.equal(load(tmp_path / "c.safetensors").rebuild(net).logits(x), found.network.logits(x))
    assert found.plot().axes


def test_options_change_the_result_and_bad_input_is_refused(trained):
    net, train, _ = trained
    some = train.subset(range(600))
    one = compress(net, some, multiply_adds=0.5, fit=False)
    x = torch.rand(2, 1, 8, 8)
    for options in ({"damping": 1.0}, {"fit": True}, {"multiply_adds": 0.4}):
        other = compress(net, some, **{"multiply_adds": 0.5, "fit": False, **options})
        assert not torch.equal(one.network.logits(x), other.network.logits(x))
    with pytest.raises(InputError, match=r"in \(0, 1\]"):
        compress(net, some, multiply_adds=0)
    with pytest.raises(InputError, match="cannot be reached without emptying a layer; the minimum is"):
        compress(net, some, multiply_adds=1e-6)
    with pytest.raises(LayerError, match="no channel of the network can be removed"):
        compress(Network(nn.Sequential(nn.Flatten(), nn.Linear(64, 3)), (1, 8, 8)), some)


class Attention(nn.Module):
    """A transformer block as DeiT has it: one matrix for query, key and value, taken apart by a reshape."""

    def __init__(self, width: int = 12, heads: int = 3) -> None:
        super().__init__()
        self.patch, self.heads = nn.Conv2d(1, width, 4, 4), heads
        self.cls, self.place = nn.Parameter(torch.zeros(1, 1, width)), nn.Parameter(torch.randn(1, 5, width) / 5)
        self.norm1, self.norm2, self.norm = nn.LayerNorm(width), nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.fc1, self.fc2, self.head = nn.Linear(width, 48), nn.Linear(48, width), nn.Linear(width, 3)

    def forward(self, x):
        x = self.patch(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.cls.expand(len(x), -1, -1), x], 1) + self.place
        n, tokens, width = x.shape
        q, k, v = self.qkv(self.norm1(x)).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        x = x + self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(n, tokens, width))
        x = x + self.fc2(F.gelu(self.fc1(self.norm2(x))))
        return self.head(self.norm(x)[:, 0])


class PartialConvolution(nn.Module):
    """FasterNet's: a convolution of the first quarter of the channels, the rest passed on."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.partial = nn.Conv2d(1, 16, 3, padding=1), nn.Conv2d(4, 4, 3, padding=1, bias=False)
        self.wide, self.norm, self.narrow = nn.Conv2d(16, 32, 1), nn.BatchNorm2d(32), nn.Conv2d(32, 16, 1)
        self.head = nn.Linear(16, 3)

    def forward(self, x):
        x = self.stem(x)
        one, rest = torch.split(x, [4, 12], dim=1)
        y = torch.cat([self.partial(one), rest], 1)
        x = x + self.narrow(F.relu(self.norm(self.wide(y))))
        return self.head(x.mean((2, 3)))


@pytest.mark.parametrize("build", [Attention, PartialConvolution])
def test_networks_on_which_peers_end_with_an_index_error(build):
    torch.manual_seed(0)
    net = Network(build(), (1, 8, 8))
    found = prunable(net)
    free = {"Attention": {"fc1"}, "PartialConvolution": {"partial", "wide"}}[build.__name__]
    assert set(found.families) == free
    reason = found.refused["qkv" if build is Attention else "stem"]
    assert "splits or mixes them" in reason
    small = compress(net, list(torch.rand(40, 1, 8, 8)), multiply_adds=0.8)
    assert small.share <= 0.8
    assert small.widths
    assert set(small.widths) <= free


def test_a_thousandth_of_the_channels_costs_a_thousandth_of_the_accuracy(trained):
    """A peer's network lost everything at a ratio of .001: here one step at that ratio changes next to nothing."""
    net, train, test = trained
    found = compress(net, train, multiply_adds=0.999)
    assert 0.9 < found.share <= 0.999
    assert abs(accuracy(found.network, test) - accuracy(net, test)) <= 0.005


def test_time_is_measured_and_only_gains_are_called_so():
    wide = nn.Sequential(nn.Conv2d(3, 64, 3), nn.ReLU(), nn.Conv2d(64, 64, 3), nn.Flatten(), nn.Linear(64 * 144, 2))
    net = Network(wide, (3, 16, 16))
    found = prunable(net)
    gone = [channel for family in found.families.values() for channel in family.channels[8:]]
    assert latency(net, without(net, found.channels, gone)).gain
    same = latency(net, net)
    assert same.low <= same.ratio <= same.high
    assert not (same.gain and same.ratio > 1)


def test_the_smaller_network_goes_to_onnx(trained, tmp_path):
    """Oracle: onnxruntime on the exported file."""
    onnxruntime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    net, train, test = trained
    small = compress(net, train.subset(range(200)), multiply_adds=0.4).network
    path = tmp_path / "small.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(small.model, (test.images[:2],), path, dynamo=True, verbose=False)
        torch.onnx.export(net.model, (test.images[:2],), tmp_path / "whole.onnx", dynamo=True, verbose=False)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (found,) = session.run(None, {session.get_inputs()[0].name: test.images[:2].numpy()})
    torch.testing.assert_close(torch.from_numpy(found), small.model(test.images[:2]).detach(), rtol=1e-4, atol=1e-4)
    import onnx

    held = [
        sum(t.raw_data.__len__() for t in onnx.load(tmp_path / f"{name}.onnx").graph.initializer)
        for name in ("small", "whole")
    ]
    assert held[0] < 0.8 * held[1]
