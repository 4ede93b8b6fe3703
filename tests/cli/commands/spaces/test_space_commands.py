"""Do the commands about signal spaces say what the library finds? Each as the shell runs it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn

import microtome as mt
from microtome import data, spaces
from microtome.cli.main import run

MODEL = ["--model", "drawn:build", "--input-shape", "1,6,6", "--mean", "0.4", "--std", "0.6"]
SOURCE = """
import torch
from torch import nn

def build():
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3)
    )

def widening():
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 40), nn.SELU(), nn.Linear(40, 45))

def narrowing():
    torch.manual_seed(0)
    narrow = nn.Linear(40, 3)
    narrow.weight.data.mul_(100)
    return nn.Sequential(nn.Flatten(), nn.Linear(36, 40), nn.Sigmoid(), narrow)
"""
PICTURES = ["pictures/a/0.png", "pictures/b/1.png"]
COMMANDS = {
    "spectra": (["spectra"], "Spectra", "condition"),
    "signal-space": (["signal-space", "0"], "Subspaces", "rank 2"),
    "signal-space exact": (["signal-space", "0", "--view", "exact"], "Subspaces", "32 x 36"),
    "triplets": (["signal-space", "0", "--triplets", "3"], "SingularTriplets", "largest residual"),
    "kept": (["kept", *PICTURES], "KeptAndLost", "exact null space"),
    "region": (["region", *PICTURES], "LinearRegion", "away in pixel values"),
    "ideal-inputs": (["ideal-inputs", "--data", "pictures", "--steps", "2"], "IdealInputs", "away from the ideal one"),
    "rejected": (["rejected", "--data", "pictures", "--limit", "2"], "Rejected", "less than 1%"),
    "class-residuals": (["class-residuals", "--data", "pictures", "--layer", "4"], "ClassResiduals", "orthogonal to"),
    "facets-between": (["facets-between", *PICTURES], "FacetPath", "of the largest"),
}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "drawn.py").write_text(SOURCE, encoding="utf-8")
    generator = torch.Generator().manual_seed(1)
    for number, name in enumerate(("a", "b", "c") * 2):
        place = tmp_path / "pictures" / name / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        pixels = torch.randint(0, 256, (6, 6), generator=generator, dtype=torch.uint8)
        Image.fromarray(pixels.numpy()).save(place)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("drawn", None)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_keeps_its_result_and_draws_it(
    command: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tokens, kind, said = COMMANDS[command]
    assert run([*tokens, *MODEL, "-o", "found.safetensors"]) == 0, capsys.readouterr().err
    assert said in capsys.readouterr().out
    assert type(mt.load(folder / "found.safetensors")).__name__ == kind
    assert run([*tokens, *MODEL, "-o", "found.png"]) == 0
    assert (folder / "found.png").stat().st_size > 2000


def test_what_is_printed_is_what_the_library_finds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Oracle: the library's own answer, asked directly."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(8, 3))
    net = mt.Network(model, (1, 6, 6), mean=0.4, std=0.6)
    images = data.open_data("pictures", net.input_shape)
    assert run(["rejected", "--data", "pictures", *MODEL, "-o", "found.safetensors"]) == 0
    found = spaces.rejected_energy(net, images)
    torch.testing.assert_close(mt.load("found.safetensors").share, found.share)
    assert str(found.table()) in capsys.readouterr().out
    assert run(["facets-between", *PICTURES, *MODEL, "-o", "found.safetensors"]) == 0
    crossed = spaces.facets_between(net, images[0][0], images[len(images) // 3][0]).crossed
    assert crossed > 0
    assert f"{crossed} facets;" in capsys.readouterr().out


def test_invertibility_needs_no_file(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["invertibility", *MODEL]) == 0
    assert "relu gives 0 for every negative value" in capsys.readouterr().out


def test_pictures_come_back_from_their_scores(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exactly where widths do not shrink; elsewhere only with what a picture lends, and it is said why."""
    model = ["--model", "drawn:widening", "--input-shape", "1,6,6"]
    assert run(["invert", *PICTURES, *model, "-o", "found.safetensors"]) == 0, capsys.readouterr().err
    said = capsys.readouterr().out
    assert "0.png: scores met to" in said
    assert said.count("0.0% away from the picture") == 2
    found = mt.load("found.safetensors")
    given = torch.stack([data.open_data("pictures", (1, 6, 6))[place][0] for place in (0, 2)])
    assert float((found.images - given).norm()) < 1e-10
    model[1] = "drawn:narrowing"
    assert run(["invert", PICTURES[0], *model, "-o", "found.png"]) == 0
    assert "0.png: on the way back its values leave the range" in capsys.readouterr().out
    assert (folder / "found.png").stat().st_size > 2000
    assert run(["invert", PICTURES[0], "--beside", PICTURES[0], *model, "-o", "found.png"]) == 0
    assert "0.0% away from the picture" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["invert", PICTURES[0]], "cannot be undone"),
        (["signal-space", "1"], "Linear or convolution"),
        (["signal-space", "0", "--view", "matrix"], "kernels, patches and exact"),
        (["signal-space", "0", "--triplets", "0"], "triplets were expected, got 0"),
        (["kept", PICTURES[0], "--layers", "9"], "Nearest"),
        (["rejected", "--data", "pictures", "--limit", "0"], "at least one image"),
        (["facets-between", *PICTURES, "--limit", "0"], "at least one facet"),
    ],
)
def test_a_mistake_is_one_clear_line(
    tokens: list[str], said: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([*tokens, *MODEL, "-o", "found.png"]) == 2
    assert said in capsys.readouterr().err
    assert not (folder / "found.png").exists()
