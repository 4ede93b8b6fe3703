"""Do the commands of surgery keep their results, print what they found, and refuse what cannot be?"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest

from atlas import small
from microtome import load
from microtome.cli.main import run

MODEL = ["--model", "nets:build", "--input-shape", small.SHAPE]
COMMANDS = {
    "prune": (["--rounds", "1", "--multiply-adds", ".6", "--tolerance", "1", "--criterion", "magnitude"], "Pruning"),
    "lossless": (["--images", "6"], "Lossless"),
    "compress": (["--multiply-adds", ".6", "--images", "6"], "Compression"),
    "without": (["--layer", "two", "--adapter", "linear"], "Without"),
    "criteria": (["--layers", "one", "--steps", "2"], "Criteria"),
}


@pytest.fixture
def files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    small.write(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("nets", None)
    return tmp_path


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_keeps_its_result_and_prints_json(command: str, files: Path, capsys) -> None:
    options, kind = COMMANDS[command]
    assert run([command, *MODEL, "--data", "images", *options, "-o", "r.safetensors", "--json"]) == 0
    assert isinstance(json.loads(capsys.readouterr().out), list)
    assert type(load(files / "r.safetensors")).__name__ == kind
    assert run([command, *MODEL, "--data", "images", *options, "-o", "r.png"]) == 0
    assert (files / "r.png").stat().st_size > 2000
    assert "wrote r.png" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tokens", "said"),
    [
        (["prune", "--channels", "two"], "layer=number"),
        (["prune", "--channels", "two=0"], "must keep between 1 and all"),
        (["compress", "--multiply-adds", "2"], "(0, 1]"),
        (["without", "--layer", "three"], "no layer"),
        (["lossless", "--images", "0"], "at least one image"),
    ],
)
def test_bad_input_is_one_line(tokens: list[str], said: str, files: Path, capsys) -> None:
    assert run([*tokens, *MODEL, "--data", "images", "-o", "r.png"]) == 2
    error = capsys.readouterr().err
    assert said in error
    assert "Traceback" not in error
