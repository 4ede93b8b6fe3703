"""Does the reproduction run through, say what it shortened, keep what it found, and go on where it was broken off?"""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch
from torch import nn

import microtome as mt
from microtome import data, spaces, zoo
from microtome.reproduce import vector_spaces as module
from microtome.reproduce.batch_statistics import trained_best
from microtome.reproduce.table import best_by_digit, rows, text


class Small(nn.Module):
    """Stands for ResNet18: a first stage with a convolution of the same name, and batch norm."""

    def __init__(self):
        super().__init__()
        self.layer1 = nn.Sequential(nn.Sequential())
        self.layer1[0].add_module("conv1", nn.Conv2d(1, 4, 3, stride=4))
        self.norm, self.fc = nn.BatchNorm2d(4), nn.Linear(4 * 49, 10)

    def forward(self, x):
        return self.fc(self.norm(self.layer1(x)).relu().flatten(1))


@pytest.fixture
def little(monkeypatch):
    """A hundred images, two epochs, a small third network: the course is the same."""
    images = data.mnist("test").sample(200, seed=0)
    monkeypatch.setattr(module.data, "mnist", lambda part: images)
    monkeypatch.setattr(data.Images, "sample", lambda self, count, seed: self)
    monkeypatch.setattr(module, "EPOCHS", 2)
    monkeypatch.setattr(module, "STEPS", 5)
    torch.manual_seed(0)
    monkeypatch.setattr(zoo, "resnet18", lambda *args: Small())


def test_the_course_from_training_to_figures(little, tmp_path):
    said = []
    found = module.vector_spaces(out=tmp_path, say=said.append)
    table = found.report()
    for wanted in ("92 %", "7.22", "1.07", "batch  128", "shortened: three batch sizes", "min-img 0 2 3 8"):
        assert wanted in table
    assert (tmp_path / "vector-spaces.txt").read_text(encoding="utf-8") == table + "\n"
    assert {path.name for path in tmp_path.glob("*.png")} >= {"figure-1.png", "figure-2.png", "figure-3.png"}
    again = mt.load(tmp_path / "vector-spaces.safetensors")
    assert again.rows == found.rows
    assert any("ideal inputs" in line for line in said)
    trained = sum(path.stat().st_mtime_ns for path in tmp_path.glob("networks/*/state.safetensors"))
    second = module.vector_spaces(out=tmp_path)
    assert second.rows == found.rows
    assert sum(path.stat().st_mtime_ns for path in tmp_path.glob("networks/*/state.safetensors")) == trained


def test_a_run_broken_off_leaves_the_table_so_far(little, tmp_path, monkeypatch):
    def broken(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(spaces, "ideal_inputs", broken)
    with pytest.raises(KeyboardInterrupt):
        module.vector_spaces(out=tmp_path)
    table = (tmp_path / "vector-spaces.txt").read_text(encoding="utf-8")
    assert "7.22" in table
    assert "best image by digit" not in table


def test_images_trained_in_training_mode_are_counted_by_hand():
    """Oracle: the loop written out for one step; and the network is left as it was."""
    torch.manual_seed(0)
    net = mt.Network(Small(), (1, 28, 28))
    before = {name: value.clone() for name, value in net.model.state_dict().items()}
    ideal = spaces.ideal_inputs(net, data.mnist("test").sample(100, seed=0), steps=0)
    starts = torch.cat([ideal.average, ideal.nearest, ideal.average_nearest]).requires_grad_()
    target = ideal.ideal.repeat(3, 1)
    net.model.train()
    slope = torch.autograd.grad((net.model(starts) - target).square().sum(), starts)[0]
    net.model.load_state_dict(before)
    net.model.eval()
    away = (net.model(starts - 0.5 * slope) - target).norm(dim=1).reshape(3, 10)
    expected = int((away.amin(0) < ideal.distance[:3].amin(0)).sum())
    assert trained_best(net, ideal, steps=1, lr=0.5) == expected
    assert all(torch.equal(value, before[name]) for name, value in net.model.state_dict().items())


def test_best_images_are_told_in_the_paper_s_words():
    found = SimpleNamespace(classes=["0", "1", "2"], best_kinds=["nearest", "average+training", "nearest"])
    assert best_by_digit(found) == "avg-img+training 1, min-img 0 2"
    shown = text(rows({}, {}, {}, None, quick=True), [], [])
    assert "ResNet18, test accuracy" in shown
    assert "-" in shown
