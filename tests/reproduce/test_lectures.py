"""Do the measures of the lectures' findings find what is there, and miss what is not?"""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from microtome import InputError, Network, load, zoo
from microtome.reproduce import evidence
from microtome.reproduce.lectures import Lectures, findings, lectures

SIDE = 28


class Colours(nn.Module):
    """Red speaks for class 1, green against it, wherever they are."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Conv2d(3, 2, 7, stride=7, bias=False), nn.ReLU())
        self.head = nn.Linear(2, 2)
        with torch.no_grad():
            self.body[0].weight.zero_()
            self.body[0].weight[0, 0] = self.body[0].weight[1, 1] = 1 / 49
            self.head.weight.zero_()
            self.head.bias.zero_()
            self.head.weight[1] = torch.tensor([48.0, -32.0])

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x).mean((2, 3)))


def network() -> Network:
    return Network(Colours().eval(), (3, SIDE, SIDE))


def cell(place: int) -> tuple[slice, slice]:
    return slice(7 * (place // 4), 7 * (place // 4) + 7), slice(7 * (place % 4), 7 * (place % 4) + 7)


def pictures() -> Tensor:
    """A red cell 1, a green cell 14, dark elsewhere."""
    x = 0.02 * torch.rand(3, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    x[(slice(None), 0, *cell(1))] = torch.tensor([0.9, 0.95, 1.0])[:, None, None]
    x[(slice(None), 1, *cell(14))] = 0.9
    return x


def masks() -> tuple[Tensor, Tensor]:
    """The red cell and the green one, for three images."""
    found = []
    for place in (1, 14):
        mask = torch.zeros(3, SIDE, SIDE, dtype=torch.bool)
        mask[(slice(None), *cell(place))] = True
        found.append(mask)
    return found[0], found[1]


ONES = torch.ones(3, dtype=torch.long)


def test_covering_finds_the_object_and_only_it() -> None:
    """Gray over red costs probability, over green it gains; with the names exchanged it is the reverse."""
    net, x, (red, green) = network(), pictures(), masks()
    found = evidence.covering(net, x, ONES, {"right": (red, green), "wrong": (green, red)})
    assert found["right"].share == found["right"].share_whole == 1
    assert found["wrong"].share == found["wrong"].share_whole == 0
    gray = x.clone()
    gray[:, :, 0:7, 7:14] = 0.5  # the red cell, by hand
    drop = (net.model(x).softmax(1) - net.model(gray).softmax(1))[:, 1]
    torch.testing.assert_close(found["right"].whole_object, drop)


def test_counterfactuals_fall_on_what_counts_against() -> None:
    """Red speaks for the class, green against: the maps lie there, and covering them lowers and raises the score."""
    found = evidence.counterfactual(network(), pictures(), ONES, masks())
    assert float(found.evidence_on_object.min()) > 0.5
    assert float(found.counterfactual_on_object.max()) < 0.1
    assert float(found.overlap.max()) < 0.1
    assert float(found.evidence_covered.max()) < 0 < float(found.counterfactual_covered.min())


def test_a_photo_without_a_counterfactual_is_left_out() -> None:
    x = pictures()
    x[:, 1] = 0
    found = evidence.counterfactual(network(), x, ONES, masks())
    assert bool(found.overlap.isnan().all())
    assert bool(found.counterfactual_covered.isnan().all())
    assert not bool(found.evidence_covered.isnan().any())
    assert "0 of 3" in found.lines()[0]


def test_regions_are_quarters_of_the_picture() -> None:
    found = evidence.regions(network(), pictures(), ONES)
    for inside, outside in found.values():
        assert inside.flatten(1).sum(1).tolist() == outside.flatten(1).sum(1).tolist() == [SIDE * SIDE // 4] * 3
        assert not bool((inside & outside).any())
    assert bool(found["second network"][0][:, 3, 10].all())  # the red cell
    assert bool(found["centre box"][0][:, SIDE // 2, SIDE // 2].all())
    assert bool(found["centre box"][1][:, 0, 0].all())
    torch.testing.assert_close(found["another photo's"][0], found["second network"][0].roll(1, 0))


def test_all_findings_on_a_small_network(tmp_path: Path) -> None:
    x, labels = pictures().repeat(4, 1, 1, 1), torch.arange(12) % 2
    judged = {"saliency": {}, "grad-cam": {}}
    made = findings(network(), network(), x, labels, judged=judged, randomised=("gradient",))
    assert [*made.deletion] == ["saliency", "grad-cam", "random", "random, smooth"]
    assert {len(area) for area in made.insertion.values()} == {4}
    assert made.likeness["gradient"].shape == made.structure["gradient"].shape == (2, 2)
    assert made.better("grad-cam", "grad-cam") == 0
    assert made.better("grad-cam", "random") == pytest.approx(-_sigmas(made, "random", "grad-cam"))
    text = made.report()
    assert all(part in text for part in ("(a)", "(b)", "(c)", "(d)", "grad-cam", "another photo's"))
    made.save(tmp_path / "made.safetensors")
    assert load(tmp_path / "made.safetensors").report() == text
    assert len(made.plot().axes) == 4


def _sigmas(made, name, than):
    gain = made.insertion[name] - made.deletion[name] - (made.insertion[than] - made.deletion[than])
    return float(gain.mean() / (gain.std() / len(gain) ** 0.5))


def test_photos_without_classes_are_refused(tmp_path: Path) -> None:
    from PIL import Image

    if zoo.architecture("efficientnet-lite0").pretrained is None or zoo.architecture("mobilenet-v2").pretrained is None:
        pytest.skip("the packages of weights are not there")
    Image.new("RGB", (300, 300)).save(tmp_path / "holiday.png")
    with pytest.raises(InputError, match="have no classes in their names"):
        lectures(tmp_path)
    (tmp_path / "holiday.png").rename(tmp_path / "207_golden_retriever.png")
    with pytest.raises(InputError, match="2 to 1 images"):
        lectures(tmp_path)


@pytest.mark.slow
@pytest.mark.skipif("MICROTOME_PHOTOS" not in os.environ, reason="MICROTOME_PHOTOS names no folder of photos")
def test_the_findings_hold_on_photos() -> None:
    """What the lectures say, on EfficientNet-Lite0. The bounds leave room for another choice of photos."""
    check(lectures(os.environ["MICROTOME_PHOTOS"], images=50))


def check(made: Lectures) -> None:
    seen, control = made.covering["second network"], made.covering["another photo's"]
    assert seen.share > 0.7
    assert seen.share_whole > 0.8 > control.share_whole
    gain, chance = (float((one.whole_object - one.whole_background).mean()) for one in (seen, control))
    assert gain > 1.5 * chance > 0
    against = made.counterfactual
    assert float(against.counterfactual_on_object.nanmean()) < 0.25 < float(against.evidence_on_object.nanmean())
    assert float(against.evidence_covered.nanmean()) < float(against.counterfactual_covered.nanmean())
    assert min(made.better(name, "random") for name in ("grad-cam", "lrp", "deep-taylor")) > 2
    first = {name: float(values[0].mean()) for name, values in made.likeness.items()}
    assert max(first["gradient"], first["grad-cam"]) < 0.5 < 0.8 < min(first["guided-backprop"], first["deconvnet"])
    assert max(float(values[-1].mean()) for values in made.likeness.values()) < 0.5
