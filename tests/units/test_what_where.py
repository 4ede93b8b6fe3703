"""Do the shares of pattern and place follow the definition, and are planted units told apart?"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from microtome import InputError, LayerError, Network, load, units
from microtome.units.placed_stimuli import PlacedStimuli
from microtome.units.what_where import variance_shares

PATTERNS, PLACES = 4, 6


class Planted(nn.Module):
    """Units that read the pattern (row 0 of the image), the place (row 1), their product, or their sum."""

    def __init__(self, what: torch.Tensor, where: torch.Tensor) -> None:
        super().__init__()
        self.what, self.where = nn.Parameter(what), nn.Parameter(where)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        what, where = x[:, 0, 0] @ self.what, x[:, 0, 1] @ self.where
        return torch.stack([what, where, what * where, what + where, 0 * what + 1], 1)


def codes() -> PlacedStimuli:
    """Images whose first row says the pattern and whose second row says the place."""
    images = torch.zeros(PATTERNS * PLACES, 1, 2, PLACES)
    for number in range(len(images)):
        images[number, 0, 0, number // PLACES] = 1
        images[number, 0, 1, number % PLACES] = 1
    base = units.placed(28)
    return PlacedStimuli(
        provenance=base.provenance, images=images, names=list("abcd"), places=torch.arange(12).reshape(6, 2)
    )


def test_planted_units_have_their_shares():
    """Oracle: closed forms. The product of numbers with the mean 0 is all interaction; a sum has none."""
    what = torch.tensor([1.0, -1.0, 2.0, -2.0, 0.0, 0.0])
    where = torch.tensor([1.0, -1.0, 3.0, -3.0, 0.5, -0.5])
    net = Network(Planted(what, where), (1, 2, PLACES))
    found = units.what_where(net, "logits" if "logits" in net.layers else list(net.layers)[-1], stimuli=codes())
    expected = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, 0, 1]])
    shares = torch.stack([found.pattern, found.place, found.interaction], 1)
    torch.testing.assert_close(shares[:3].float(), expected, atol=1e-9, rtol=0)
    a, b = float(what[:4].square().mean()), float(where.square().mean())
    torch.testing.assert_close(shares[3].float(), torch.tensor([a / (a + b), b / (a + b), 0.0]), atol=1e-6, rtol=0)
    assert bool(shares[4].isnan().all())
    assert found.dual().tolist() == [False, False, False, True, False]


def test_shares_follow_the_definition_and_add_up_to_one():
    """Oracle: sums over cells with NumPy loops."""
    response = torch.randn(3, 4, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    shares = variance_shares(response)
    torch.testing.assert_close(shares.sum(1), torch.ones(3, dtype=torch.float64), rtol=1e-12, atol=0)
    for unit in range(3):
        y = response[unit].numpy()
        parts = np.zeros(3)
        for i in range(4):
            for j in range(5):
                a, b = y[i].mean() - y.mean(), y[:, j].mean() - y.mean()
                parts += np.array([a**2, b**2, (y[i, j] - y.mean() - a - b) ** 2])
        np.testing.assert_allclose(shares[unit].numpy(), parts / ((y - y.mean()) ** 2).sum(), rtol=1e-10)


@pytest.fixture(scope="module")
def convolution() -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 3, 5), nn.ReLU(), nn.Flatten(), nn.Linear(3 * 24 * 24, 4))
    return Network(model, (1, 28, 28))


def test_a_convolution_without_padding_does_not_know_the_place(convolution: Network):
    """Oracle: translation. Patterns that lie whole in the image have one maximum wherever they are."""
    inner = torch.zeros(8, 13, 13)
    inner[:, 4:9, 4:9] = torch.rand(8, 5, 5, generator=torch.Generator().manual_seed(1))
    shown = units.placed(28, patterns=inner, grid=4)
    found = units.what_where(convolution, ["0", "3"], stimuli=shown)
    assert float(found["0"].pattern.min()) > 1 - 1e-9
    assert float(found["3"].place.max()) > 0.05  # the linear layer has weights for every place


def test_the_middle_neuron_knows_the_place(convolution: Network):
    found = units.what_where(convolution, "1", reduce="centre")
    assert float((found.place + found.interaction)[~found.pattern.isnan()].min()) > 0.5


def test_errors_shrink_with_more_places(convolution: Network):
    few, many = (units.what_where(convolution, "3", stimuli=units.placed(28, grid=grid)).error for grid in (3, 6))
    assert float(many[:, 1].mean()) < float(few[:, 1].mean())


def test_the_result_is_kept_and_drawn(convolution: Network, tmp_path):
    found = units.what_where(convolution, "3")
    found.save(tmp_path / "shares.safetensors")
    assert torch.equal(load(tmp_path / "shares.safetensors").pattern, found.pattern)
    assert found.plot(limit=2).axes[0].get_ylim() == (0.0, 1.0)
    assert len(found.table()) == 4


def test_wrong_input_is_one_clear_message(convolution: Network):
    with pytest.raises(InputError, match="max, mean, centre"):
        units.what_where(convolution, "1", reduce="median")
    with pytest.raises(LayerError, match="no layer was named"):
        units.what_where(convolution, [])
    with pytest.raises(LayerError, match="no layer"):
        units.what_where(convolution, "conv9")
    with pytest.raises(InputError, match="fit the image"):
        units.placed(28, patterns=torch.zeros(3, 40, 40))
    with pytest.raises(InputError, match="names"):
        units.placed(28, patterns=torch.zeros(3, 5, 5), names=["one"])


class SumOfShares(nn.Module):
    """The sum of a softmax, which is 1 but for rounding, and its first share."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        share = (20 * x.flatten(1)).softmax(1)
        return torch.stack([share.sum(1), share[:, 0]], 1)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_rounding_is_no_response(dtype: torch.dtype) -> None:
    net = Network(nn.Sequential(SumOfShares().to(dtype), nn.Identity(), nn.Linear(2, 2).to(dtype)), (1, 12, 12))
    shares = units.what_where(net, "1", reduce="max")
    assert dtype == torch.float64 or shares.response[0].unique().numel() > 1  # the sum is rounded
    assert shares.pattern.isnan().tolist() == [True, False]
    data = [(image, number % 2) for number, image in enumerate(torch.rand(20, 1, 12, 12, dtype=dtype))]
    found = units.criteria(net, data, "1", columns=["class_selectivity"])
    assert found.column("class_selectivity", "1").isnan().tolist() == [True, False]
    assert found.p_value["1"][:, 0].isnan().tolist() == [True, False]
