"""Which networks have regions? Those written by hand and linear ones too; what bends smoothly is refused."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional

import microtome as mt
from microtome import spaces


def rectified():
    torch.manual_seed(4)
    return mt.Network(nn.Sequential(nn.Flatten(), nn.Linear(64, 12), nn.ReLU(), nn.Linear(12, 3)), (1, 8, 8))


def test_what_is_not_piecewise_linear_is_refused():
    x = torch.rand(1, 1, 2, 2)

    class Gate(nn.Module):
        def forward(self, x):
            x = x.flatten(1)
            return x * x.mean(1, keepdim=True)

    class Hard(nn.Module):
        def forward(self, x):
            x = x.flatten(1)
            return (x > 0.5) * 2.0 + x

    for model, what in ((nn.Sequential(nn.Flatten(), nn.SELU()), "selu"), (Gate(), "multiplies"), (Hard(), "compar")):
        with pytest.raises(mt.OpaqueError, match=what):
            spaces.linear_region(mt.Network(model, (1, 2, 2)), x)
    with pytest.raises(mt.InputError, match="at least one class"):
        spaces.linear_region(rectified(), torch.rand(1, 1, 8, 8), classes=[])
    with pytest.raises(mt.InputError, match="finite"):
        spaces.exit_distance(rectified(), torch.rand(1, 1, 8, 8), torch.full((1, 1, 8, 8), torch.nan))
    with pytest.raises(mt.InputError, match="probes"):
        spaces.facet_distance(rectified(), torch.rand(1, 1, 8, 8), probes=0)


class Bare(nn.Module):
    """A network written by hand: its weights are plain tensors, no parameters."""

    def __init__(self, dtype):
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.first = torch.randn(3, 1, 3, 3, generator=generator, dtype=torch.float64).to(dtype)
        self.last = torch.randn(3, 108, generator=generator, dtype=torch.float64).to(dtype)

    def forward(self, x):
        return torch.relu(functional.conv2d(x, self.first)).flatten(1) @ self.last.T


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_networks_of_plain_tensors_are_taken_in_their_precision_and_run_in_twice_the_digits(dtype):
    """Oracle: the same functions on the same weights in float64."""
    model = Bare(dtype)
    net = mt.Network(model, (1, 8, 8))
    assert net.dtype == dtype
    x = torch.rand(2, 1, 8, 8, dtype=dtype)
    found = spaces.linear_region(net, x)
    assert model.first.dtype == dtype
    read = functional.conv2d(x.double(), model.first.double()).relu().flatten(1)
    expected = read @ model.last.double().T
    torch.testing.assert_close(found.apply(x), expected, rtol=1e-12, atol=1e-12)
    assert float((net.logits(x) - expected).abs().max()) < (1e-12 if dtype == torch.float64 else 1e-4)
    assert spaces.operator(net, "/conv2d").triplets(2).values.dtype == torch.float64
    pooled = mt.Network(nn.Sequential(nn.MaxPool2d(2), nn.Flatten()), (1, 4, 4))  # no tensor at all
    assert float(spaces.linear_region(pooled, torch.rand(1, 1, 4, 4)).ignored_change) < 1e-15


def test_a_linear_network_is_one_region(tmp_path):
    """By definition: one map for all images, no facet at any distance, in any direction or on any path."""
    torch.manual_seed(0)
    net = mt.Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 2)), (1, 2, 2))
    x = torch.rand(3, 1, 2, 2)
    found = spaces.linear_region(net, x)
    weight = net.model[1].weight.detach().double()
    torch.testing.assert_close(found.weight, weight.expand(3, 2, 4), rtol=1e-12, atol=0)
    for distance in (found.distance, found.changing, spaces.exit_distance(net, x, x).step):
        assert bool(distance.isinf().all())
    assert found.facet == spaces.facet_distance(net, x).changing_facet == [{}, {}, {}]
    assert bool(found.ignored_extent.isinf().all())
    assert float(found.ignored_change.max()) < 1e-12
    path = spaces.facets_between(net, x[0], x[1])
    assert path.crossed == 0
    assert path.error < 1e-12
    found.save(tmp_path / "region.safetensors")
    assert mt.load(tmp_path / "region.safetensors").plot().axes
