"""Rotation of linear channels: the same network, the least error of reduced-rank regression, planted dependence."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network
from microtome.surgery import compress
from microtome.surgery.channels import removal
from microtome.surgery.compression.compress import survey
from microtome.surgery.compression.moments import read_parts, slopes
from microtome.surgery.compression.principal_axes import along_principal_axes, linear_families

IMAGES = torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(1))


class Bottleneck(nn.Module):
    """Expand, depthwise, project, with a residual sum: no nonlinearity follows ``project`` and ``narrow``."""

    def __init__(self, norm: bool = True, kernel: int = 3) -> None:
        super().__init__()
        width = 6
        self.stem, self.project = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, width, 1, bias=not norm)
        self.expand = nn.Conv2d(width, 10, kernel, padding=kernel // 2)
        self.depth = nn.Conv2d(10, 10, 3, padding=1, groups=10)
        self.narrow, self.wide = nn.Conv2d(10, width, 1), nn.Conv2d(width, 12, 1)
        self.one, self.two = (nn.BatchNorm2d(width) if norm else nn.Identity() for _ in range(2))
        self.head = nn.Linear(12, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.one(self.project(F.relu(self.stem(x))))
        x = x + self.two(self.narrow(F.relu(self.depth(F.relu(self.expand(x))))))
        return self.head(F.relu(self.wide(x)).mean((2, 3)))


def opened(**options) -> Network:
    torch.manual_seed(0)
    model = Bottleneck(**options).double().eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for value in (module.running_mean, module.bias.data):
                value.uniform_(-0.3, 0.3)
            for value in (module.running_var, module.weight.data):
                value.uniform_(0.5, 2)
    return Network(model, (1, 6, 6))


def turned(net: Network, *, exact: bool = False):
    """The rotated network, its linear families, and everything else that the rotation gives."""
    found = removal.prunable(net)
    parts = read_parts(net, found.channels, list(IMAGES), exact=exact)
    linear = linear_families(net, found.channels, list(found.families.values()))
    weight, slope = slopes(net, found.channels, list(IMAGES), linear.sources)
    return found, linear, weight, along_principal_axes(net, found.channels, linear, *parts, weight, slope)


@pytest.mark.parametrize("norm", [True, False])
def test_the_rotated_network_is_the_same_network(norm):
    """Its moments and slopes are those that a new pass over it reads."""
    net = opened(norm=norm)
    found, linear, _, (other, seen, held_out, weight) = turned(net)
    assert [family.name for family in linear.families] == ["project"]
    torch.testing.assert_close(other.logits(IMAGES.double()), net.logits(IMAGES.double()), rtol=1e-10, atol=1e-12)
    assert not torch.allclose(other.model.wide.weight, net.model.wide.weight, atol=0.01)
    again = read_parts(other, found.channels, list(IMAGES))
    for mine, read in zip((seen, held_out), again, strict=True):
        for name, sums in read.items():
            torch.testing.assert_close(mine[name].read, sums.read, rtol=1e-8, atol=1e-8)
    # In the new axes the slopes at a layer's own output are those behind its batch norm, which passes its input.
    for name, value in slopes(other, found.channels, list(IMAGES), {})[0].items():
        torch.testing.assert_close(weight[name], value, rtol=1e-8, atol=1e-12)


def test_a_batch_norm_that_passes_its_input_also_does_so_in_training():
    """Its statistics are those of the data, so retraining starts from the same network."""
    net = opened()
    other = turned(net, exact=True)[3][0]  # all positions, not a sample
    expected = other.logits(IMAGES.double())
    for norm in (other.model.one, other.model.two):
        norm.train()
        norm.momentum = 0.0
    torch.testing.assert_close(other.model(IMAGES.double()), expected, rtol=1e-8, atol=1e-8)


def test_the_first_axes_lose_as_little_as_the_best_projection():
    """Oracle: the singular values of what the reading layer gives, by Eckart and Young; no eigenproblem shared."""
    net = opened(norm=False, kernel=1)
    net.model.narrow.weight.data.zero_()  # one layer feeds the axes, and a single layer's outputs count
    net.model.narrow.bias.data.zero_()
    net.model.expand.weight.data.zero_()
    _, _, weight, (other, *_) = turned(net, exact=True)
    rows = weight["wide/conv2d"].sqrt()[:, None] * other.model.wide.weight.flatten(1)
    x = F.relu(other.model.stem(IMAGES.double()))
    z = other.model.project(x).movedim(1, 0).flatten(1)
    rows, z = rows.detach(), (z - z.mean(1, keepdim=True)).detach()
    singular = torch.linalg.svdvals(rows @ z)
    for kept in range(1, 6):
        lost = (rows[:, kept:] @ z[kept:]).square().sum()
        assert float(lost) == pytest.approx(float(singular[kept:].square().sum()), rel=0.02)  # the ridge of the metric


def test_channels_that_a_nonlinearity_follows_stay():
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 5, 1), nn.Linear(5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(F.relu(self.two(F.relu(self.one(x)))).mean((2, 3)))

    torch.manual_seed(0)
    net = Network(Plain().eval(), (1, 6, 6))
    assert survey(net, list(IMAGES)).net is net


def test_mixed_channels_of_low_rank_are_cut_without_loss():
    """Planted: six channels carry two signals, and all are mixed. Half of the work goes, the logits stay."""
    net = opened(kernel=1)
    generator = torch.Generator().manual_seed(3)
    mix = torch.randn(6, 2, generator=generator, dtype=torch.float64)
    for name in ("project", "narrow"):
        weight = net.module(name).weight
        low = torch.randn(2, weight.shape[1], generator=generator, dtype=torch.float64)
        weight.data.copy_((mix @ low)[:, :, None, None])
    for norm in (net.model.one, net.model.two):
        norm.running_var.fill_(1.0)
        norm.weight.data.fill_(1.0)
    share = _share_without_mixed_channels(net)
    found = compress(net, list(IMAGES), multiply_adds=share, damping=1e-9)
    assert found.widths["project"] == [6, 2]
    assert found.largest_change < 1e-5
    assert torch.equal(found.rebuild(net).logits(IMAGES[:3].double()), found.network.logits(IMAGES[:3].double()))


def _share_without_mixed_channels(net: Network) -> float:
    channels = removal.prunable(net).channels
    gone = channels.families["project"].channels[2:]
    return channels.multiply_adds(gone) / channels.multiply_adds() + 1e-9
