"""Layers fitted in one pass: against least squares layer by layer by hand, and against a pass for each layer."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network
from microtome.surgery import compress
from microtome.surgery.channels import removal
from microtome.surgery.compression import damping_choice, fit_targets, fitting_pass
from microtome.surgery.compression.fitting_pass import can_go_together
from microtome.surgery.compression.layer_samples import inputs_of
from microtome.surgery.compression.moments import Moments
from microtome.surgery.compression.optimal_brain_surgeon import least_squares
from microtome.surgery.compression.refit import refit

IMAGES = torch.rand(30, 1, 8, 8, generator=torch.Generator().manual_seed(1))


class Plain(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 5, 3, padding=1), nn.Conv2d(5, 6, 3, stride=2, bias=False)
        self.head = nn.Linear(6 * 9, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.elu(self.conv2(F.elu(self.conv1(x)))).flatten(1))  # no channel is ever dead


class Residual(nn.Module):
    """Batch norms, a skip, a depthwise convolution, and a convolution that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(1, 8, 3, padding=1, bias=False), nn.BatchNorm2d(8)
        self.one, self.two = nn.Conv2d(8, 12, 1, bias=False), nn.Conv2d(12, 8, 1)
        self.depth, self.norm2 = nn.Conv2d(12, 12, 3, 2, 1, groups=12), nn.BatchNorm2d(12)
        self.skip, self.twice, self.head = nn.Conv2d(8, 8, 1, 2), nn.Conv2d(8, 8, 3, padding=1), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.norm(self.stem(x)))
        x = F.relu(self.two(F.relu6(self.norm2(self.depth(F.relu6(self.one(x)))))) + self.skip(x))
        return self.head(self.twice(F.relu(self.twice(x))).mean((2, 3)))


class Pieces(nn.Module):
    """Each image is read as four quarters that stand beside each other, the first quarters of all images first."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 5, 1), nn.Linear(20, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([part for half in x.chunk(2, 2) for part in half.chunk(2, 3)])
        x = self.conv2(F.relu(self.conv1(x))).mean((2, 3))
        return self.head(torch.cat(x.chunk(4), 1))


def opened(kind: type[nn.Module], dtype: torch.dtype = torch.float64) -> Network:
    torch.manual_seed(0)
    model = kind().to(dtype).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.5, 2)
    return Network(model, (1, 8, 8))


def cut(net: Network, count: int = 2) -> tuple[Network, removal.Prunable, list[int]]:
    """The network without some channels of every family, not fitted yet."""
    found = removal.prunable(net)
    gone = [channel for family in found.families.values() for channel in family.channels[:count]]
    assert gone
    return removal.without(net, found.channels, gone), found, gone


def fitted(net: Network, images: Tensor = IMAGES, *, damping: float = 1e-3, batch: int = 7) -> Network:
    small, found, gone = cut(net)
    refit(net, small, found.channels, gone, list(images), damping=damping, batch=batch)
    return small


def test_each_layer_is_the_least_squares_solution_on_what_the_layers_before_now_give():
    """Oracle: layer after layer by hand: unfold, lstsq on all samples, then the next; shares no code with the fit."""
    net = opened(Plain)
    small, whole = fitted(net, damping=1e-12), net.model
    x = IMAGES.double()
    first, kept = small.model.conv1, [2, 3, 4]
    torch.testing.assert_close(first.weight, whole.conv1.weight[kept])  # it reads the image and stays
    with torch.no_grad():
        read, target = F.elu(first(x)), whole.conv2(F.elu(whole.conv1(x)))[:, 2:]
        rows = F.unfold(read, 3, stride=2).transpose(1, 2).reshape(-1, 27)
        rows = torch.cat([rows, rows.new_ones(len(rows), 1)], 1)
        solution = torch.linalg.lstsq(rows, target.permute(0, 2, 3, 1).reshape(-1, 4)).solution.T
        second = torch.cat([small.model.conv2.weight.flatten(1), small.model.conv2.bias[:, None]], 1)
        torch.testing.assert_close(second, solution, rtol=0, atol=1e-4)  # the bias is pulled by 1e-6 of a mean square
        unfitted = cut(net)[0].model.conv2.weight.flatten(1)
        assert (second[:, :-1] - unfitted).abs().max() > 0.01
        given = F.elu(small.model.conv2(read)).flatten(1)
        given = torch.cat([given, given.new_ones(len(given), 1)], 1)
        # 30 images and 36 inputs: they are met exactly.
        head = torch.cat([small.model.head.weight, small.model.head.bias[:, None]], 1)
        torch.testing.assert_close(given @ head.T, whole(x), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", [Plain, Residual])
def test_one_pass_gives_what_a_pass_for_each_layer_gives(kind, monkeypatch):
    """The same samples and the same order of fits; only sums over images may be rounded in another order."""
    net = opened(kind)
    assert can_go_together(net, removal.prunable(net).channels.operations, len(IMAGES))
    passes = [0]
    small, found, gone = cut(net)
    small.model.get_submodule("conv1" if kind is Plain else "stem").register_forward_hook(
        lambda *_: passes.__setitem__(0, passes[0] + 1)
    )
    refit(net, small, found.channels, gone, list(IMAGES), damping=1e-3, batch=7)
    assert passes == [1]
    monkeypatch.setattr(fitting_pass, "HELD", 0)
    monkeypatch.setattr(fit_targets, "HELD", 1)  # and the targets of one layer at a time
    again = fitted(net)
    state = again.model.state_dict()
    before = cut(net)[0].model.state_dict()
    changed = 0
    for name, value in small.model.state_dict().items():
        torch.testing.assert_close(value, state[name], rtol=1e-9, atol=1e-9)
        changed += name not in before or not torch.equal(value, before[name])
    assert changed >= 2


def test_pieces_of_images_are_not_mixed_up():
    """Where rows are not images, a batch's rows cannot be found among all: the layers are fitted batch by batch."""
    net = opened(Pieces)
    assert not can_go_together(net, ["conv2/conv2d"], len(IMAGES))
    small, found, gone = cut(net)
    small = fitted(net, batch=7)
    whole = fitted(net, batch=len(IMAGES))
    for one, other in zip(small.model.parameters(), whole.model.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=1e-6, atol=1e-8)
    with torch.no_grad():
        x = IMAGES.double()
        plain = removal.without(net, found.channels, gone).model(x)
        assert (small.model(x) - net.model(x)).square().mean() < 0.2 * (plain - net.model(x)).square().mean()


class Depthwise(nn.Module):
    """An expansion, a depthwise convolution and a projection, with batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.depth = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1, groups=8)
        self.norm, self.project, self.head = nn.BatchNorm2d(8), nn.Conv2d(8, 6, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(F.relu(self.norm(self.depth(F.relu(self.expand(x))))))
        return self.head(F.elu(x).mean((2, 3)))


def without_first(net: Network) -> tuple[Network, removal.Prunable, list[int]]:
    """The network without the first channel of the expansion."""
    found = removal.prunable(net)
    gone = [found.families["expand"].channels[0]]
    return removal.without(net, found.channels, gone), found, gone


def test_a_depthwise_layer_corrects_the_scale_of_the_channels_that_it_reads():
    """Planted: the layer before gives each channel doubled, which half of the depthwise kernel undoes exactly."""
    net = opened(Depthwise)
    net.model.expand.bias.data.abs_()  # no channel is dead
    net.model.project.weight.data[:, 0] = 0  # the first channel is not needed
    small, found, gone = without_first(net)
    for value in (small.model.expand.weight, small.model.expand.bias):
        value.data.mul_(2)
    refit(net, small, found.channels, gone, list(IMAGES), damping=1e-12, batch=7)
    torch.testing.assert_close(small.model.depth.weight, net.model.depth.weight[1:] / 2, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(small.logits(IMAGES.double()), net.logits(IMAGES.double()), rtol=0, atol=1e-4)


def test_a_copy_that_is_read_through_a_depthwise_layer_goes_without_loss():
    """Planted: a channel is another one doubled, before and behind the depthwise layer and its batch norm."""
    net = opened(Depthwise)
    model = net.model
    with torch.no_grad():
        for value, factor in ((model.expand.weight, 2), (model.expand.bias, 2), (model.depth.bias, 2),
                              (model.norm.running_mean, 2), (model.norm.bias, 1), (model.norm.weight, 1)):  # fmt: skip
            value[5] = factor * value[2]
        model.depth.weight[5] = model.depth.weight[2]
        model.norm.running_var[5] = 4 * (model.norm.running_var[2] + model.norm.eps) - model.norm.eps
    whole = removal.prunable(net).channels
    share = whole.multiply_adds([whole.families["expand"].channels[5]]) / whole.multiply_adds()
    small = compress(net, list(IMAGES), multiply_adds=share + 1e-9, damping=1e-9)
    assert small.widths["depth"] == [8, 7]
    assert small.largest_change < 1e-5


@pytest.mark.parametrize("padding", [(0, 1), "same", (2, 0)])
@pytest.mark.parametrize("dilation", [1, 2])
@pytest.mark.parametrize("kernel", [1, (3, 2)])
@pytest.mark.parametrize("stride", [1, (2, 1)])
def test_sampled_positions_are_columns_of_all_of_them(padding, dilation, kernel, stride):
    """Oracle: torch's unfold of every position, of which the sampled ones are taken."""
    if padding == "same" and stride != 1:
        pytest.skip("torch refuses it")
    torch.manual_seed(0)
    conv = nn.Conv2d(4, 6, kernel, stride, padding, dilation, groups=2)
    net = Network(nn.Sequential(conv, nn.Flatten()), (4, 9, 7))
    call = net.call("0", torch.rand(3, 4, 9, 7))
    count = conv(torch.rand(1, 4, 9, 7)).flatten(2).shape[2]
    draw = torch.randperm(count)[:5]
    every = inputs_of(call).view(2, -1, 3, count)
    assert torch.equal(inputs_of(call, draw), every[..., draw].flatten(2))
    assert torch.equal(inputs_of(call, draw, slice(1, 3)), every[:, :, 1:3, draw].flatten(2))


def samples(count: int, seed: int, away: float = 0.02) -> tuple[Tensor, Tensor, Tensor]:
    """Inputs with a closing 1, what a layer of 20 inputs gave with some noise, and weights so far from its own."""
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(1, 3, 21, generator=torch.Generator().manual_seed(9), dtype=torch.float64)
    x = torch.randn(1, 21, count, generator=generator, dtype=torch.float64)
    x[:, -1] = 1
    noise = torch.randn(1, 3, count, generator=generator, dtype=torch.float64)
    return x, weights @ x + noise, weights + away


@pytest.mark.parametrize(("count", "away", "expected"), [(25, 0.02, math.inf), (20_000, 0.5, 1e-3)])
def test_the_pull_is_the_one_that_does_best_on_other_samples(count, away, expected):
    """Oracle: the squared error on 50,000 further samples. With 25 samples for 21 weights the fit follows the noise."""
    x, y, anchor = samples(count, 0, away)
    weights, pull = damping_choice.fitted(
        *damping_choice.parts(x, y, torch.arange(count) >= count - count // 5), anchor, 1e-3
    )
    assert pull == expected
    other, given, _ = samples(50_000, 1)
    whole = Moments.of(x, y).mean
    every = {
        multiple * 1e-3: anchor
        if math.isinf(multiple)
        else least_squares(whole.read, whole.cross, anchor, damping=multiple * 1e-3)
        for multiple in damping_choice.PULLS
    }
    errors = {one: float((w @ other - given).square().mean()) for one, w in every.items()}
    torch.testing.assert_close(weights, every[pull])
    assert errors[pull] <= 1.02 * min(errors.values())
    assert max(errors.values()) > 1.5 * errors[pull]


def test_the_error_on_moments_is_that_on_samples():
    x, y, anchor = samples(50, 0)
    found = [damping_choice.error(Moments.of(x, y).mean, weights) for weights in (anchor, 2 * anchor)]
    summed = [float((weights @ x - y).square().sum(1).mean()) for weights in (anchor, 2 * anchor)]
    assert found[1] - found[0] == pytest.approx(summed[1] - summed[0], rel=1e-9)
