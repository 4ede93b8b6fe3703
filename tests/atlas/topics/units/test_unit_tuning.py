"""Labels of units on pages: a number says what it is of, or is not shown."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from microtome.atlas.topics.units import unit_tuning
from microtome.units.stimulus_tuning.labels import NOT_SELECTIVE


def test_only_labels_that_are_compared_with_random_units_have_their_share(monkeypatch: pytest.MonkeyPatch) -> None:
    labels = ("line at 45°", "brightness", NOT_SELECTIVE)
    tuning = SimpleNamespace(
        labels=labels,
        label=labels.__getitem__,
        kind=("line", "brightness", ""),
        confidence=torch.tensor([1.0, 0.16, 0.5]),
    )
    monkeypatch.setattr(unit_tuning, "layer_tuning", lambda *_: tuning)
    assert [unit_tuning.confidence(None, "conv", unit) for unit in range(4)] == [1.0, None, None, None]
