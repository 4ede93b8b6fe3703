"""Is a layer that repeats the one before found, with the right partners, and one that does not, told apart?"""

from __future__ import annotations

import itertools

import pytest
import torch
from torch import nn

from microtome import InputError, LayerError, Network, load, representation


class Repeating(nn.Module):
    """A convolution, its channels in another order, and a layer of its own on noise-like patterns."""

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.first = nn.Conv2d(1, 4, 3, padding=1)
        self.second = nn.Conv2d(4, 4, 1, bias=False)
        self.third = nn.Conv2d(4, 6, 3, padding=1)
        with torch.no_grad():
            self.second.weight.zero_()
            for place, source in enumerate(order):
                self.second.weight[place, source] = 1.0 + place
            self.third.weight[5] = 2 * self.third.weight[4]
            self.third.bias.zero_()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.third(self.second(self.first(x)).flip(3)).flatten(1)


@pytest.fixture(scope="module")
def found() -> representation.LayerRepeats:
    torch.manual_seed(0)
    return representation.repeats(Network(Repeating([2, 0, 3, 1]), (1, 6, 6)), _images(), ["first", "second", "third"])


def _images() -> list[torch.Tensor]:
    return list(torch.rand(40, 1, 6, 6, generator=torch.Generator().manual_seed(1)))


def test_a_permuted_and_scaled_layer_is_a_perfect_match(found: representation.LayerRepeats):
    assert float(found.match[0]) == pytest.approx(1.0, abs=1e-6)
    assert found.partner["second"].tolist() == [2, 0, 3, 1]
    assert found.cka[0] > 0.7  # channels are scaled differently, so it is not 1
    assert found.p[0] == pytest.approx(1 / 21)


def test_a_layer_that_mixes_and_mirrors_is_no_repeat(found: representation.LayerRepeats):
    assert float(found.match[1]) < 0.5
    assert bool((found.low <= found.cka).all() and (found.cka <= found.high).all())


def test_the_similarity_is_that_of_all_pairs_of_layers(found: representation.LayerRepeats):
    """Beside ``cka`` over all positions, which fills the whole matrix in another pass."""
    torch.manual_seed(0)
    net = Network(Repeating([2, 0, 3, 1]), (1, 6, 6))
    whole = representation.cka(net, None, _images(), ["first", "second", "third"], reduce="flat", permutations=1)
    for field in ("cka", "low", "high"):
        matrix = getattr(whole, "values" if field == "cka" else field)
        assert getattr(found, field).tolist() == pytest.approx([float(matrix[0, 1]), float(matrix[1, 2])], abs=1e-6)


def test_duplicates_within_a_layer_are_named(found: representation.LayerRepeats):
    assert [pair[:2] for pair in found.duplicates["third"]] == [[4, 5]]


def test_the_match_is_the_best_assignment():
    """Oracle: all one-to-one assignments of four units, correlations by torch.corrcoef."""
    torch.manual_seed(3)
    net = Network(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Conv2d(4, 4, 1), nn.Flatten()), (1, 6, 6))
    found = representation.repeats(net, _images(), ["0", "1"])
    values = net.activations(torch.stack(_images()), ["0", "1"])
    rows = torch.cat([values[name].transpose(0, 1).flatten(1).double() for name in ("0", "1")])
    table = torch.corrcoef(rows)[:4, 4:]
    best = max(sum(float(table[u, v]) for u, v in enumerate(order)) for order in itertools.permutations(range(4)))
    assert float(found.match[0]) == pytest.approx(best / 4, abs=1e-6)


def test_the_result_is_kept_and_drawn(found: representation.LayerRepeats, tmp_path):
    found.save(tmp_path / "repeats.safetensors")
    assert torch.equal(load(tmp_path / "repeats.safetensors").match, found.match)
    assert len(found.plot().axes[0].get_xticklabels()) == 2
    assert [row["layer"] for row in found.table()] == ["second", "third"]


def test_wrong_input_is_one_clear_message():
    net = Network(nn.Sequential(nn.Conv2d(1, 4, 3), nn.Flatten()), (1, 6, 6))
    with pytest.raises(InputError, match="two or more layers are compared; got 0"):
        representation.repeats(net, _images(), ["0"])
    with pytest.raises(LayerError, match="no layer"):
        representation.repeats(net, _images(), ["0", "nine"])


def test_a_layer_that_does_not_vary_is_like_no_other():
    """Its CKA is 0 / 0, as `cka` says; 0 with an interval from 0 to 0 and p = 1 would claim that the layers differ."""
    model = Repeating([2, 0, 3, 1])
    with torch.no_grad():
        model.second.weight.zero_()
    found = representation.repeats(Network(model, (1, 6, 6)), _images(), ["first", "second", "third"])
    for values in (found.cka, found.low, found.high, found.match, found.chance, found.p):
        assert values.isnan().all()
    assert "nan" not in str(found.table())
    found.plot()


@pytest.mark.parametrize(
    ("images", "options", "words"),
    [
        (4, {}, "at least 5 images, and the data set has 4"),
        (6, {"permutations": 0}, "permutations"),
        (6, {"above": 2.0}, "above is a correlation"),
    ],
)
def test_each_wrong_number_has_its_own_message(images: int, options: dict[str, float], words: str) -> None:
    net = Network(nn.Sequential(nn.Conv2d(1, 2, 1), nn.ReLU(), nn.Flatten()), (1, 4, 4))
    with pytest.raises(InputError, match=words):
        representation.repeats(net, list(torch.rand(images, 1, 4, 4)), **options)
