"""Do the amounts of a walk add up to the score, and does it say by which inputs a planted unit is made?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microtome import InputError, Network, load, units


class Planted(nn.Module):
    """Two filters, a sum of their maps with a skip, and a score that reads one unit of it."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first = nn.Conv2d(1, 3, 3, padding=1)
        self.second = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(3 * 16, 2)
        with torch.no_grad():
            self.second.weight[1].zero_()
            self.second.weight[1, 2, 1, 1] = 1.5  # unit 1 of the second layer passes on unit 2 of the first
            self.second.bias.zero_()
            self.head.weight.zero_()
            self.head.weight[0, 16:32] = 1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.first(x).relu()
        high = self.second(low) + low
        return self.head(torch.nn.functional.max_pool2d(high.relu(), 2).flatten(1))


@pytest.fixture(scope="module")
def net() -> Network:
    return Network(Planted().double(), (1, 8, 8), classes=["this", "that"])


@pytest.fixture(scope="module")
def image() -> torch.Tensor:
    return torch.rand(1, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(2))


@pytest.fixture(scope="module")
def found(net: Network, image: torch.Tensor) -> units.ScorePath:
    return units.explain_path(net, image, 0, layers=["first", "second"], labels={"first": ["a", "b", "c"]})


def test_amounts_add_up_and_equal_the_network_by_hand(found: units.ScorePath, net: Network, image: torch.Tensor):
    """Oracle: the skip and the convolution taken apart with plain tensors; the pooling's choice is a mask."""
    model = net.model
    with torch.no_grad():
        low = model.first(image[None]).relu()
        high = model.second(low)
    joined = (high + low).relu()
    _, index = nn.functional.max_pool2d(joined, 2, return_indices=True)
    mask = torch.zeros_like(joined).flatten(2).scatter_(2, index.flatten(2), 1.0).reshape(joined.shape) * (joined > 0)
    expected = {"second:1": float((high * mask)[0, 1].sum()), "first:1": float((low * mask)[0, 1].sum())}
    amounts = {f"{step[0]}:{step[1]}": step[2] for step in found.sums.steps}
    assert amounts.keys() == {key for key, value in expected.items() if abs(value) > 1e-12}
    for key, amount in amounts.items():
        assert amount == pytest.approx(expected[key], rel=1e-9)
    assert found.sums.score == pytest.approx(float(net.logits(image)[0, 0]), rel=1e-12)
    assert found.gap < 1e-12


def test_the_dissection_names_the_planted_input(found: units.ScorePath, net: Network):
    sheet = found.dissections["second:1"]
    assert int(sheet.share.argmax()) == 2
    assert float(sheet.share[2]) == pytest.approx(1.0)
    assert sheet.labels[2] == ""  # it reads behind the ReLU, whose labels were not given
    named = units.explain_path(
        net, found.image, 0, layers=["first", "second"], labels={net.layer("second").inputs[0]: ["a", "b", "c"]}
    )
    assert named.dissections["second:1"].labels == ("a", "b", "c")
    assert any("channel 2 (c) 100 %" in line for line in named.words())


def test_words_and_table_tell_every_followed_unit(found: units.ScorePath):
    text = "\n".join(found.words())
    assert text.startswith(f"The score of this is {found.sums.score:.3g}.")
    assert all(key in text for key in found.maps)
    assert found.table()[0]["depth"] == 1


def test_labels_are_measured_where_none_are_given(net: Network, image: torch.Tensor):
    found = units.explain_path(net, image, layers=["second"])
    assert all(found.labels[key] for key in found.maps)


def test_the_result_is_kept_and_drawn(found: units.ScorePath, tmp_path):
    found.save(tmp_path / "path.safetensors")
    again = load(tmp_path / "path.safetensors")
    assert again.words() == found.words()
    assert len(found.plot(limit=1).axes) < len(found.plot().axes)


def test_wrong_input_is_one_clear_message(net: Network):
    with pytest.raises(InputError, match="one image"):
        units.explain_path(net, torch.rand(2, 1, 8, 8))
    with pytest.raises(InputError, match="class"):
        units.explain_path(net, torch.rand(1, 8, 8), 7, labels=False)
