"""``microtome landscape`` and ``microtome reproduce`` as a person calls them; each bad input is one clear error."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from microtome import load, zoo
from microtome.cli.main import run as call
from microtome.training import LossLine, LossSurface

DATA = ("--data", "mnist-5000")


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> str:
    """Weights of a small network in a file."""
    path = tmp_path_factory.mktemp("weights") / "w.safetensors"
    save_file({name: value.contiguous() for name, value in zoo.fcnn1().state_dict().items()}, str(path))
    return str(path)


def command(capsys, *arguments: str) -> tuple[int, str, str]:
    code = call(list(arguments))
    out, err = capsys.readouterr()
    return int(code or 0), out, err


def run(capsys, *arguments: str) -> str:
    code, out, err = command(capsys, *arguments)
    assert code == 0, err
    return out


def test_a_surface_is_drawn_and_its_numbers_are_printed(capsys, tmp_path, weights):
    net = ("--model", "zoo:fcnn1", "--weights", weights)
    out = run(
        capsys, "landscape", *net, *DATA, "--steps", "3", "--images", "40", "--json", "-o", str(tmp_path / "s.png"),
    )  # fmt: skip
    row = json.loads(out)
    row = row[0] if isinstance(row, list) else row
    assert row["images"] == 9 * 40
    assert row["lowest"] <= row["loss"]
    assert (tmp_path / "s.png").stat().st_size > 1000


def test_a_surface_is_a_page_and_a_line_is_none(capsys, tmp_path, weights):
    """The page holds the losses that the result holds."""
    net = ("--model", "zoo:fcnn1", "--weights", weights, *DATA, "--steps", "3", "--images", "40")
    run(capsys, "landscape", *net, "-o", str(tmp_path / "s.html"))
    run(capsys, "landscape", *net, "-o", str(tmp_path / "s.safetensors"))
    page = (tmp_path / "s.html").read_text()
    held = json.loads(re.search(r'<script type="application/json">(.*?)</script>', page, re.DOTALL).group(1))
    torch.testing.assert_close(torch.tensor(held["loss"]).double(), load(tmp_path / "s.safetensors").loss.flatten(),
                               rtol=1e-4, atol=0)  # fmt: skip
    assert call(["landscape", *net, "--line", "-o", str(tmp_path / "line.html")]) == 2
    assert "an .html page shows a surface" in capsys.readouterr().err


def test_a_line_and_the_way_to_another_network(capsys, tmp_path, weights):
    """Between a network and itself the loss does not change."""
    net = ("--model", "zoo:fcnn1", "--weights", weights, *DATA, "--steps", "3", "--images", "40")
    run(capsys, "landscape", *net, "--line", "-o", str(tmp_path / "line.safetensors"))
    assert isinstance(load(tmp_path / "line.safetensors"), LossLine)
    run(capsys, "landscape", *net, "--to", weights, "-o", str(tmp_path / "to.safetensors"))
    loss = load(tmp_path / "to.safetensors").loss
    torch.testing.assert_close(loss, loss[:1].expand_as(loss), rtol=1e-6, atol=0)
    out = run(capsys, "landscape", *net, "--to", weights, "--test", "digits", "-o", str(tmp_path / "to.safetensors"))
    first, second = (line for line in out.splitlines() if line.startswith("on "))
    assert (first.split(",")[0], second.split(",")[0]) == ("on training images", "on test images")
    test = load(tmp_path / "to.safetensors").test
    assert f"lowest loss {float(test.loss.min()):.4g}" in second
    assert "loss of the first network" in second
    assert "images at all points together" in second


def test_a_loss_that_is_not_finite_is_kept_and_shown(capsys, tmp_path):
    """The weights are so large that the scores overflow off the centre, and only there."""
    path = tmp_path / "large.safetensors"
    model = zoo.fcnn1()
    state = {name: torch.full_like(value, 3e38 / 784 / 300) for name, value in model.state_dict().items()}
    save_file(state, str(path))
    out = run(
        capsys, "landscape", "--model", "zoo:fcnn1", "--weights", str(path), *DATA, "--steps", "3", "--images", "20",
        "--extent", "1e6", "--json", "-o", str(tmp_path / "s.safetensors"),
    )  # fmt: skip
    row = json.loads(out)
    row = row[0] if isinstance(row, list) else row
    found = load(tmp_path / "s.safetensors")
    assert isinstance(found, LossSurface)
    lost = int((~found.loss.isfinite()).sum())
    assert row["not finite"] == lost
    assert 0 < lost < 9
    assert bool(found.loss[1, 1].isfinite())
    figure = found.plot()
    texts = [text.get_text() for axes in figure.axes for text in (axes.get_legend().texts if axes.get_legend() else [])]
    assert "not finite" in texts


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--steps", "4"), "odd"),
        (("--line", "--to", "x.safetensors"), "exclude each other"),
        (("--run", "nowhere"), "nowhere"),
        (("--tolerance", "0"), "tolerance must be a positive share"),
        (("--images", "0"), "at least one image"),
        (("--to", "x.safetensors", "--extent", "2"), "--extent goes with random directions"),
        (("--run", "nowhere", "--extent", "2"), "--extent goes with random directions"),
    ],
)
def test_a_bad_option_is_one_clear_error(capsys, tmp_path, weights, arguments, said):
    code, _, err = command(
        capsys, "landscape", "--model", "zoo:fcnn1", "--weights", weights, *DATA, *arguments, "-o",
        str(tmp_path / "s.png"),
    )  # fmt: skip
    assert code == 2
    assert said in err
    assert "Traceback" not in err


def test_networks_of_different_architecture_are_refused(capsys, tmp_path, weights):
    other = tmp_path / "other.safetensors"
    save_file({name: v.contiguous() for name, v in zoo.fcnn5().state_dict().items()}, str(other))
    code, _, err = command(
        capsys, "landscape", "--model", "zoo:fcnn1", "--weights", weights, *DATA, "--to", str(other), "-o",
        str(tmp_path / "s.png"),
    )  # fmt: skip
    assert code == 2
    assert str(other.name) in err


def test_reproduce_names_what_it_knows(capsys, tmp_path):
    code, _, err = command(capsys, "reproduce", "loss-surface", "--out", str(tmp_path))
    assert code == 2
    assert "loss-surfaces" in err
    code, _, err = command(capsys, "reproduce", "representations", "--data", str(tmp_path / "none"))
    assert code == 2
    assert "not a folder of photos" in err
    assert not Path("reproduced").exists()
