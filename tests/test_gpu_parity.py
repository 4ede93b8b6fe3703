"""Every registered method on a GPU against the processor, on three networks; and the comparison itself."""

from __future__ import annotations

import json
import math

import pytest
import torch
from benchmarks import gpu

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


# Maps, similarity, loss surfaces and the information plane have no case yet.
NOT_COMPARED = ("representation", "training")


def test_every_registered_method_is_compared():
    kinds = {method.kind for method in registry.methods().values()} - set(NOT_COMPARED)
    assert set(registry.methods(tuple(kinds))) <= set(gpu.cases())
    assert set(gpu.subjects()) == set(NETWORKS)


def test_the_harness_runs(tmp_path):
    """The processor against itself: no difference, and both tables are written."""
    out = tmp_path / "gpu.json"
    options = ["--device", "cpu", "--only", "small sal", "--networks", "resnet18", "--side", "32", "--images", "1"]
    assert gpu.main([*options, "--repeat", "1", "--out", str(out)]) == 0
    written = json.loads(out.read_text())
    assert [row["method"] for row in written["parity"]] == ["saliency"]
    assert written["parity"][0]["difference"] == 0
    assert {row["what"] for row in written["speed"]} >= {"saliency", "lrp"}


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
