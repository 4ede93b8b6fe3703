"""The small network, its images, and the tables of one pass over them."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from microtome import Network, units
from units.streaming.stored_activations import BINS, IMAGES, K, Mixed


@pytest.fixture(scope="module")
def net() -> Network:
    return Network(Mixed().double(), (2, 13, 17), mean=0.4, std=0.5, classes=["a", "b", "c"])


@pytest.fixture(scope="module")
def data() -> list[tuple[Tensor, int]]:
    torch.manual_seed(4)
    return [(torch.rand(2, 13, 17), index * 7 % 3) for index in range(IMAGES)]


@pytest.fixture(scope="module")
def top(net: Network, data: Any) -> units.TopPatches:
    return units.top_patches(net, data, k=K, bins=BINS, batch=7)
