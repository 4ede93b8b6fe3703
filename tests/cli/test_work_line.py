"""Does every command that takes some seconds say what it is doing?"""

from __future__ import annotations

import io
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from atlas import small
from microtome.cli import work_line
from microtome.cli.main import _TELLS_ITSELF, app, run
from microtome.progress import Clock, Progress, listening, reported


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    at = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: at[0])
    return at


def test_quick_work_says_nothing_and_long_work_says_its_step_and_the_time_that_is_left(clock: list[float]) -> None:
    written = io.StringIO()
    line = work_line.WorkLine(written)
    line(Progress("conv1", 1, 5, 1.0, 4.0))
    assert not written.getvalue()
    clock[0] = 6.0
    line(Progress("conv2", 2, 5, 6.0, 9.0, {"facets": 120.0}))
    clock[0] = 7.0
    line(Progress("conv3", 3, 5, 7.0, 5.0))
    assert written.getvalue() == "conv2: 2 of 5 steps done, facets 120, about 9 s remain\n"


def test_work_without_steps_says_for_how_long_it_runs(clock: list[float]) -> None:
    written = io.StringIO()
    line = work_line.WorkLine(written)
    for clock[0] in (4.0, 6.0, 20.0, 40.0):
        line.beat()
    assert written.getvalue().splitlines() == ["at work for 6 s", "at work for 40 s"]


def test_the_time_that_is_left_passes_between_two_steps(clock: list[float]) -> None:
    written = io.StringIO()
    line = work_line.WorkLine(written)
    line(Progress("conv1", 1, 5, 10.0, 40.0))
    clock[0] = 15.0
    line.beat()
    assert written.getvalue() == "conv1: 1 of 5 steps done, about 25 s remain\n"


def test_a_terminal_has_one_line_that_gives_way_to_results(monkeypatch: pytest.MonkeyPatch) -> None:
    terminal = _Terminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setattr(work_line, "_FIRST", 0.0)
    monkeypatch.setenv("COLUMNS", "40")
    with work_line.shown(sys.stderr):
        for _ in reported(range(2), "a stage with a name that is longer than the line"):
            pass
        sys.stdout.write("the result\n")
    assert sys.stdout is terminal
    shown = terminal.getvalue().split("\r\033[K")
    assert shown[1] == "a stage with a name that is longer than"
    assert shown[-1] == "the result\n"


def test_work_inside_work_reports_the_steps_of_the_outermost_and_the_time_of_all(clock: list[float]) -> None:
    heard: list[Progress] = []
    with listening(heard.append):
        outer = Clock(None, 4)
        inner = Clock(None, 10)
        clock[0] = 5.0
        inner.step("images", 5)
        clock[0] = 10.0
        outer.step("conv1", 1)
        after = Clock(None, 2)
        clock[0] = 15.0
        after.step("pairs", 1)
    assert [(at.stage, at.done, at.total, at.remaining) for at in heard] == [
        ("images", 0, 4, 35.0),  # an eighth of the work took 5 s
        ("conv1", 1, 4, 30.0),
        ("pairs", 1, 4, 25.0),
    ]


def test_a_listener_that_is_given_hears_its_own_work_only() -> None:
    ambient: list[Progress] = []
    given: list[Progress] = []
    with listening(ambient.append):
        Clock(given.append, 1).step("conv1", 1)
    assert (len(ambient), len(given)) == (0, 1)
    Clock(None, 1).step("nobody listens", 1)


PICTURE = "images/class0/00.png"
MODEL = ["--model", "nets:build", "--input-shape", small.SHAPE]
DATA = ["--data", "images"]
STEPS = {
    "explain": [PICTURE, "--method", "occlusion"],
    "explain-path": [PICTURE, "--no-labels"],
    "what-where": ["--layer", "one"],
    "natural-filters": [*DATA, "--patches", "200"],
    "layer-repeats": DATA,
    "top-patches": [*DATA, "--layer", "one"],
    "reconstruct": [*DATA, "--layer", "one", "--channels", "0"],
    "tuning": ["--layer", "one"],
    "maximize": ["one", "--channels", "0", "--steps", "3"],
    "credentials": ["one", *DATA, "--channels", "0", "--steps", "3", "--restarts", "1"],
    "landscape": [*DATA, "--line", "--steps", "3"],
    "curvature": [*DATA, "--products", "4"],
    "spectra": [],
    "kept": [PICTURE],
    "region": [PICTURE],
    "ideal-inputs": [*DATA, "--steps", "2"],
    "class-residuals": [*DATA],
    "rejected": [*DATA, "--limit", "2"],
    "facets-between": [PICTURE, "images/class1/01.png"],
    "cam-conversion": [*DATA, "--test", "images", "--epochs", "1"],
    "prune": [*DATA, "--rounds", "1", "--multiply-adds", "0.9"],
    "lossless": DATA,
    "compress": [*DATA, "--multiply-adds", "0.9"],
    "without": [*DATA, "--layer", "one", "--epochs", "1"],
    "criteria": [*DATA, "--layers", "one", "--steps", "2"],
    "map": [*DATA, "--layer", "one", "--method", "pca"],
    "cka": DATA,
    "usable-information": [*DATA, "--folds", "3"],
    "information": ["--networks", "2", "--epochs", "3", "--checkpoints", "2"],
    "shortcut-share": [PICTURE, "--masks", "masks", "--methods", "saliency,gradient"],
    "evaluate": [PICTURE, "--methods", "saliency", "--steps", "2", "--samples", "2"],
    "randomisation": [PICTURE, "--method", "saliency", "--steps", "2"],
}
ONE_STEP = {  # one pass over a picture, one decomposition, or a list: the time of their run is said
    "layers", "methods", "activations", "dissect", "signal-space", "invertibility", "invert", "completion",
}  # fmt: skip
PRINTING = {"reproduce", "spotting-bias", "hand-net"}  # each stage is a line of the output


def test_every_command_says_what_it_is_doing() -> None:
    names = {name for name in app if not name.startswith("-")}
    assert names == {*STEPS, *ONE_STEP, *PRINTING, *_TELLS_ITSELF}


@pytest.mark.parametrize("command", STEPS)
def test_a_command_says_its_steps_and_its_lines_fit_the_terminal(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    small.write(tmp_path)
    (tmp_path / "masks").mkdir()
    Image.fromarray(255 * np.eye(12, 10).astype(np.uint8)).save(tmp_path / "masks" / "00.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    sys.modules.pop("nets", None)
    monkeypatch.setenv("COLUMNS", "80")
    heard: list[Progress] = []
    monkeypatch.setattr(work_line.WorkLine, "__call__", lambda line, at: heard.append(at))
    model = MODEL if command != "information" else []
    assert run([command, *STEPS[command], *model, "-o", "found.safetensors"]) == 0, capsys.readouterr().err
    assert heard
    said = capsys.readouterr()
    assert not [line for line in f"{said.out}\n{said.err}".splitlines() if len(line) > 80]


def test_work_that_has_no_steps_says_that_it_goes_on(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(work_line, "_FIRST_APART", 0.05)
    monkeypatch.setattr(work_line, "_BEAT", 0.01)
    with work_line.shown(sys.stderr):
        time.sleep(0.2)
    assert "at work for 0 s" in capsys.readouterr().err
