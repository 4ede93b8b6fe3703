"""Is the local map the network inside its region, does the region end where it is said to, and at whose facet?"""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn
from torch.nn import functional

import microtome as mt
from microtome import spaces
from microtome.spaces.regions.fixed_batch_path import stepped
from microtome.spaces.regions.tangent_facets import bends


class Residual(nn.Module):
    """Batch norm, a skip connection, in-place ReLU, ReLU6 and ceil-mode pooling with padding, spelt many ways."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.conv2 = nn.Conv2d(4, 4, 3, padding=1)
        self.relu = nn.ReLU(inplace=True)
        self.fc = nn.Linear(16, 3)

    def forward(self, x):
        x = self.relu(self.norm(self.conv1(x)))
        x = functional.max_pool2d(x, 3, 2, padding=1, ceil_mode=True)
        y = self.conv2(x)
        y += x
        y = functional.relu6(20 * y)
        y = functional.adaptive_max_pool2d(y, 2)
        return functional.log_softmax(self.fc(y.flatten(1)), 1)


class Masked(nn.Module):
    """A rectifier written as a product with a comparison."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Linear(64, 12), nn.Linear(12, 3)

    def forward(self, x):
        x = self.a(x.flatten(1))
        return self.b(x * (x > 0))


class Extremes(nn.Module):
    """The larger and the smaller of two values, written in every way."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.c = nn.Linear(64, 12), nn.Linear(64, 12), nn.Linear(48, 3)

    def forward(self, x):
        a, b = self.a(x.flatten(1)), self.b(x.flatten(1))
        parts = torch.maximum(a, b), torch.minimum(a, -b), torch.max(a, 0.5 * b), torch.min(-a, 0.3 * b)
        return self.c(torch.cat(parts, 1))


def sequential():
    return nn.Sequential(
        nn.Conv2d(1, 3, 3, padding=1),
        nn.MaxPool2d(2),
        nn.LeakyReLU(0.1, inplace=True),
        nn.Conv2d(3, 4, 3, stride=2),
        nn.PReLU(4),
        nn.Flatten(),
        nn.Linear(4, 3),
    )


MODELS = {"sequential": sequential, "residual": Residual, "masked": Masked, "extremes": Extremes}


def network(name):
    torch.manual_seed(4)
    model = MODELS[name]().double()
    if name == "residual":
        model.norm.running_mean.uniform_(-0.2, 0.2)
        model.norm.running_var.uniform_(0.5, 1.5)
    return mt.Network(model, (1, 8, 8), mean=0.4, std=0.6)


def pattern(net, x):
    """Signs of all facet functions: equal patterns, equal regions."""
    found = bends(net, x.double(), torch.zeros_like(x).double())
    return found.value > 0


@pytest.mark.parametrize("name", MODELS)
def test_the_map_is_the_network_inside_the_region(name):
    """Closed form: equality with the network at the image, just before the facet, and not far beyond it."""
    net = network(name)
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    region = spaces.linear_region(net, x)
    torch.testing.assert_close(region.apply(x), net.logits(x), rtol=0, atol=1e-10)
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        way = torch.randn(x.shape, generator=generator, dtype=torch.float64)
        way *= (0.999 * region.distance / way.flatten(1).norm(dim=1)).reshape(-1, 1, 1, 1)
        torch.testing.assert_close(region.apply(x + way), net.logits(x + way, check=False), rtol=0, atol=1e-10)
    assert torch.allclose(region.normal.flatten(1).norm(dim=1), region.distance, rtol=1e-9)


@pytest.mark.parametrize("name", MODELS)
def test_stepping_just_before_and_just_beyond_the_nearest_facet(name):
    """Just before, no unit has switched; just beyond, one has, in the layer that is named."""
    net = network(name)
    x = torch.rand(4, 1, 8, 8, dtype=torch.float64)
    near = spaces.facet_distance(net, x)
    assert int(near.ties.sum()) == 0
    here = pattern(net, x)
    assert torch.equal(pattern(net, x + (1 - 1e-6) * near.normal), here)
    beyond = pattern(net, x + (1 + 1e-6) * near.normal)
    assert bool((beyond != here).any(1).all())
    facets = bends(net, x, torch.zeros_like(x)).facets
    start = 0
    switched = [set() for _ in range(4)]
    for part in facets:
        count = part.value.shape[1]
        for i in range(4):
            if bool((beyond != here)[i, start : start + count].any()):
                switched[i].add(part.name)
        start += count
    assert all(near.facet[i]["layer"] in switched[i] for i in range(4))


@pytest.mark.parametrize("name", MODELS)
def test_random_probes_find_what_all_pixels_find(name):
    """Oracle: every gradient's length computed exactly, no estimate."""
    net = network(name)
    x = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    some, every = spaces.facet_distance(net, x), spaces.facet_distance(net, x, probes=None)
    torch.testing.assert_close(some.distance, every.distance, rtol=1e-10, atol=0)
    assert (some.facet, every.doubt) == (every.facet, 0.0)
    assert some.doubt > 0


def test_distances_of_a_relu_layer_are_point_to_plane():
    """Closed form: |w x + b| / |w| over the units."""
    torch.manual_seed(0)
    fc = nn.Linear(9, 20).double()
    net = mt.Network(nn.Sequential(nn.Flatten(), fc, nn.ReLU(), nn.Linear(20, 2).double()), (1, 3, 3))
    x = torch.rand(6, 1, 3, 3, dtype=torch.float64)
    plane = (fc(x.flatten(1)).abs() / fc.weight.norm(dim=1)).detach()
    found = spaces.facet_distance(net, x)
    torch.testing.assert_close(found.distance, plane.min(1).values, rtol=1e-10, atol=0)
    assert [facet["unit"] for facet in found.facet] == [[int(unit)] for unit in plane.argmin(1)]


def test_both_edges_of_relu6_are_facets():
    """Closed form: one unit w x + b; the distance is to the nearer of the planes where it is 0 and 6."""
    fc = nn.Linear(2, 1).double()
    fc.weight.data.copy_(torch.tensor([[3.0, 4.0]]))
    fc.bias.data.zero_()
    net = mt.Network(nn.Sequential(nn.Flatten(), fc, nn.ReLU6()), (1, 1, 2))
    x = torch.tensor([[0.1, 0.2], [0.9, 0.6], [0.9, 0.9]], dtype=torch.float64).reshape(3, 1, 1, 2)
    found = spaces.facet_distance(net, x)
    torch.testing.assert_close(found.distance, torch.tensor([1.1, 0.9, 0.3], dtype=torch.float64) / 5)
    assert [facet["which"] for facet in found.facet] == [0, 1, 1]
    path = spaces.facets_between(net, x[0] - 0.1, x[2])
    assert [facet["which"] for facet in path.facet] == [1]


def test_a_plain_background_lies_on_facets_of_max_pooling():
    """All windows of a constant image tie; the count says so."""
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 2, 3)
    net = mt.Network(nn.Sequential(conv, nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 2)), (1, 6, 6))
    flat = spaces.facet_distance(net, torch.full((1, 1, 6, 6), 0.5))
    assert int(flat.ties) == 2 * 4 * 3
    assert int(flat.silent_ties) == 0
    assert int(spaces.facet_distance(net, torch.rand(1, 1, 6, 6)).ties) == 0


def test_ties_of_units_that_reach_no_score_are_told_apart():
    """Closed form: behind the pooling a rectifier is off for one of two channels, whose windows tie without effect."""
    conv = nn.Conv2d(1, 2, 3)
    conv.bias.data.copy_(torch.tensor([9.0, -9.0]))
    net = mt.Network(nn.Sequential(conv, nn.MaxPool2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)), (1, 6, 6))
    flat = torch.full((1, 1, 6, 6), 0.5)
    found = spaces.facet_distance(net, flat)
    assert (int(found.ties), int(found.silent_ties)) == (12, 12)
    region = spaces.linear_region(net, flat)
    assert (int(region.ties), int(region.silent_ties)) == (12, 12)
    # Proof by stepping to both sides of every window's ties: the scores keep to the map only where the tie is silent.
    generator = torch.Generator().manual_seed(0)
    moved = flat.double() + 1e-3 * torch.randn(50, 1, 6, 6, generator=generator, dtype=torch.float64)
    double = mt.Network(net.model.double(), (1, 6, 6))
    affine = moved.flatten(1) @ region.weight[0].T + region.bias[0]
    bent = (double.logits(moved) - affine).abs().amax(1) > 1e-6
    assert float(bent.double().mean()) > 0.9  # of four windows of four ties few steps leave all as they were
    net.model[4].weight.data[:, :4] = 0  # now no window of the first channel is heard either
    double = mt.Network(net.model.double(), (1, 6, 6))
    region = spaces.linear_region(double, flat)
    assert (int(region.ties), int(region.silent_ties)) == (0, 24)
    affine = moved.flatten(1) @ region.weight[0].T + region.bias[0]
    assert float((double.logits(moved) - affine).abs().max()) < 1e-12


def test_the_nearest_facet_that_changes_the_map():
    """Proof by stepping: just before it the scores are the map of the image, just beyond they are not."""
    torch.manual_seed(3)
    layers = (
        nn.Conv2d(1, 6, 3),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(6, 4, 3),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(4, 3),
    )
    net = mt.Network(nn.Sequential(*layers).double(), (1, 8, 8))
    x = torch.rand(12, 1, 8, 8, dtype=torch.float64)
    found, region = spaces.facet_distance(net, x), spaces.linear_region(net, x)
    torch.testing.assert_close(region.changing, found.changing)
    assert bool((found.changing >= found.distance).all())
    farther = found.changing > found.distance
    assert 0 < int(farther.sum()) < len(x)  # of rectifiers that lose in their pooling window some are nearest
    assert torch.allclose(found.changing_normal.flatten(1).norm(dim=1), found.changing, rtol=1e-9)

    def off(share):
        points = x + share * found.changing_normal
        return (net.logits(points, check=False) - region.apply(points)).abs().amax(1)

    assert float(off(1 - 1e-6).max()) < 1e-12
    assert float(off(1.05).min()) > 1e-9
    switched = x + 1.000001 * found.normal  # beyond the nearest one of a silent unit the map is still the same
    assert bool((pattern(net, switched) != pattern(net, x)).any(1).all())
    same = (net.logits(switched, check=False) - region.apply(switched)).abs().amax(1)
    assert float(same[farther].max()) < 1e-12


@pytest.mark.parametrize("name", MODELS)
def test_exit_along_a_direction(name):
    """Stepping just before and just beyond, with the network as its own judge."""
    net = network(name)
    x = torch.rand(6, 1, 8, 8, dtype=torch.float64)
    way = torch.randn(x.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = spaces.exit_distance(net, x, way)
    step = found.step.reshape(-1, 1, 1, 1)
    here = pattern(net, x)
    assert torch.equal(pattern(net, x + 0.999999 * step * way), here)
    assert bool((pattern(net, x + 1.000001 * step * way) != here).any(1).all())
    assert bool((found.step * way.flatten(1).norm(dim=1) >= spaces.facet_distance(net, x).distance * (1 - 1e-9)).all())
    with pytest.raises(mt.InputError, match="one direction"):
        spaces.exit_distance(net, x, way[:1])


@pytest.mark.parametrize("name", MODELS)
def test_facets_between_two_images(name):
    """Oracle: the pattern on 4,001 evenly spaced points; the scores are straight lines between the places found."""
    net = network(name)
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    found = spaces.facets_between(net, x[0], x[1])
    t = torch.linspace(0, 1, 4001, dtype=torch.float64)
    points = x[0] + t.reshape(-1, 1, 1, 1) * (x[1] - x[0])
    patterns = torch.cat([pattern(net, part) for part in points.split(512)])
    changed = (patterns[1:] != patterns[:-1]).any(1)
    cells = torch.unique((found.position * 4000).floor().long())
    hidden = set(changed.nonzero()[:, 0].tolist()) - set(cells.tolist())
    assert not hidden
    at = torch.cat([torch.zeros(1), found.position, torch.ones(1)]).double()
    place = torch.searchsorted(at, t, right=True).clamp(1, len(at) - 1)
    share = ((t - at[place - 1]) / (at[place] - at[place - 1])).clamp(0, 1)[:, None]
    straight = found.logits[place - 1] * (1 - share) + found.logits[place] * share
    torch.testing.assert_close(straight, net.logits(points), rtol=0, atol=1e-8)
    assert found.gap == 0.0
    assert found.error < 1e-12
    assert found.reached == 1.0
    assert len(found.facet) == found.crossed > 3


@pytest.mark.parametrize("name", MODELS)
def test_cutting_by_lines_agrees_with_stepping_from_facet_to_facet(name):
    """Oracle: the other algorithm, which knows tangents and no rows."""
    net = network(name)
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    x[1] = x[0] + 0.3 * (x[1] - x[0])
    found = spaces.facets_between(net, x[0], x[1])
    pieces, gap = stepped(net, x[:1], x[1:] - x[:1], 1e-9, 10_000)
    ends = [(end, facet) for _, end, facet in pieces if end < 1.0]
    assert gap < 1e-9
    torch.testing.assert_close(
        found.position, torch.tensor([end for end, _ in ends], dtype=torch.float64), rtol=0, atol=1e-9
    )
    same = [
        ours["layer"] == theirs["layer"] and ours["unit"] == theirs["unit"]
        for ours, (_, theirs) in zip(found.facet, ends, strict=True)
    ]
    assert sum(same) >= len(same) - 2  # where two units switch at once either may be named


def test_a_path_may_be_followed_in_part_and_through_networks_that_fix_their_batch(monkeypatch):
    class Fixed(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.b = nn.Linear(64, 6), nn.Linear(6, 3)

        def forward(self, x):
            count = len(x)
            return self.b(torch.relu(self.a(x.flatten(1))).reshape(count, -1))

    torch.manual_seed(0)
    net = mt.Network(Fixed().double(), (1, 8, 8))
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    stepped_through = spaces.facets_between(net, x[0], x[1])
    assert stepped_through.crossed == int(((net.model.a(x[0].flatten()) * net.model.a(x[1].flatten())) < 0).sum()) > 0
    assert stepped_through.error < 1e-9
    whole = spaces.facets_between(network("residual"), x[0], x[1])
    part = spaces.facets_between(network("residual"), x[0], x[1], limit=20)
    assert part.crossed == len(part.facet) == 20 < whole.crossed
    assert part.reached == pytest.approx(float(whole.position[20]), abs=1e-12)  # the next facet ends the last piece
    torch.testing.assert_close(part.position, whole.position[:20], rtol=0, atol=1e-12)
    torch.testing.assert_close(part.logits, whole.logits[:22], rtol=0, atol=1e-9)
    for limit in range(1, stepped_through.crossed + 2):
        first = spaces.facets_between(net, x[0], x[1], limit=limit)
        ends = [*stepped_through.position.tolist(), 1.0]
        assert first.crossed == min(limit, stepped_through.crossed)
        assert first.reached == pytest.approx(ends[first.crossed], abs=1e-9)
        torch.testing.assert_close(first.position, stepped_through.position[: first.crossed], rtol=0, atol=1e-9)
    monkeypatch.setattr(sys.modules["microtome.spaces.regions.exact_path"], "_MOST", 8 * 256 * 3)  # shorter parts
    pieced = spaces.facets_between(network("residual"), x[0], x[1])
    torch.testing.assert_close(pieced.position, whole.position, rtol=0, atol=1e-12)

    class Skip(Fixed):
        def forward(self, x):
            x = self.a(x.flatten(1))
            return self.b(torch.relu(x).relu_() + x + torch.maximum(x, 0.2 - 0.5 * torch.relu(x - 0.1)))

    net = mt.Network(Skip().double(), (1, 8, 8))
    skipped = spaces.facets_between(net, x[0], x[1])
    assert skipped.gap == 0.0  # cut by lines: values from before a cut met those behind it
    assert skipped.error < 1e-12
    with pytest.raises(mt.InputError, match="at least one facet"):
        spaces.facets_between(network("masked"), x[0], x[1], limit=0)


def test_the_ignored_part_does_nothing():
    """Properties: signal and ignored add up; the change is zero to rounding although the part is large."""
    net = network("sequential")
    x = torch.rand(5, 1, 8, 8, dtype=torch.float64)
    region = spaces.linear_region(net, x)
    torch.testing.assert_close(region.signal + region.ignored, x, rtol=0, atol=1e-12)
    product = torch.einsum("nkp,np->nk", region.weight, region.ignored.flatten(1))
    assert float(product.abs().max()) < 1e-12
    assert float(region.ignored_change.max()) < 1e-12
    assert bool((region.ignored.flatten(1).norm(dim=1) > 1).all())
    assert bool((region.ignored_extent > 0).all())
    few = spaces.linear_region(net, x, classes=[2])
    torch.testing.assert_close(few.weight[:, 0], region.weight[:, 2])


def test_regions_and_paths_are_saved_and_drawn(tmp_path):
    net = network("masked")
    x = torch.rand(2, 1, 8, 8, dtype=torch.float64)
    for number, made in enumerate((spaces.linear_region(net, x), spaces.facets_between(net, x[0], x[1]))):
        made.save(tmp_path / f"{number}.safetensors")
        assert mt.load(tmp_path / f"{number}.safetensors").plot().axes
