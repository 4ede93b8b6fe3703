"""A function of the user's own stands among the maps of an atlas."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import pytest

from atlas import small
from microtome.atlas import build
from microtome.atlas.topics.images.attribution_maps import ATTRIBUTION_MAPS
from microtome.errors import InputError
from microtome.loading import RunConfig

FEW = dataclasses.replace(small.TINY, images=2)


@pytest.fixture
def recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> RunConfig:
    small.write(tmp_path)
    (tmp_path / "mine.py").write_text("def brightness(net, images, target):\n    return images.sum(1)\n")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("nets", None)
    return RunConfig("nets:build", input_shape=(1, 12, 10), data=str(tmp_path / "images"))


def test_the_map_of_an_own_function_is_shown_and_made_anew_when_its_file_changes(
    recipe: RunConfig, tmp_path: Path
) -> None:
    options = {"size": FEW, "engine": "inline", "topics": [ATTRIBUTION_MAPS], "methods": ["mine.py:brightness"]}
    first = build(recipe, tmp_path / "out", **options)
    page = next((tmp_path / "out" / "images").glob("*.html")).read_text()
    assert "<strong>brightness</strong>" in page
    assert "--methods mine.py:brightness" in page
    assert build(recipe, tmp_path / "out", **options).made == 0
    (tmp_path / "mine.py").write_text("def brightness(net, images, target):\n    return -images.sum(1)\n")
    for name in [name for name in sys.modules if name.startswith("mine_")]:
        del sys.modules[name]
    assert 0 < build(recipe, tmp_path / "out", **options).made < first.made


def test_what_is_no_function_is_an_error_before_anything_runs(recipe: RunConfig, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r'no "brigthness".*brightness'):
        build(recipe, tmp_path / "out", methods=["mine.py:brigthness"])
    with pytest.raises(InputError, match="registered methods are always in the atlas"):
        build(recipe, tmp_path / "out", methods=["grad-cam"])
    assert not (tmp_path / "out").exists()


def test_other_processes_open_a_model_that_is_named_by_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small.write(tmp_path)
    (tmp_path / "nets.py").rename(tmp_path / "drawn_nets.py")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    recipe = RunConfig("./drawn_nets.py:build", input_shape=(1, 12, 10), data="images")
    report = build(recipe, tmp_path / "out", size=FEW, engine="processes", workers=1, topics=[ATTRIBUTION_MAPS])
    assert report.made
    assert not report.failed
    assert "--model ./drawn_nets.py:build" in next((tmp_path / "out" / "images").glob("*.html")).read_text()
