"""Parts of a data set: a subsample, and held-out images for testing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from microtome.data import Dataset
from microtome.errors import InputError
from microtome.option_types import checks_types


@dataclass(frozen=True)
class Some:
    """Some items of a data set."""

    dataset: Dataset
    indices: range

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]


@checks_types
def sampled(dataset: Dataset, count: int) -> Some:
    """About this number of items, evenly spread.

    Raises
    ------
    InputError
        The number is below 1.
    """
    if count < 1:
        raise InputError(f"at least one item was expected, got {count}.")
    return Some(dataset, range(0, len(dataset), max(1, len(dataset) // count)))


def split(train: Dataset, test: Dataset | None) -> tuple[Dataset, Dataset]:
    """Training and test images; without test images the last fifth of the training images is held out.

    Raises
    ------
    InputError
        When there are not enough images.
    """
    if not len(train):
        raise InputError("the training set is empty.")
    if test is not None:
        return train, test
    cut = len(train) - max(1, len(train) // 5)
    if cut < 1:
        raise InputError("one image is not enough for training and testing; give test images.")
    return Some(train, range(cut)), Some(train, range(cut, len(train)))
