"""The explorer of an atlas: its network from the options it holds, its patches and superstimuli, its pages."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest
from fastapi.testclient import TestClient

from atlas import small
from microtome.atlas import build
from microtome.cli.commands.serve_command import ServedModel, _of_atlas
from microtome.errors import InputError, StoreError
from microtome.explorer import LiveNetwork, create_app
from microtome.explorer.atlas_results import AtlasResults, atlas_options
from microtome.explorer.frames import unpacked
from microtome.explorer.server.serving import bound
from microtome.loading import RunConfig


@pytest.fixture(scope="module")
def atlas(tmp_path_factory: pytest.TempPathFactory):
    """An atlas of a factory of the user's own, and the recipe that made it."""
    folder = tmp_path_factory.mktemp("explored")
    small.write(folder)
    sys.path.insert(0, str(folder))
    sys.modules.pop("nets", None)
    config = RunConfig("nets:build", input_shape=(1, 12, 10), data=str(folder / "images"))
    size = dataclasses.replace(small.TINY, name="quick")
    build(config, folder / "out", size=size, engine="inline")
    yield folder / "out", config, size
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def results(atlas):
    folder, config, size = atlas
    subject = config.open()
    return AtlasResults(folder, subject, atlas_options(folder), size=size), subject


def test_the_options_of_the_command_line_open_the_same_network(atlas):
    folder, config, _ = atlas
    model, data, options = _of_atlas(folder, ServedModel(), None)
    opened = model.recipe(data).open()
    assert opened.net.fingerprint == config.open().net.fingerprint
    assert options["model"] == "nets:build"
    assert _of_atlas(folder, ServedModel(model="zoo:fcnn1"), None)[0].model == "zoo:fcnn1"  # what is given wins


def test_stored_examples_are_shown_and_link_to_their_page(results):
    found, subject = results
    client = TestClient(create_app([LiveNetwork(subject, "small")], atlas=found), base_url="http://localhost")
    shown = [(name, unit) for name in ("one", "two") for unit in range(4) if found.superstimuli(name, unit)]
    layer, unit = shown[0]  # the budget suffices for some
    table = found.patches(layer)
    header, blocks = unpacked(client.post("/api/examples", json={"layer": layer, "unit": unit}).content)
    assert header["patch_images"] == [int(one) for one in table.image[unit] if one >= 0]
    assert header["stored"]
    assert blocks["patches"].shape[0] == len(header["patch_images"])
    stimuli = found.superstimuli(layer, unit)
    assert len(header["stimulus_activations"]) == len(stimuli) > 0
    page = client.get(f"/atlas/{header['page']}")
    assert page.status_code == 200
    assert "'unsafe-inline'" not in page.headers["content-security-policy"].partition("style-src")[0]
    assert "sha256-" in page.headers["content-security-policy"]
    assert client.get("/atlas/index.html").status_code == 200
    assert client.get("/atlas/atlas.json").status_code == 404
    assert client.get("/atlas/").status_code == 200


def test_the_atlas_of_another_network_is_refused(atlas):
    folder, config, _ = atlas
    other = dataclasses.replace(config, model="nets:averaged").open()
    with pytest.raises(StoreError, match="another network"):
        AtlasResults(folder, other, atlas_options(folder))


def test_other_folders_are_no_atlas(tmp_path: Path):
    with pytest.raises(StoreError, match="not an atlas"):
        atlas_options(tmp_path)
    (tmp_path / "atlas.json").write_text("{}")
    with pytest.raises(StoreError, match="does not name its model"):
        atlas_options(tmp_path)
    (tmp_path / "options.json").write_text("[")
    with pytest.raises(StoreError, match="cannot be read"):
        atlas_options(tmp_path)


def test_the_command_says_what_is_missing(capsys):
    from microtome.cli.main import run

    assert run(["serve"]) == 2
    assert "--model" in capsys.readouterr().err
    assert run(["serve", "--model", "zoo:fcnn1"]) == 2
    assert "--data" in capsys.readouterr().err


def test_an_address_that_cannot_be_bound_says_so():
    taken = bound("127.0.0.1", 0)
    taken.listen()
    with taken, pytest.raises(InputError, match="cannot be bound"):
        bound("127.0.0.1", taken.getsockname()[1])
    with pytest.raises(InputError, match="0 to 65535"):
        bound("127.0.0.1", 99_999)
    with pytest.raises(InputError, match="not an address"):
        bound("no such host", 80)
