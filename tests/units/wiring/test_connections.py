"""Connections against weights read by hand, and against what a change of one unit changes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import InputError, LayerError, Network, units


class Wired(nn.Module):
    """A grouped and a depthwise convolution, a residual sum, a concatenation, a flattened map into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.stem, self.norm = nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4)
        self.grouped = nn.Conv2d(4, 6, 3, padding=1, groups=2)
        self.depth = nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.back = nn.Conv2d(6, 4, 1)
        self.fc = nn.Linear(8 * 4, 5)

    def forward(self, x: Tensor) -> Tensor:
        a = F.relu(self.norm(self.stem(x)))
        b = a + self.back(F.relu(self.depth(self.grouped(a))))
        joined = torch.cat((F.max_pool2d(b, 2), F.avg_pool2d(a, 2)), 1)
        return self.fc(torch.flatten(joined, 1))


@pytest.fixture(scope="module")
def net() -> Network:
    return Network(Wired().eval(), (3, 4, 4))


def test_a_grouped_convolution_reads_its_own_group(net: Network) -> None:
    found, weight = units.connections(net, "grouped"), net.module("grouped").weight.detach()
    for unit in range(6):
        links = found.inputs(unit, 9)
        first = 2 * (unit // 3)
        assert {(link.layer, link.unit) for link in links} == {("stem", first), ("stem", first + 1)}
        for link in links:
            kernel = weight[unit, link.unit - first]
            assert link.norm == pytest.approx(float(kernel.norm()))
            assert link.weight == pytest.approx(float(kernel.sum()), abs=1e-6)
        assert links[0].norm >= links[1].norm
        (reader,) = found.outputs(unit)
        assert (reader.layer, reader.unit) == ("depth", unit)


def test_the_stem_reads_the_image_and_feeds_all_that_see_it(net: Network) -> None:
    found = units.connections(net, "stem", k=99)
    assert [link.layer for link in found.inputs(0, 9)] == ["input"] * 3
    outputs = found.outputs(1, 99)
    assert {link.layer for link in outputs} == {"grouped", "fc"}
    assert {link.unit for link in outputs if link.layer == "grouped"} == {0, 1, 2}
    assert units.connections(net, "/relu").outputs(1) == found.outputs(1)


def test_flattened_and_concatenated_channels_are_found_again(net: Network) -> None:
    """fc reads 8 channels of 4 positions: 0 to 3 the sum (stem and back), 4 to 7 the stem alone."""
    weight = net.module("fc").weight.detach().view(5, 8, 4)
    links = units.connections(net, "back", k=99).outputs(2, 99)
    assert {link.layer for link in links} == {"fc"}
    for link in links:
        assert link.norm == pytest.approx(float(weight[link.unit, 2].norm()))
        assert link.weight == pytest.approx(float(weight[link.unit, 2].sum()), abs=1e-6)
    stem = [link for link in units.connections(net, "stem", k=99).outputs(3, 99) if link.layer == "fc"]
    assert len(stem) == 5
    for link in stem:  # both ways from the stem's unit 3 to the score, taken together
        assert link.norm == pytest.approx(float(weight[link.unit, [3, 7]].norm()))


def test_a_sum_names_its_terms(net: Network) -> None:
    found = units.connections(net, "/add")
    assert {(link.layer, link.unit) for link in found.inputs(3)} == {("stem", 3), ("back", 3)}
    assert all(link.layer == "fc" for link in found.outputs(3))  # what read the stem before the sum is not fed by it


def test_every_link_carries_and_nothing_else_does(net: Network) -> None:
    """Oracle: a change of one unit of ``depth`` reaches exactly the units of ``back`` that are linked to it."""
    torch.manual_seed(1)
    net.module("back").weight.data[1, 4] = 0
    image = torch.rand(1, 3, 4, 4)
    before = net.activations(image, "back")["back"]

    def bump(value: Tensor) -> Tensor:
        changed = value.clone()
        changed[:, 4] += 5
        return changed

    after = net.run(image, record="back", replace={"depth": bump}).value["back"]
    moved = {int(unit) for unit in (after != before).flatten(2).any(2)[0].nonzero()}
    assert {link.unit for link in units.connections(net, "depth").outputs(4, 9)} == moved == {0, 2, 3}


def test_similar_units_equal_numpy_s_correlation(net: Network) -> None:
    torch.manual_seed(2)
    data = [torch.rand(3, 4, 4) for _ in range(23)]
    values = net.activations(torch.stack(data), "/relu")["/relu"].transpose(0, 1).flatten(1).double()
    found = units.similar(net, data, "/relu", batch=5)
    torch.testing.assert_close(found.correlation, torch.corrcoef(values), rtol=1e-4, atol=1e-5)
    others = [(float(torch.corrcoef(values)[1, other]), other) for other in (0, 2, 3)]
    assert [unit for unit, _ in found.nearest(1, 3)] == [other for _, other in sorted(others, reverse=True)]


def test_copies_are_repeats_and_constants_have_no_neighbours() -> None:
    conv = nn.Conv2d(1, 3, 1)
    conv.weight.data = torch.tensor([1.0, 2.0, 0.0]).view(3, 1, 1, 1)
    found = units.similar(Network(nn.Sequential(conv, nn.Flatten()), (1, 4, 4)), [torch.rand(1, 4, 4)] * 3, "0")
    assert [pair[:2] for pair in found.repeats(0.99)] == [(0, 1)]
    assert found.nearest(2) == []
    assert [unit for unit, _ in found.nearest(0)] == [1]


def test_bad_input_is_one_clear_error(net: Network) -> None:
    with pytest.raises(InputError, match="units 0 to 3"):
        units.connections(net, "stem", units=[4])
    with pytest.raises(InputError, match="there are no connections of unit"):
        units.connections(net, "stem", units=[1]).inputs(0)
    with pytest.raises(LayerError, match="stem"):
        units.connections(net, "sten")


@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e25])
def test_correlations_do_not_depend_on_the_scale_of_a_unit(scale: float) -> None:
    """Also where the first images are black. Oracle: NumPy in float64 for one scale."""
    conv = nn.Conv2d(1, 4, 3)
    conv.weight.data = torch.randn(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    conv.weight.data[2], conv.weight.data[3] = conv.weight.data[0], 0.0
    conv.bias.data = torch.tensor([0.0, 1.0, 0.0, 2.37])
    data = [torch.zeros(1, 6, 6)] * 2 + list(torch.rand(6, 1, 6, 6, generator=torch.Generator().manual_seed(1)))
    with torch.no_grad():
        value = conv(torch.stack(data)).double().transpose(0, 1).flatten(1)[:3]
    conv.weight.data[2] *= scale
    found = units.similar(Network(nn.Sequential(conv, nn.Flatten()), (1, 6, 6)), data, "0", batch=2)
    np.testing.assert_allclose(found.correlation[:3, :3], np.corrcoef(value), atol=1e-5)
    assert found.correlation[3].isnan().all()
    assert [pair[:2] for pair in found.repeats(0.99)] == [(0, 2)]
