"""Samples and held-out images hold every class, in whatever order the data set has them."""

from __future__ import annotations

import pytest
import torch

from microtome import InputError
from microtome.data import Dataset, Images
from microtome.surgery.held_out import sampled, split

CLASSES = 10


def images(order: str, count: int = 400) -> Dataset:
    """Images whose labels come one class after another, or in turn."""
    turn = torch.arange(count) % CLASSES
    return Images(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), turn if order == "in turn" else turn.sort().values)


def labels(some: Dataset) -> list[int]:
    return [int(some[index][1]) for index in range(len(some))]


@pytest.mark.parametrize("order", ["in turn", "sorted"])
def test_a_sample_and_the_held_out_images_hold_every_class(order: str) -> None:
    data = images(order)
    training, held_out = split(data, None)
    assert (len(training), len(held_out)) == (320, 80)
    assert sorted([*training.indices, *held_out.indices]) == list(range(400))  # type: ignore[attr-defined]
    some = sampled(data, 40)
    assert len(some) == 40
    for part in (training, held_out, some):
        assert len(set(labels(part))) >= CLASSES - 1  # one may be missing by chance
    assert labels(sampled(data, 40)) == labels(some)


def test_few_images() -> None:
    pair = images("sorted", 2)
    assert [len(part) for part in split(pair, None)] == [1, 1]
    assert [len(sampled(pair, count)) for count in (1, 2, 9)] == [1, 2, 2]
    assert split(pair, pair) == (pair, pair)
    for count in (0, 1):
        with pytest.raises(InputError):
            split(images("sorted", count), None)
