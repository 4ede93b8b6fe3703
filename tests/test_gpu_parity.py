"""Every registered method on a GPU against the processor, on three networks; and the comparison itself."""

from __future__ import annotations

import json
import math

import pytest
import torch
from benchmarks import gpu, gpu_speed

from microtome import registry

NETWORKS = ("small", "ResNet18", "transformer")


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
@pytest.mark.parametrize("network", NETWORKS)
@pytest.mark.parametrize("method", sorted(gpu.cases()))
def test_the_device_gives_what_the_processor_gives(network, method):
    rows = [row for row in gpu.compared("cpu", "cuda", f"{network} {method}") if row["method"] == method]
    assert len(rows) == 1
    assert not any(map(gpu.wrong, rows)), rows


def test_every_registered_method_is_compared():
    assert set(registry.methods()) <= set(gpu.cases())
    assert set(gpu.subjects()) == set(NETWORKS)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_half_precision_autocast_and_tf32():
    rows = gpu.conditions("cuda")
    assert not [row for row in rows if gpu.wrong(row)]


@pytest.mark.slow
def test_the_conditions_hold_on_the_processor():
    """Single precision against bfloat16, float16 and autocast, on the processor: maps of the same shape and places."""
    rows = gpu.conditions("cpu")
    assert {row["condition"] for row in rows} == set(gpu.CONDITIONS)
    assert not [row for row in rows if gpu.wrong(row)]


def test_a_model_that_was_changed_is_an_error(monkeypatch):
    def careless(net, on):
        with torch.no_grad():
            next(net.model.parameters()).add_(1)

    monkeypatch.setattr(gpu, "cases", lambda: {"careless": careless})
    assert "has changed the model" in gpu.one_row("small", "careless", "cpu", "cpu")["error"]


def test_the_harness_runs(tmp_path, monkeypatch):
    """The processor against itself: no difference, and both tables are written."""
    out = tmp_path / "gpu.json"
    monkeypatch.setattr(gpu_speed, "least", lambda run, device, repeat: float(run() is run))  # once each
    options = ["--device", "cpu", "--only", "small sal", "--networks", "resnet18", "--side", "32", "--images", "1"]
    assert gpu.main([*options, "--repeat", "1", "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert [row["method"] for row in written["parity"]] == ["saliency"]
    assert written["parity"][0]["difference"] == 0
    assert any(row["what"].startswith("saliency") for row in written["speed"])
    assert all(isinstance(row["ours [ms]"], float) for row in written["speed"]), written["speed"]


def test_a_difference_is_seen():
    one = {"a": torch.tensor([1.0, -4.0]), "b": [torch.tensor(2.0)]}
    other = {"a": torch.tensor([1.0, -3.0]), "b": [torch.tensor(2.0)]}
    assert gpu.difference(one, one) == 0
    assert gpu.difference(one, other) == 0.25
    assert gpu.difference(one, {"a": one["a"]}) == math.inf
    assert gpu.difference({"a": torch.tensor([math.nan])}, {"a": torch.tensor([1.0])}) == math.inf
    assert gpu.wrong({"error": "x"})
    assert gpu.wrong({"difference": 0.1})
    assert not gpu.wrong({"difference": 1e-5})
