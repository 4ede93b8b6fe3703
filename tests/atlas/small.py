"""A small network and its images as files of a user, for the tests of the atlas and of the commands."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from PIL import Image

from microtome.atlas import BUDGETS
from microtome.atlas.widgets import Absent, Section, Widget

W = TypeVar("W", bound="Widget | Absent")

MODULE = '''
import torch
from torch import nn
from torch.nn import functional as F


class Small(nn.Module):
    """Two convolutions, one of them behind a functional relu, on 12 x 10 pixels."""

    def __init__(self):
        super().__init__()
        self.one = nn.Conv2d(1, 4, 3, padding=1)
        self.two = nn.Conv2d(4, 6, 3, padding=1)
        self.head = nn.Linear(6 * 3 * 2, 3)

    def forward(self, x):
        x = F.max_pool2d(F.relu(self.one(x)), 2)
        x = F.max_pool2d(F.relu_(self.two(x)), 2)
        return self.head(x.flatten(1))


def build():
    return Small()


def averaged():
    class Averaged(Small):
        """A head on global averages, as class activation maps ask for."""

        def __init__(self):
            super().__init__()
            self.head = nn.Linear(6, 3)

        def forward(self, x):
            return self.head(F.relu(self.two(F.relu(self.one(x)))).mean((2, 3)))

    return Averaged()


def raises():
    raise RuntimeError("no such file: backbone.ckpt")


def nothing():
    return {"weights": 1}


def broken():
    model = Small()
    model.two.weight.data[0, 0, 0, 0] = float("nan")
    return model


def picky():
    class Picky(Small):
        def forward(self, x):
            raise ValueError("I take 7 channels")

    return Picky()
'''

SHAPE = "1,12,10"

TINY = dataclasses.replace(
    BUDGETS["quick"],
    name="tiny",
    stimulus_steps=2,
    class_steps=2,
    images=3,
    occlusion_windows=3,
    sample_images=6,
    patches=3,
    bins=2,
)


def write(folder: Path, pictures: int = 9) -> None:
    """Write the module and a folder of pictures with three class folders, not square."""
    (folder / "nets.py").write_text(MODULE)
    numbers = np.random.default_rng(0)
    for index in range(pictures):
        place = folder / "images" / f"class{index % 3}"
        place.mkdir(parents=True, exist_ok=True)
        picture = numbers.integers(0, 255, (12, 10), dtype=np.uint8)
        picture[:, 3 * (index % 3) : 3 * (index % 3) + 3] //= 4
        Image.fromarray(picture).save(place / f"{index:02d}.png")


def shown(sections: Iterable[Section], kind: type[W]) -> list[W]:
    """What sections show of one kind, in order."""
    return [part.content for section in sections for part in section.parts if isinstance(part.content, kind)]


def contents(folder: Path) -> dict[str, str]:
    """Every file below a folder with the digest of its bytes."""
    return {
        file.relative_to(folder).as_posix(): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


def save_weights(path: Path, change: dict[str, torch.Tensor] | None = None) -> None:
    """Weights of the small network, some of them exchanged; None leaves one out."""
    from microtome.loading import own_model

    state = own_model.build("nets:build").state_dict()
    for name, value in (change or {}).items():
        if value is None:
            del state[name]
        else:
            state[name] = value
    torch.save(state, path)
