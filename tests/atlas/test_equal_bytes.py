"""Every engine and every number of workers gives the same bytes, on a small photo network.

On photos a sum over several threads is rounded in another order than a sum in one thread. The driver of these runs has
two threads, its workers whatever they begin with.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from atlas import small
from microtome.atlas import build
from microtome.atlas.atlas_run import _usual_engine
from microtome.atlas.engine import one_thread
from microtome.loading import RunConfig

MODULE = '''
import torch
from torch import nn
from torch.nn import functional as F


class Photos(nn.Module):
    """A residual block, parallel branches and a gate, on 72 x 80 pixels in colour."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 8, 5, 2, 2)
        self.norm = nn.BatchNorm2d(8)
        self.body = nn.Conv2d(8, 8, 3, padding=1)
        self.left, self.right = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 3, padding=1)
        self.gate = nn.Linear(8, 8)
        self.head = nn.Linear(8, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.norm(self.stem(x))), 2)
        x = x + F.relu(self.body(x))
        x = torch.cat([F.relu(self.left(x)), F.relu(self.right(x))], 1)
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        return self.head(x.mean((2, 3)))


def build():
    return Photos()
'''

SIZE = dataclasses.replace(small.TINY, images=1, classes=1)


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RunConfig]:
    (tmp_path / "photo_nets.py").write_text(MODULE)
    numbers = np.random.default_rng(0)
    for index in range(6):
        place = tmp_path / "photos" / f"kind{index % 3}"
        place.mkdir(parents=True, exist_ok=True)
        coarse = Image.fromarray(numbers.integers(0, 255, (8, 9, 3), dtype=np.uint8))
        coarse.resize((80, 72), Image.Resampling.BICUBIC).save(place / f"{index}.png")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    sys.modules.pop("photo_nets", None)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    yield RunConfig("photo_nets:build", input_shape=(3, 72, 80), data="photos")
    torch.set_num_threads(threads)


def built(config: RunConfig, out: str, engine: str, workers: int | None = None) -> dict[str, str]:
    build(config, out, size=SIZE, layers=["stem", "right"], engine=engine, workers=workers)
    return small.contents(Path(out))


def test_processes_give_the_bytes_of_the_driver(photos: RunConfig) -> None:
    here = built(photos, "here", "inline")
    assert torch.get_num_threads() == 2  # as found
    assert len(here) > 100
    assert built(photos, "two", "processes", 2) == here


@pytest.mark.slow
def test_one_and_four_workers_and_dask_give_the_same_bytes(photos: RunConfig) -> None:
    here = built(photos, "here", "inline")
    assert built(photos, "one", "processes", 1) == here
    assert built(photos, "four", "processes", 4) == here
    pytest.importorskip("distributed")
    assert built(photos, "dask", "dask", 2) == here


def test_inside_a_task_there_is_one_thread(photos: RunConfig) -> None:
    with one_thread():
        assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == 2
    with pytest.raises(ZeroDivisionError), one_thread():
        raise ZeroDivisionError
    assert torch.get_num_threads() == 2


def test_several_cores_are_used_by_several_processes(photos: RunConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microtome.atlas.atlas_run.available_cores", lambda: 8)
    assert _usual_engine(photos) == "processes"
    assert _usual_engine(dataclasses.replace(photos, device="cuda")) == "inline"  # one GPU, one process
    monkeypatch.setattr("microtome.atlas.atlas_run.available_cores", lambda: 1)
    assert _usual_engine(photos) == "inline"
