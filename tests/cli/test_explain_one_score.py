"""A network with one probability: both classes and their shares are told right."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from PIL import Image

from microtome.cli import main
from microtome.cli.options import numbers
from microtome.errors import InputError

MODEL = """
import torch
from torch import nn
def build(bias):
    linear = nn.Linear(3 * 16, 1)
    nn.init.zeros_(linear.weight), nn.init.constant_(linear.bias, bias)
    return nn.Sequential(nn.Flatten(), linear, nn.Sigmoid())
def low(): return build(-1.0)
def high(): return build(1.0)
"""


@pytest.mark.parametrize(("name", "says"), [("low", 0), ("high", 1)])
def test_one_probability(tmp_path, monkeypatch, capsys, name, says):
    (tmp_path / f"one_score_{name}.py").write_text(MODEL)
    Image.fromarray(np.full((4, 4, 3), 9, np.uint8)).save(tmp_path / "a.png")
    monkeypatch.chdir(tmp_path)
    line = f"microtome explain a.png --model one_score_{name}:{name} --input-shape 3,4,4 --method saliency --json"
    monkeypatch.setattr(sys, "argv", line.split())
    with pytest.raises(SystemExit) as done:
        sys.exit(main())
    assert not done.value.code
    (row,) = json.loads(capsys.readouterr().out)
    assert row["predicted"] == says
    assert row["predicted_class"] == str(says)
    assert row["probability"] == pytest.approx(1 / (1 + np.exp(-1)))
    assert (row["target"], row["target_class"]) == (0, "1")


def test_an_option_without_a_number_is_refused():
    with pytest.raises(InputError, match='--mean takes numbers joined by commas, got "x"'):
        numbers("x", "--mean", float)
