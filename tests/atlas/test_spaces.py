"""Does the atlas show of the signal spaces what the weights say? A small network, its pages' dataclasses."""

from __future__ import annotations

import dataclasses
import sys

import pytest
import torch

from atlas import small
from microtome import spaces
from microtome.atlas import BUDGETS, build
from microtome.atlas.assemble import Album
from microtome.atlas.assemble import spaces as shown
from microtome.atlas.assemble.images import image_page
from microtome.atlas.assemble.layers import layer_page
from microtome.atlas.assemble.overview import overview
from microtome.atlas.findings import Kept
from microtome.atlas.outline import outline
from microtome.atlas.pages import Absent, Gallery, Sheet, Spectrum
from microtome.atlas.plan import Plan
from microtome.atlas.stages import stages
from microtome.atlas.store import Store
from microtome.loading import RunConfig
from microtome.spaces import ClassResiduals

TINY = dataclasses.replace(BUDGETS["quick"], name="tiny", steps=2, images=3, windows=3, sample=6, patches=3, bins=2)


@pytest.fixture(scope="module")
def album(tmp_path_factory: pytest.TempPathFactory) -> Album:
    folder = tmp_path_factory.mktemp("spaces")
    small.write(folder)
    sys.path.insert(0, str(folder))
    sys.modules.pop("nets", None)
    torch.manual_seed(3)
    recipe = RunConfig("nets:build", input_shape=(1, 12, 10), data=str(folder / "images"))
    subject = recipe.open()
    build(subject, folder / "out", size=TINY, command="microtome atlas --model nets:build --data images")
    store = Store(folder / "out")
    plan = Plan(outline(subject, TINY, None, None), subject)
    tasks = [task for _, stage in stages(plan, store) for task in stage]
    sys.path.remove(str(folder))
    return Album(plan, store, tasks, "microtome atlas --model nets:build --data images")


def test_the_layer_page_holds_the_singular_values_of_its_weights(album: Album) -> None:
    page = layer_page(album, "two")
    assert isinstance(page.spectrum, Spectrum)
    curves = dict(page.spectrum.curves)
    weight = album.net.model.two.weight.detach().double()
    whole = torch.linalg.svdvals(weight.flatten(1))
    single = torch.linalg.svdvals(weight.flatten(0, 1).flatten(1))
    assert torch.allclose(torch.tensor(curves["whole kernels"]).double(), whole, atol=1e-8)
    assert torch.allclose(torch.tensor(curves["single kernels"]).double(), single, atol=1e-8)
    facts = {fact.name: fact.value for fact in page.facts}
    assert facts["condition number"] == pytest.approx(float(whole[0] / whole[-1]), rel=1e-5)
    assert facts["rank"] == "6 of 6"


def test_the_first_layer_shows_averages_and_no_empty_pictures(album: Album) -> None:
    """Four kernels of 3 x 3 at every position hear every image: what is left is rounding, not pictures."""
    page = layer_page(album, "one")
    assert isinstance(page.averages, Gallery)
    assert len(page.averages.pictures) == 3
    assert isinstance(page.residuals, Absent)
    assert "hears all of it" in page.residuals.reason
    assert isinstance(page.signal, Gallery)
    assert len(page.signal.pictures) == 4  # four units, four signal vectors
    assert layer_page(album, "two").residuals is None


def test_what_a_layer_leaves_of_averages_is_shown(album: Album, monkeypatch: pytest.MonkeyPatch) -> None:
    found = album.one(ClassResiduals, "class-residuals", layer="one")
    assert isinstance(found, ClassResiduals)
    shares = torch.tensor([2e-3, 0.5, 0.25], dtype=torch.float64)
    part = dataclasses.replace(found, removed=shares, residual=torch.ones_like(found.residual))
    monkeypatch.setattr(album, "one", lambda *_, **__: part)
    _, rest = shown.residuals(album, "one")
    assert isinstance(rest, Gallery)
    assert [picture.note for picture in rest.pictures] == ["0.2 % removed", "50 % removed", "25 % removed"]


def test_kept_parts_are_those_of_the_network_and_the_rest_is_lost(album: Album) -> None:
    task = album.find("kept")[0]
    result = album.load(task)
    assert isinstance(result, Kept)
    images = album.subject.pictures(task.parameters["images"])
    again = spaces.kept_and_lost(album.net, images, ["one", "two"], dense=False)
    assert torch.allclose(result.kept["two"].double(), again.kept[1], atol=2e-3)
    rows = shown.kept_rows(album, task.parameters["images"][0])
    assert isinstance(rows, tuple)
    assert [row.layer for row in rows] == ["one", "two"]
    numbers = {number.name: number for number in rows[1].numbers}
    assert numbers["lost"].value == pytest.approx(100 * float(again.share[1, 0]), rel=1e-4)
    assert numbers["proved to within"].tolerance
    first = {number.name: number.value for number in rows[0].numbers}
    assert first["in the exact null space"] == 0.0  # four kernels of 3 x 3, 120 pixels: injective by its structure


def test_the_image_page_dissects_the_unit_that_speaks_most(album: Album) -> None:
    index = album.images[0]
    page = image_page(album, index)
    assert isinstance(page.sheet, Sheet)
    record = album.net.run(album.subject.pictures([index]), [page.said], record="two", gradient=True)
    amounts = (record.value["two"] * record.gradient["two"])[0].sum((1, 2))
    assert page.sheet.unit.unit == int(amounts.argmax())
    assert page.sheet.check.ok


def test_the_overview_tells_what_each_layer_rejects(album: Album) -> None:
    page = overview(album)
    assert {row.name for row in page.rejected.rows} == {"one", "two", "head"}
    found = spaces.rejected_energy(album.net, album.subject.pictures(album.find("rejected")[0].parameters["images"]))
    for row, layer, share in zip(page.rejected.rows, found.layers, found.mean.tolist(), strict=True):
        assert (row.name, row.value) == (layer, pytest.approx(100 * share, rel=1e-9))  # the library's own number
    known = {block.name: block.condition_number for block in page.blocks}
    head = torch.linalg.svdvals(album.net.model.head.weight.detach().double())
    assert known["head"] == pytest.approx(float(head[0] / head[-1]), rel=1e-5)


def test_a_layer_without_weights_says_so(album: Album) -> None:
    found = shown.without_weights(album, "/max_pool2d")
    assert isinstance(found, Absent)
    assert "no weights of its own" in found.reason
