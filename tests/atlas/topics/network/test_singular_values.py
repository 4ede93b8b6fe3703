"""The pages say of singular values and signal spaces what the weights say, by torch's own SVD."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from atlas.small import shown
from microtome.atlas import TOPICS
from microtome.atlas.album import Album
from microtome.atlas.pages.layer_page import layer_page
from microtome.atlas.pages.overview_page import overview_page
from microtome.atlas.topics.network import singular_values
from microtome.atlas.widgets import Absent, Gallery, Spectrum
from microtome.spaces import ClassResiduals


def test_the_layer_page_holds_the_singular_values_of_its_weights(album: Album) -> None:
    page = layer_page(album, "two", TOPICS)
    (spectrum,) = shown(page.sections, Spectrum)
    curves = dict(spectrum.curves)
    weight = album.net.model.two.weight.detach().double()
    whole = torch.linalg.svdvals(weight.flatten(1))
    single = torch.linalg.svdvals(weight.flatten(0, 1).flatten(1))
    assert torch.allclose(torch.tensor(curves["whole kernels"]).double(), whole, atol=1e-8)
    assert torch.allclose(torch.tensor(curves["single kernels"]).double(), single, atol=1e-8)
    facts = {fact.name: fact.value for fact in page.facts}
    assert facts["condition number"] == pytest.approx(float(whole[0] / whole[-1]), rel=1e-5)
    assert facts["rank"] == "6 of 6"


def test_the_first_layer_shows_averages_and_their_residuals(album: Album) -> None:
    sections = layer_page(album, "one", TOPICS).sections
    signal, averages, residuals, *_ = shown(sections, Gallery)
    assert len(signal.pictures) == 4  # four units, four signal vectors
    assert len(averages.pictures) == 3
    found = album.one(ClassResiduals, "class-residuals", layer="one")
    assert isinstance(found, ClassResiduals)
    shares = zip(found.classes, found.removed.tolist(), strict=True)
    expected = [f"{name}: {100 * share:.3g} %" for name, share in shares]
    assert [picture.note for picture in residuals.pictures] == expected
    assert singular_values.residuals(album, "two") == (None, None)


def test_residuals_too_small_for_a_picture_are_described(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    found = album.one(ClassResiduals, "class-residuals", layer="one")
    assert isinstance(found, ClassResiduals)
    part = dataclasses.replace(found, removed=found.removed.new_full((3,), 1e-6))
    monkeypatch.setattr(album, "one", lambda *_, **__: part)
    averages, rest = singular_values.residuals(album, "one")
    assert isinstance(averages, Gallery)
    assert isinstance(rest, Absent)
    assert rest.reason.endswith("of a class average does not reach its output.")


def test_what_a_layer_leaves_of_averages_is_shown(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    found = album.one(ClassResiduals, "class-residuals", layer="one")
    assert isinstance(found, ClassResiduals)
    shares = torch.tensor([2e-4, 0.5, 0.25], dtype=torch.float64)
    part = dataclasses.replace(found, removed=shares, residual=torch.ones_like(found.residual))
    monkeypatch.setattr(album, "one", lambda *_, **__: part)
    _, rest = singular_values.residuals(album, "one")
    assert isinstance(rest, Gallery)
    shares = [picture.note.partition(": ")[2] for picture in rest.pictures]
    assert shares == ["0.02 %", "50 %", "25 %"]


def test_the_drawing_of_the_network_has_condition_numbers(album: Album) -> None:
    known = {block.name: block.condition_number for block in overview_page(album, TOPICS).blocks}
    head = torch.linalg.svdvals(album.net.model.head.weight.detach().double())
    assert known["head"] == pytest.approx(float(head[0] / head[-1]), rel=1e-5)


def test_a_layer_without_weights_says_so(album: Album) -> None:
    found = album.without_weights("/max_pool2d")
    assert isinstance(found, Absent)
    assert "no weights of its own" in found.reason
