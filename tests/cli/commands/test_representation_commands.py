"""Do ``microtome map`` and ``microtome cka`` say and keep what the library finds?"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

import microtome as mt
from microtome import data, representation
from microtome.cli.main import run

MODEL = ["--model", "drawn:build", "--input-shape", "1,6,6"]
SOURCE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))
"""


def build(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 3))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "drawn.py").write_text(SOURCE, encoding="utf-8")
    generator = torch.Generator().manual_seed(1)
    for number in range(24):
        place = tmp_path / "pictures" / "abc"[number % 3] / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (6, 6), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("drawn", None)
    return tmp_path


def test_a_map_of_a_folder(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tokens = ["map", *MODEL, "--data", "pictures", "--layer", "1"]
    assert run([*tokens, "--perplexity", "5", "--features", "kept", "--json", "-o", "map.safetensors"]) == 0
    said = json.loads(capsys.readouterr().out)
    found = mt.load("map.safetensors")
    net = mt.Network(build(), (1, 6, 6))
    images = data.open_data("pictures", net.input_shape)
    expected = representation.tsne(representation.features(net, images, "1"), perplexity=5)
    assert torch.equal(found.points, expected.points)
    assert said[0]["map accuracy"] == expected.map_accuracy
    assert (folder / "kept" / "features.safetensors").exists()
    assert run([*tokens, "--method", "pca", "--limit", "9", "--thumbnails", "-o", "map.png"]) == 0
    assert (folder / "map.png").stat().st_size > 5000
    assert run([*tokens, "--method", "pca", "--limit", "9", "-o", "map.html"]) == 0
    page = (folder / "map.html").read_text()
    assert '"count": 9' in page
    assert 'src="' not in page
    capsys.readouterr()
    assert run([*tokens, "--features", "vain", "-o", "map.png"]) == 2
    assert "perplexity=7 or more images" in capsys.readouterr().err
    assert not (folder / "vain").exists()  # said before the features are computed
    assert run([*tokens, "--limit", "0", "-o", "map.png"]) == 2
    capsys.readouterr()
    assert run([*tokens, "--method", "pca", "--perplexity", "5", "-o", "map.png"]) == 2
    assert "--perplexity goes with --method tsne" in capsys.readouterr().err


def test_cka_of_two_checkpoints(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(build(1).state_dict(), "later.safetensors")
    tokens = ["cka", *MODEL, "--data", "pictures", "--layers", "0,1"]
    assert run([*tokens, "--other-weights", "later.safetensors", "-o", "cka.safetensors"]) == 0
    first, second = (mt.Network(build(seed), (1, 6, 6)) for seed in (0, 1))
    expected = representation.cka(first, second, data.open_data("pictures", (1, 6, 6)), ["0", "1"])
    torch.testing.assert_close(mt.load("cka.safetensors").values, expected.values)
    assert str(expected.table()) in capsys.readouterr().out
    assert run([*tokens, "-o", "cka.png"]) == 0
    assert (folder / "cka.png").stat().st_size > 5000
