"""Parts of a data set: a subsample, and held-out images for testing."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from microtome.data import Dataset, adapt
from microtome.data.adapters.class_numbers import classes_by_name, own_classes
from microtome.errors import InputError
from microtome.option_types import checks_types


@dataclass(frozen=True)
class Some:
    """Some items of a data set."""

    dataset: Dataset
    indices: Sequence[int]

    @property
    def classes(self) -> Sequence[str] | None:
        """Names of the data set's classes."""
        return own_classes(self.dataset)

    @property
    def classes_by_name(self) -> bool:
        """Whether a class is a network's only if it has its name."""
        return classes_by_name(self.dataset)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]


@checks_types
def sampled(dataset: Dataset, count: int) -> Some:
    """A sample of ``count`` items, or all if there are fewer: every class has its share, in any order of the items.

    The items are ordered by their labels if the data set stores labels, and one is drawn at random of each stretch of
    this order. The draw is the same at every call.

    Raises
    ------
    InputError
        The number is below 1.
    """
    if count < 1:
        raise InputError(f"at least one item was expected, got {count}.")
    return Some(dataset, _drawn(dataset, count).tolist())


def split(train: Dataset, test: Dataset | None) -> tuple[Dataset, Dataset]:
    """Training and test images; without test images a fifth of the training images is held out, see ``held_out``.

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
    out = held_out(train)
    return Some(train, (~out).nonzero()[:, 0].tolist()), Some(train, out.nonzero()[:, 0].tolist())


def held_out(dataset: Dataset) -> Tensor:
    """The mask (N,) of a fifth of the images, and of at least one of two: those that a fit does not see.

    Every class has its share, in any order of the images, see ``sampled``. The mask is the same at every call.
    """
    out = torch.zeros(len(dataset), dtype=torch.bool, device="cpu")
    out[_drawn(dataset, max(len(dataset) // 5, int(len(dataset) > 1)))] = True
    return out


def of_samples(images: Tensor, samples: int) -> Tensor:
    """The mask (samples,) of the samples of held-out images, from the mask (n,) of the images.

    Each image has equally many samples, in the order of the images.
    """
    return images[torch.arange(samples, device="cpu") * len(images) // max(samples, 1)]


def _drawn(dataset: Dataset, count: int) -> Tensor:
    """One random place in each of ``count`` stretches of about equal length of the images by label, ascending."""
    items, labels = len(dataset), _stored_labels(dataset)
    order = torch.arange(items, device="cpu") if labels is None else labels.argsort(stable=True)
    count = min(count, items)
    edges = torch.arange(count + 1, device="cpu") * items // max(count, 1)
    draws = torch.rand(count, generator=torch.Generator().manual_seed(0), dtype=torch.float64, device="cpu")
    return order[edges[:-1] + (draws * edges.diff()).long()].sort().values


def _stored_labels(dataset: Dataset) -> Tensor | None:
    """The labels that a data set stores; None where images would have to be read for them."""
    adapted = adapt(dataset)
    if not isinstance(adapted.dataset, Some):
        return adapted.stored_labels
    some = adapted.dataset
    whole = _stored_labels(some.dataset)
    return None if whole is None else whole[torch.as_tensor(some.indices, dtype=torch.int64, device="cpu")]
