"""What every test stands on: one thread, and peers that can be imported beside a CPU build of torch."""

from __future__ import annotations

import os

os.environ.setdefault("MPLBACKEND", "Agg")
os.environ.setdefault("HF_HUB_OFFLINE", "1")
os.environ.pop("COLUMNS", None)  # commands would fit their lines to it

import pytest
import torch

from oracles import torchvision_schemas

torchvision_schemas.define()
torch.set_num_threads(1)  # the same sums in the same order on every machine


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest tests: at the end, all but one process would wait for them."""
    items.sort(key=lambda item: item.get_closest_marker("first") is None)
