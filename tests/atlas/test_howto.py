"""The example of ``docs/howto/atlas_topic.md`` runs as it stands, in fewer than 40 lines."""

from __future__ import annotations

import importlib
import re
import sys
from pathlib import Path

import pytest
import torch

from atlas import small
from atlas.small import shown
from microtome.atlas import build
from microtome.atlas.album import Album
from microtome.atlas.widgets import Gallery

PAGE = Path(__file__).parents[2] / "docs" / "howto" / "atlas_topic.md"


def test_the_example_adds_a_section_to_every_unit_page(
    album: Album, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Oracle: the mean of the activations, by hand."""
    (code,) = re.findall(r"```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) < 40
    (tmp_path / "mean_maps_topic.py").write_text(code)
    monkeypatch.syspath_prepend(str(tmp_path))
    made = importlib.import_module("mean_maps_topic")
    try:
        report = build(album.subject, tmp_path / "out", size=small.TINY, topics=[made.MEAN_MAPS])
    finally:
        sys.modules.pop("mean_maps_topic")
    assert report.made == 3 + 2  # the first look (its shard, scores and patches), and two layers
    pages = sorted((tmp_path / "out" / "units").rglob("*.html"))
    assert len(pages) == 10
    assert all("<h2>Where it responds</h2>" in page.read_text() for page in pages)
    images = album.subject.pictures(album.images)
    result = made.mean_maps(album.subject, layer="two", images=album.images)
    expected = torch.stack([album.net.activations(image[None], "two")["two"][0] for image in images]).mean(0)
    assert torch.allclose(result.maps, expected, atol=1e-6)
    assert not shown(made.on_unit_page(album, "two", 0), Gallery)  # not computed in this album
