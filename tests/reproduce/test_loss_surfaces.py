"""Loss surfaces compared: what the report says follows from the numbers, and every variant is what its name says."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from microtome.reproduce import loss_surfaces
from microtome.reproduce.loss_surfaces import NETWORKS, LossSurfaces


def _result(**changed: float) -> LossSurfaces:
    """Two seeds and one pair; the shares of negative curvature or the widths of one pair are given by name."""
    negative = {name: torch.tensor([[0.3], [0.3]]) for name in NETWORKS}
    width = {name: torch.tensor([[1.0], [1.0]]) for name in NETWORKS}
    for name, share in (("ResNet-20, skip", 0.1), ("ResNet-20, plain", 0.2)):
        negative[name][:] = share
    for name, value in changed.items():
        (negative if value < 1 else width)[name][1] = value
    return LossSurfaces(
        surfaces={}, negative=negative, width=width, accuracy={name: torch.tensor([0.9, 0.9]) for name in NETWORKS},
        source="digits", shortened=False, seconds=1.0,
    )  # fmt: skip


def test_the_order_is_counted_over_seeds_and_pairs():
    assert _result().ordered.tolist() == [[True], [True]]
    found = _result(**{"ResNet-20, skip": 0.25})
    assert found.ordered.tolist() == [[True], [False]]
    assert "holds for 1 of 2 pairs of directions (2 seeds, 1 pairs each)" in found.report()


def test_the_width_of_minima_of_small_and_large_batches_is_compared_with_their_accuracies():
    equal = "wider than that of batches of 512 (Keskar et al. 2017) for 0 of 2 pairs, equally wide for 2; "
    assert equal + "their accuracies are 90.0% and 90.0%." in _result().report()
    assert "for 1 of 2 pairs, equally wide for 1; " in _result(**{"ResNet-20, skip, batch 16": 1.5}).report()


@pytest.mark.parametrize("name", NETWORKS)
def test_a_variant_is_what_its_name_says(name):
    size = replace(loss_surfaces._QUICK, width=4)
    model = NETWORKS[name].build(size, 0)
    layers = sum(isinstance(module, nn.Conv2d | nn.Linear) for module in model.modules())
    assert str(layers) == name.split("-")[1].split(",")[0]
    assert getattr(getattr(model, "layer1", [None])[0], "skip", None) == (
        None if "Dense" in name else "plain" not in name
    )
    assert NETWORKS[name].batch == (int(name.split("batch ")[1]) if "batch" in name else 128)
    drawn = {"Glorot": "glorot", "orthogonal": "orthogonal", "std .01": "small"}
    assert NETWORKS[name].initial == drawn.get(name.split(", ")[-1], "")


def test_the_whole_comparison_runs_and_goes_on_where_it_was(tmp_path, monkeypatch):
    small = replace(loss_surfaces._QUICK, images=60, width=2, epochs=1, pairs=1, steps=3, looked_at=20)
    monkeypatch.setattr(loss_surfaces, "_QUICK", small)
    kept = {name: NETWORKS[name] for name in [*NETWORKS][:2]}
    kept |= {name: NETWORKS[name] for name in NETWORKS if "batch" in name}
    kept["ResNet-56, plain"] = NETWORKS["ResNet-20, plain, Glorot"]  # stands in: 56 layers take longer
    monkeypatch.setattr(loss_surfaces, "NETWORKS", kept)
    said: list[str] = []
    first = loss_surfaces.loss_surfaces(out=tmp_path, say=said.append)
    again = loss_surfaces.loss_surfaces(out=tmp_path)
    assert len(said) == len(kept)
    for name in kept:
        assert torch.equal(first.negative[name], again.negative[name])
        assert torch.equal(first.width[name], again.width[name])
    assert LossSurfaces.load(tmp_path / "loss-surfaces.safetensors").width["ResNet-20, skip"].shape == (1, 1)
    assert (tmp_path / "loss-surfaces.png").stat().st_size > 10_000
