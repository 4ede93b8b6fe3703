"""Maps against the plain forward; specialists against planted ones."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microtome import LayerError, Network, units
from microtome.units.streaming.specialised import sparseness


def test_maps_are_the_layers_own_values_before_an_in_place_change() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True), nn.Flatten(), nn.Linear(64, 2)).double()
    net = Network(model, (3, 6, 6), mean=0.5, std=0.25)
    image = torch.rand(3, 6, 6, dtype=torch.float64)
    found = units.activation_maps(net, image)
    before = model[0]((image[None] - 0.5) / 0.25).detach()
    torch.testing.assert_close(found["0"], before)
    torch.testing.assert_close(found["1"], before.clamp(min=0))
    assert list(found.maps) == ["0", "1", "3"]
    assert found.strongest("0", k=2)[0][1] == pytest.approx(float(before.max()))
    with pytest.raises(LayerError, match="Nearest"):
        found["2"]


def test_sparseness_of_the_definition() -> None:
    """Written out for one vector; scale does not matter."""
    r = torch.rand(3, 20, dtype=torch.float64)
    expected = (1 - r.mean(1) ** 2 / (r**2).mean(1)) / (1 - 1 / 20)
    torch.testing.assert_close(sparseness(r), expected)
    torch.testing.assert_close(sparseness(7 * r), expected)


def test_a_planted_specialist_is_found_and_named() -> None:
    """Unit 2 answers one bright pixel that three of sixty images have; the others answer every image everywhere."""
    conv = nn.Conv2d(1, 3, 1)
    conv.weight.data = torch.tensor([1.0, -1.0, 1.0]).view(3, 1, 1, 1)
    conv.bias.data = torch.tensor([0.0, 1.0, -0.9])
    net = Network(nn.Sequential(conv, nn.ReLU(), nn.Flatten(), nn.Linear(192, 2)), (1, 8, 8), classes=["plain", "spot"])
    torch.manual_seed(0)
    data = []
    for index in range(60):
        image = torch.rand(1, 8, 8) * 0.5 + 0.2
        if index % 20 == 3:
            image[0, 5, index % 8] = 1.0
        data.append((image, int(index % 20 == 3)))
    found = units.specialised(net, data, batch=7)
    layer, unit, score = found.units(1)[0]
    assert (layer, unit) == ("0", 2)
    assert score > 0.9
    assert int(found.fires_on["1"][2]) == 3
    assert list(found.score) == ["0", "1"]  # a linear layer has no places
    text = found.describe("1", 2)
    assert "3 of 60 images" in text
    assert '"spot"' in text
    values = net.activations(torch.stack([image for image, _ in data]), "1")["1"]
    torch.testing.assert_close(found.rarity["1"], sparseness(values.flatten(2).amax(2).T), rtol=1e-5, atol=1e-6)
    peak = values.flatten(2).amax(2).double()
    local = (sparseness(values.flatten(2)) * peak).sum(0) / peak.sum(0)
    torch.testing.assert_close(found.locality["1"], local, rtol=1e-5, atol=1e-6)
