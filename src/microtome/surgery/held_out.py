"""Parts of a data set: a subsample, and held-out images for testing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from microtome.data import Dataset
from microtome.errors import InputError
from microtome.option_types import checks_types


@dataclass(frozen=True)
class Some:
    """Some items of a data set."""

    dataset: Dataset
    indices: Sequence[int]

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]


@checks_types
def sampled(dataset: Dataset, count: int) -> Some:
    """A sample of ``count`` items, or all if there are fewer: one of each stretch of the data set, at random.

    So a sample of a data set in the order of its classes holds all classes, and so does one of a data set whose
    items come in turn from each class. The draw is the same at every call.

    Raises
    ------
    InputError
        The number is below 1.
    """
    if count < 1:
        raise InputError(f"at least one item was expected, got {count}.")
    return Some(dataset, _one_of_each_stretch(len(dataset), count))


def split(train: Dataset, test: Dataset | None) -> tuple[Dataset, Dataset]:
    """Training and test images; without test images one of every five training images is held out, at random.

    Raises
    ------
    InputError
        When there are not enough images.
    """
    if not len(train):
        raise InputError("the training set is empty.")
    if test is not None:
        return train, test
    if len(train) < 2:
        raise InputError("one image is not enough for training and testing; give test images.")
    held_out = _one_of_each_stretch(len(train), max(1, len(train) // 5))
    rest = sorted({*range(len(train))} - {*held_out})
    return Some(train, rest), Some(train, held_out)


def _one_of_each_stretch(items: int, count: int) -> list[int]:
    """One random place in each of ``count`` stretches of about equal length, in ascending order."""
    count = min(count, items)
    edges = torch.arange(count + 1, device="cpu") * items // max(count, 1)
    draws = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu")
    places: list[int] = (edges[:-1] + (draws * edges.diff()).long()).tolist()
    return places
