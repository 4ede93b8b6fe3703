"""Are independent components of planted patches found, and matched with the filters that equal them?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microtome import InputError, LayerError, Network, load, units

SIZE = 4


@pytest.fixture(scope="module")
def sources() -> torch.Tensor:
    """Three orthogonal patterns without a mean."""
    raw = torch.randn(SIZE * SIZE, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    raw[:, 0] = 1.0
    return torch.linalg.qr(raw)[0][:, 1:].T.reshape(3, 1, SIZE, SIZE).float()


@pytest.fixture(scope="module")
def patches(sources: torch.Tensor) -> list[torch.Tensor]:
    """Images of one patch each: the patterns with independent, sharply peaked amounts (Laplace)."""
    uniform = torch.rand(500, 3, generator=torch.Generator().manual_seed(1)) - 0.5
    amounts = -uniform.sign() * torch.log1p(-2 * uniform.abs() + 1e-6)
    mixed = torch.einsum("nk,kchw->nchw", amounts, sources)
    return list((0.5 + 0.04 * mixed).clamp(0, 1))


def network(kernels: torch.Tensor) -> Network:
    conv = nn.Conv2d(1, len(kernels), SIZE, bias=False)
    conv.weight.data.copy_(kernels)
    return Network(nn.Sequential(conv, nn.Flatten()), (1, SIZE, SIZE))


def test_planted_components_are_found_and_matched_in_any_order(sources: torch.Tensor, patches: list[torch.Tensor]):
    """Oracle: the patterns that the patches were made of; orthogonal ones are their own unmixing filters."""
    found = units.natural_filters(network(-2 * sources[[2, 0, 1]]), patches)
    assert float(found.similarity.min()) > 0.97
    assert sorted(found.partner.tolist()) == [0, 1, 2]
    assert found.chance + 3 * found.chance_spread < 0.97
    for unit, source in enumerate([2, 0, 1]):
        component = found.components[found.partner[unit]] * found.sign[unit]
        assert float((component * -sources[source]).sum()) > 0.97


def test_more_filters_than_components_leave_some_without_a_partner(patches: list[torch.Tensor]):
    torch.manual_seed(0)
    found = units.natural_filters(network(torch.randn(20, 1, SIZE, SIZE)), patches)
    assert int((found.partner < 0).sum()) == 5
    assert int(found.similarity.isnan().sum()) == 5
    assert "nan" not in str(found.similarity.nanmean())


def test_the_seed_is_all_and_the_result_is_kept_and_drawn(sources: torch.Tensor, patches: list[torch.Tensor], tmp_path):
    net = network(sources)
    first, second = (units.natural_filters(net, patches, seed=3) for _ in range(2))
    assert torch.equal(first.components, second.components)
    first.save(tmp_path / "natural.safetensors")
    assert torch.equal(load(tmp_path / "natural.safetensors").partner, first.partner)
    assert len(first.plot(limit=2).axes) == 4


def test_wrong_input_is_one_clear_message(sources: torch.Tensor):
    flat = [torch.zeros(1, SIZE, SIZE)] * 10
    with pytest.raises(InputError, match="not flat"):
        units.natural_filters(network(sources), flat)
    deep = Network(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Conv2d(2, 2, 3), nn.Flatten()), (1, 8, 8))
    with pytest.raises(LayerError, match="read the image"):
        units.natural_filters(deep, flat, layer="1")
