"""The networks that are trained by name reach what is promised of them."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
import torch

from microtome import data, training, zoo


def write_idx(path: Path, array: np.ndarray) -> None:
    path.write_bytes(struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape) + array.tobytes())


@pytest.mark.slow
def test_simple_conv_net_reaches_99_percent_on_the_test_digits(tmp_path):
    trained = training.train_network("simple-convnet", "mnist", out=tmp_path)
    assert trained.test_accuracy >= 0.99
    loaded = zoo.build("simple-convnet", weights=trained.weights)
    _, accuracy = training.evaluate(loaded, data.mnist("test"), mean=0.1307, std=0.3081)
    assert accuracy == trained.test_accuracy


def test_a_network_trained_by_name_leaves_its_weights(tmp_path):
    """On 300 + 60 random images of its own, as idx files."""
    rng = np.random.default_rng(0)
    for name, count in (("train", 300), ("t10k", 60)):
        write_idx(tmp_path / f"{name}-images-idx3-ubyte", rng.integers(0, 256, (count, 28, 28), dtype=np.uint8))
        write_idx(tmp_path / f"{name}-labels-idx1-ubyte", rng.integers(0, 10, count).astype(np.uint8))
    seen = []
    trained = training.train_network(
        "fcnn1", "fashion-mnist", folder=tmp_path, out=tmp_path / "run", epochs=2, seed=3, progress=seen.append
    )
    assert len(trained.run) == 2
    assert len(seen) == 2 * 5  # 300 images, 64 a step
    assert (trained.recipe.mean, trained.recipe.std) == (0.2860, 0.3530)
    loaded = zoo.build("fcnn1", weights=trained.weights)
    assert torch.equal(loaded.fc.weight, trained.model.fc.weight)
    assert not torch.equal(loaded.fc.weight, zoo.fcnn1(seed=3).fc.weight)
    test = data.fashion_mnist("test", folder=tmp_path)
    assert training.evaluate(loaded, test, mean=0.2860, std=0.3530) == (trained.test_loss, trained.test_accuracy)
