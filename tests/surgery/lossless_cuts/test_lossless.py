"""Are planted redundant units found, each for its reason, and does cutting them leave the logits where they were?"""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from microtome import InputError, Network, load, zoo
from microtome.surgery import lossless


class Planted(nn.Module):
    """conv1 (8) - relu - pool - conv2 (6) - relu - flatten - fc1 (12) - fc2 (3), the last two with nothing between."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 8, 3, padding=1), nn.Conv2d(8, 6, 3, padding=1)
        self.fc1, self.fc2 = nn.Linear(6 * 16, 12), nn.Linear(12, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.conv1(x)), 2)
        x = F.relu(self.conv2(x))
        return self.fc2(self.fc1(x.flatten(1)))


@pytest.fixture
def planted() -> Network:
    torch.manual_seed(0)
    model = Planted().double()
    with torch.no_grad():
        model.conv1.weight[1] = -model.conv1.weight[1].abs()  # dead: pixels are not negative
        model.conv1.bias[1] = -0.1
        model.conv1.weight[3], model.conv1.bias[3] = model.conv1.weight[0], model.conv1.bias[0]  # a copy
        model.conv1.weight[5], model.conv1.bias[5] = 2.5 * model.conv1.weight[2], 2.5 * model.conv1.bias[2]
        model.conv2.weight[:, 6] = 0  # not read
        model.conv2.bias[:] = 1.0  # none of them is dead
    return Network(model, (1, 8, 8))


def pictures(count: int = 40) -> list[torch.Tensor]:
    return list(torch.rand(count, 1, 8, 8, generator=torch.Generator().manual_seed(3)))


def test_each_planted_unit_goes_for_its_reason(planted):
    found = lossless(planted, pictures(), tolerance=0)
    reasons = {(cut.layer, cut.units): cut for cut in found.cuts}
    assert "zero" in reasons["conv1", (6,)].reason
    assert "no image of the pixel range" in reasons["conv1", (1,)].reason
    assert reasons["conv1", (3,)].reason == "a copy of unit 0"
    assert reasons["conv1", (5,)].reason.startswith("2.5 times unit 2")
    (merge,) = [cut for cut in found.cuts if cut.layer == "fc1"]
    assert len(merge.units) == 9  # 12 units before 3 logits: 3 are enough
    assert all(cut.bound == 0 for cut in found.cuts)
    assert found.widths == {"conv1": [8, 4], "fc1": [12, 3]}


def test_no_logit_changes_on_images_never_seen(planted):
    """Oracle: the network itself in float64; what has a bound holds on any image."""
    found = lossless(planted, pictures(), tolerance=0)
    unseen = torch.rand(200, 1, 8, 8, generator=torch.Generator().manual_seed(9)).round()
    before, after = planted.logits(unseen), found.network.logits(unseen)
    assert float((before - after).abs().max()) < 1e-12
    assert found.largest_change < 1e-12
    assert found.network.model.conv1.weight.shape == (4, 1, 3, 3)
    assert found.network.model.fc1.weight.shape == (3, 96)


def test_a_unit_dead_on_the_data_has_no_bound(planted):
    with torch.no_grad():
        planted.model.conv1.bias[4] = -planted.model.conv1.weight[4].clamp(min=0).sum() * 0.999
    net = Network(planted.model, (1, 8, 8))
    found = lossless(net, pictures(), tolerance=0)
    (cut,) = [cut for cut in found.cuts if 4 in cut.units]
    assert "on all images of the data" in cut.reason
    assert cut.bound is None
    assert cut.change == 0
    bright = torch.zeros(1, 1, 8, 8)
    bright[0, 0, 3:6, 3:6] = (net.model.conv1.weight[4, 0] > 0).float()  # what the data never showed
    assert float((net.logits(bright) - found.network.logits(bright)).abs().max()) > 0


def test_outgoing_weights_in_what_the_next_layer_rejects():
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(9, 5), nn.ReLU(), nn.Linear(5, 4), nn.Linear(4, 2)).double()
    null = torch.linalg.svd(model[4].weight.detach()).Vh[3]
    with torch.no_grad():
        model[3].weight[:, 2] = 1.7 * null
        model[1].bias[:] = 3.0
    found = lossless(Network(model, (1, 3, 3)), list(torch.rand(30, 1, 3, 3)), tolerance=0)
    (cut,) = [cut for cut in found.cuts if "null space" in cut.reason]
    assert (cut.layer, cut.units, cut.bound) == ("1", (2,), 0.0)
    assert found.largest_change < 1e-12


def test_linear_combinations_are_absorbed_and_the_tolerance_is_kept():
    """Two units are the sum and the difference of others (no rectifier between, so exactly)."""
    torch.manual_seed(2)
    conv1, conv2 = nn.Conv2d(1, 6, 3), nn.Conv2d(6, 4, 3)
    with torch.no_grad():
        conv1.weight[4] = conv1.weight[0] + conv1.weight[1]
        conv1.weight[5] = conv1.weight[2] - conv1.weight[3]
    net = Network(nn.Sequential(conv1, conv2, nn.ReLU(), nn.Flatten(), nn.Linear(64, 3)).double(), (1, 8, 8))
    found = lossless(net, pictures(60), tolerance=1e-5)
    assert len(net.model[0].weight) - len(found.network.model[0].weight) >= 2
    assert 0 < found.largest_change <= 1e-5 or found.largest_change < 1e-5
    loose = lossless(net, pictures(60), tolerance=0.5)
    assert loose.parameters[1] < found.parameters[1]
    assert loose.largest_change <= 0.5


def test_float32_networks_of_the_zoo_and_the_users_model(tmp_path):
    net = Network(zoo.SimpleConvNet((1, 16, 16), 10, channels=(6, 8, 8), hidden=24), (1, 16, 16))
    state = {name: value.clone() for name, value in net.model.state_dict().items()}
    found = lossless(net, list(torch.rand(20, 1, 16, 16)), tolerance=1e-3)
    assert all(torch.equal(state[name], value) for name, value in net.model.state_dict().items())
    assert found.largest_change <= 1e-3 + 1e-5
    assert found.network.model.fc4.out_features <= 10
    found.save(tmp_path / "l.safetensors")
    again = load(tmp_path / "l.safetensors")
    x = torch.rand(3, 1, 16, 16)
    assert torch.equal(again.rebuild(net).logits(x), found.network.logits(x))
    assert [cut.reason for cut in again.cuts] == [cut.reason for cut in found.cuts]


def test_bad_input(planted):
    with pytest.raises(InputError, match="not negative"):
        lossless(planted, pictures(), tolerance=-1)
    with pytest.raises(InputError, match="empty"):
        lossless(planted, [])


BEFORE = {
    "as it is": (lambda x: x, True),
    "zeros around": (lambda x: F.pad(x, (1, 1, 1, 1)), True),
    "first and last exchanged": (lambda x: x[:, [2, 1, 0]], False),  # the last one reaches 10
    "other numbers around": (lambda x: F.pad(x, (1, 1, 1, 1), value=30.0), False),
}


@pytest.mark.parametrize("before", BEFORE)
def test_a_unit_is_proved_dead_only_by_the_numbers_that_its_layer_reads(before):
    """Unit 0 reads one number of a channel, at most 1, unless the model gives it other numbers."""

    class Prepared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.relu, self.head = nn.Conv2d(3, 6, 3), nn.ReLU(), nn.Linear(6, 4)

        def forward(self, x):
            return self.head(self.relu(self.conv(BEFORE[before][0](x))).mean((2, 3)))

    torch.manual_seed(0)
    model = Prepared()
    with torch.no_grad():
        model.conv.weight[0] = 0
        model.conv.weight[0, 0, 1, 1], model.conv.bias[0] = 1.0, -2.0
    net = Network(model, (3, 10, 10), mean=0.0, std=[1.0, 1.0, 0.1])
    dark = [(torch.zeros(3, 10, 10), 0)] * 4
    proved = [cut for cut in lossless(net, dark).cuts if cut.bound == 0 and 0 in cut.units]
    assert bool(proved) == BEFORE[before][1]
