"""Labels by class: the best detector is found, chance gets none."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microtome import InputError, Network, units


def _table(values: torch.Tensor, labels: list[int], classes: list[str] | None = None) -> units.LayerPatches:
    """Top patches of units whose activation on image i is ``values[i]``."""
    net = Network(nn.Sequential(nn.Flatten(), nn.Identity()), (1, 1, values.shape[1]), classes=classes)
    data = [(row.view(1, 1, -1), label) for row, label in zip(values, labels, strict=True)]
    return units.top_patches(net, data, "0")["0"]


def test_precision_and_recall_by_counting() -> None:
    """Oracle: all thresholds and classes counted one by one."""
    generator = torch.Generator().manual_seed(0)
    labels = [i % 3 for i in range(90)]
    values = 0.4 * torch.rand(90, 3, generator=generator)
    for i, label in enumerate(labels):
        values[i, label] += 0.3 + 0.2 * float(torch.rand(1, generator=generator))
    found = units.class_labels(_table(values, labels))
    for unit in range(3):
        assert int(found.index[unit]) == unit
        above = values[:, unit] >= float(found.threshold[unit])
        of_class = torch.tensor(labels) == unit
        hits = int((above & of_class).sum())
        assert float(found.precision[unit]) == pytest.approx(hits / int(above.sum()))
        assert float(found.recall[unit]) == pytest.approx(hits / 30)
        best = max(
            2 * int(((values[:, unit] >= t) & of_class).sum()) / (int((values[:, unit] >= t).sum()) + 30)
            for t in values[:, unit].tolist()
        )
        mine = 2 * hits / (int(above.sum()) + 30)
        assert best - 0.06 <= mine <= best + 1e-9  # the thresholds are the 32 edges of the histogram
        assert found.label(unit) == f"class {unit} (precision {hits / int(above.sum()):.2f}, recall {hits / 30:.2f})"
    assert "precision" in str(found.table())
    with pytest.raises(InputError, match="units 0 to 2"):
        found.label(3)


def test_chance_gets_no_label() -> None:
    """Of 200 units that know nothing of the classes, at most 1 % may be labelled."""
    values = torch.rand(120, 200, generator=torch.Generator().manual_seed(1))
    found = units.class_labels(_table(values, [i % 4 for i in range(120)]))
    assert sum(bool(label) for label in found.labels) <= 2


def test_without_labels_there_is_no_class() -> None:
    net = Network(nn.Sequential(nn.Flatten(), nn.Identity()), (1, 1, 2))
    images = list(torch.rand(20, 1, 1, 2, generator=torch.Generator().manual_seed(2)))
    found = units.class_labels(units.top_patches(net, images, "0")["0"])
    assert found.labels == ("", "")
    assert found.index.tolist() == [-1, -1]
