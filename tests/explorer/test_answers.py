"""Answers hold the numbers of the library's own functions, on the network as it is and with changed units."""

from __future__ import annotations

import pytest
import torch

from microtome import attribution, units
from microtome.explorer.frames import unpacked

PICTURE = "data:4"
EDITS = [{"layer": "conv1", "unit": 2, "scale": 0.0}, {"layer": "conv2", "unit": 1, "clamp": 0.5}]


def ask(client, kind, **question):
    answer = client.post(f"/api/{kind}", json={"picture": PICTURE, **question})
    assert answer.status_code == 200, answer.text
    return unpacked(answer.content)


def dequantised(blocks, name="map", limits="limits", signed=True):
    low, high = blocks[limits][:, 0], blocks[limits][:, 1]
    steps = 254 if signed else 255
    return torch.tensor(low[:, None, None] + (high - low)[:, None, None] * blocks[name] / steps)


@pytest.fixture(params=[False, True], ids=["plain", "edited"])
def net_and_edits(request, live):
    if not request.param:
        return live.net, []
    changed = units.intervene(live.net, scale={"conv1": {2: 0.0}}, clamp={"conv2": {1: 0.5}})
    return changed, EDITS


def test_live_scores_and_maps(client, live, net_and_edits):
    net, edits = net_and_edits
    image = live.subject.pictures([4])
    header, blocks = ask(client, "live", layer="conv1", edits=edits)
    expected = net.logits(image)[0]
    torch.testing.assert_close(torch.tensor(blocks["scores"]), expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(torch.tensor(blocks["probabilities"]), expected.softmax(0), rtol=1e-5, atol=1e-6)
    assert header["predicted"] == int(expected.argmax())
    maps = net.activations(image, "conv1")["conv1"][0]
    span = maps.abs().flatten(1).amax(1)[:, None, None]
    assert bool(((dequantised(blocks, "maps") - maps).abs() <= 0.005 * span + 1e-7).all())
    torch.testing.assert_close(torch.tensor(blocks["peak"]), maps.flatten(1).amax(1), rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("method", ["saliency", "grad-cam", "lrp", "integrated-gradients", "guided-backprop"])
def test_maps_of_a_class(client, live, net_and_edits, method):
    from microtome import registry

    net, edits = net_and_edits
    chosen = registry.method(method, registry.EXPLAINING)
    expected = chosen.function(net, live.subject.pictures([4]), 3)
    header, blocks = ask(client, "explain", method=method, target=3, edits=edits)
    assert header["target"] == 3
    assert header["score"] == pytest.approx(float(expected.score[0]), rel=1e-5)
    found = dequantised(blocks, signed=chosen.signed)
    limit = 0.005 * float(expected.map.abs().max()) + 1e-9
    torch.testing.assert_close(found, expected.map.float(), rtol=0, atol=limit)


def test_occlusion(client, live):
    expected = attribution.occlusion(live.net, live.subject.pictures([4]), 2, window=4, stride=3)
    header, blocks = ask(client, "occlusion", target=2, window=4, stride=3)
    limit = 0.005 * float(expected.map.abs().max())
    torch.testing.assert_close(dequantised(blocks), expected.map, rtol=0, atol=limit + 1e-6)
    assert header["unoccluded"] == pytest.approx(float(expected.unoccluded[0]), rel=1e-5)


@pytest.mark.parametrize("method", ["gradient", "deconvnet", "guided", "relevance"])
def test_backward_image_of_a_unit(client, live, net_and_edits, method):
    net, edits = net_and_edits
    expected = units.project_back(net, live.subject.pictures([4]), "conv2", 3, method=method)
    header, blocks = ask(client, "project", layer="conv2", unit=3, method=method, edits=edits)
    assert header["position"] == expected.position[0].tolist()
    limit = 0.005 * float(expected.map.abs().max()) + 1e-9
    torch.testing.assert_close(dequantised(blocks), expected.map, rtol=0, atol=limit)


def test_dissection_adds_up(client, live, net_and_edits):
    net, edits = net_and_edits
    header, blocks = ask(client, "dissect", layer="conv2", unit=4, edits=edits)
    expected = units.dissect(net, live.subject.pictures([4]), "conv2", 4)
    assert header["value"] == pytest.approx(float(expected.output.max()), rel=1e-5)
    assert blocks["amount"].sum() + header["rest"] + header["bias"] == pytest.approx(header["value"], abs=1e-5)
    assert header["gap"] <= header["bound"]


def test_a_norm_is_dissected_at_its_convolution_and_a_sum_says_why_not(client):
    assert ask(client, "dissect", layer="norm", unit=0)[0]["layer"] == "conv1"
    answer = client.post("/api/dissect", json={"picture": PICTURE, "layer": "/add", "unit": 0})
    assert answer.status_code == 400
    assert "convolution" in answer.json()["detail"]


def test_the_score_is_the_sum_of_its_units(client, live, net_and_edits):
    net, edits = net_and_edits
    header, blocks = ask(client, "sum", layer="conv2", target=5, edits=edits)
    assert header["score"] == pytest.approx(float(net.logits(live.subject.pictures([4]))[0, 5]), rel=1e-4)
    total = blocks["amount"].sum() + header["rest"] + header["bias"]
    assert total == pytest.approx(header["score"], rel=1e-4)


def test_patches_are_searched_and_superstimuli_made_when_asked(client, live):
    question = {"layer": "conv1", "unit": 2}
    header, blocks = unpacked(client.post("/api/examples", json=question).content)
    assert not blocks
    answer = client.post("/api/examples", json={**question, "compute": "patches"})
    header, blocks = unpacked(answer.content)
    expected = units.top_patches(live.net, live.subject.images, ["conv1"], k=9)["conv1"]
    assert header["patch_images"] == expected.image[2].tolist()
    assert header["patch_activations"] == pytest.approx(expected.activation[2].tolist(), rel=1e-5)
    assert blocks["patches"].shape[0] == 9
    assert blocks["reconstructions"].shape[0] == 9
    header, blocks = unpacked(client.post("/api/examples", json={**question, "compute": "superstimulus"}).content)
    assert header["stimulus_activations"][0] > max(header["patch_activations"])


def test_the_second_network_answers_for_itself(client):
    first, second = (ask(client, "live", layer="conv1", network=which)[1]["scores"] for which in (0, 1))
    assert first.tolist() != second.tolist()


def test_tokens_lie_where_their_patches_are():
    """A transformer's tokens, class token left out, and the units of a fully connected layer."""
    from torch import nn

    from microtome import Network
    from microtome.explorer.answers.live_activations import live as live_answer

    class Tokens(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.token = nn.Conv2d(1, 8, 4, 4), nn.Parameter(torch.zeros(1, 1, 8))
            self.block = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
            self.head = nn.Linear(8, 3)

        def forward(self, x):
            patches = self.embed(x).flatten(2).transpose(1, 2)
            tokens = torch.cat([self.token.expand(len(x), -1, -1), patches], 1)
            return self.head(self.block(tokens)[:, 0])

    torch.manual_seed(0)
    net = Network(Tokens().eval(), (1, 16, 16))
    image = torch.rand(1, 1, 16, 16)
    frame = live_answer(net, image, "block")
    assert frame.header["grid"] == [4, 4]
    assert frame.blocks["maps"].shape == (8, 4, 4)
    assert live_answer(net, image, "head").blocks["maps"].shape == (3, 1, 1)
