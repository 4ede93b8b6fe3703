"""``microtome curvature`` and ``usable-information`` as a person calls them; each bad input is one clear error."""

from __future__ import annotations

import json

import pytest
from torch import nn

from microtome import data, load, training
from microtome.cli.main import run as call

MODULE = """
from torch import nn


def build():
    return nn.Sequential(nn.Conv2d(1, 2, 4, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(18, 10))
"""


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small network, its run of two epochs, and the options that name them."""
    folder = tmp_path_factory.mktemp("trained")
    (folder / "tiny_curved.py").write_text(MODULE)
    digits = data.open_data("digits", (1, 8, 8)).subset(range(50))
    model = nn.Sequential(nn.Conv2d(1, 2, 4, stride=2), nn.Tanh(), nn.Flatten(), nn.Linear(18, 10))
    training.fit(model, digits, recipe=training.Recipe(epochs=2, batch=25, lr=0.1), out=folder / "run")
    return folder


def command(capsys, monkeypatch, trained, *arguments: str, name="curvature", images="20") -> tuple[int, str, str]:
    monkeypatch.syspath_prepend(str(trained))
    weights = str(trained / "run" / "epoch-00002.safetensors")
    model = ("--model", "tiny_curved:build", "--weights", weights, "--input-shape", "1,8,8", "--data", "digits")
    code = call([name, *model, "--images", images, *arguments])
    out, err = capsys.readouterr()
    return int(code or 0), out, err


@pytest.mark.parametrize(
    ("arguments", "kind", "first"),
    [
        (("--per-layer", "-k", "2"), training.HessianEigenvalues, "largest"),
        (("--density", "--layer", "3", "--products", "8"), training.SpectralDensity, "trace"),
        (("--convexity", "--steps", "3", "--products", "12"), training.ConvexityMap, "at the network"),
        (("--run", "RUN", "--per-layer", "--products", "30"), training.CurvatureHistory, "epoch"),
    ],
)
def test_each_kind_is_told_drawn_and_kept(capsys, monkeypatch, tmp_path, trained, arguments, kind, first):
    given = [str(trained / "run") if word == "RUN" else word for word in arguments]
    code, out, err = command(capsys, monkeypatch, trained, *given, "-o", str(tmp_path / "f.png"))
    assert code == 0, err
    assert first in out
    assert (tmp_path / "f.png").stat().st_size > 5000
    kept = tmp_path / "f.safetensors"
    code, out, err = command(capsys, monkeypatch, trained, *given, "--json", "-o", str(kept))
    assert code == 0, err
    assert json.loads(out)
    assert isinstance(load(kept), kind)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--density", "--convexity"), "exclude each other"),
        (("--layer", "3"), "--layer goes with --density"),
        (("--density", "-k", "2"), "not to --density or --convexity"),
        (("--convexity", "--steps", "4"), "odd"),
        (("--run", "nowhere"), "nowhere"),
        (("--density", "--layer", "1"), 'layer "1" has no weights'),
        (("--products", "0"), "at least 1"),
        (("-k", "0"), "at least 1"),
        (("-k", "2", "--products", "3"), "at least 4"),
        (("--steps", "7", "--extent", "2"), "--steps and --extent go with --convexity"),
        (("--convexity", "--steps", "999999999"), "at most 4,000,000 points"),
    ],
)
def test_a_bad_option_is_one_clear_error(capsys, monkeypatch, tmp_path, trained, arguments, said):
    code, _, err = command(capsys, monkeypatch, trained, *arguments, "-o", str(tmp_path / "f.png"))
    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_too_few_products_are_told(capsys, monkeypatch, tmp_path, trained):
    for kind in ((), ("--convexity", "--steps", "3"), ("--run", str(trained / "run"))):
        few = command(capsys, monkeypatch, trained, *kind, "--products", "2", "-o", str(tmp_path / "f.png"))
        assert few[0] == 0
        assert "note: not converged" in few[2]
    _, _, err = command(capsys, monkeypatch, trained, "-o", str(tmp_path / "f.png"))
    assert "not converged" not in err


def test_what_each_layer_tells_of_the_class(capsys, monkeypatch, tmp_path, trained):
    made, kept = str(tmp_path / "f.png"), tmp_path / "f.safetensors"
    usable = {"name": "usable-information", "images": "150"}
    code, out, err = command(capsys, monkeypatch, trained, "--kept", "0", "-o", made, **usable)
    assert code == 0, err
    assert "usable bits" in out
    code, out, err = command(capsys, monkeypatch, trained, "--kept", "1", "--json", "-o", str(kept), **usable)
    assert code == 0, err
    assert [row["layer"] for row in json.loads(out)] == load(kept).layers == ["input", "1", "logits"]
    code, _, err = command(capsys, monkeypatch, trained, "--folds", "50", "-o", made, **usable)
    assert code == 2
    assert "for 50 folds" in err


def test_the_information_of_a_run_needs_no_trained_weights_besides(capsys, monkeypatch, tmp_path, trained):
    """The weights come from the run: a note that the model's own are random would be wrong."""
    monkeypatch.syspath_prepend(str(trained))
    model = ("--model", "tiny_curved:build", "--input-shape", "1,8,8", "--data", "digits")
    code = call(["information", *model, "--run", str(trained / "run"), "-o", str(tmp_path / "plane.png")])
    out, err = capsys.readouterr()
    assert not code, err
    assert "I(X;T)" in out
    assert "random weights" not in err
