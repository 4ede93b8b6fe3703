"""Samples and held-out images hold every class, in whatever order the data set has them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import TensorDataset

from microtome import InputError, Network
from microtome.data import Dataset, Images, adapt
from microtome.surgery import compress
from microtome.surgery.channels.channel_map import channels_of
from microtome.surgery.compression import moments, refit
from microtome.surgery.held_out import Some, held_out, of_samples, sampled, split

CLASSES = 10


def turn(order: str, count: int, classes: int = CLASSES) -> Tensor:
    """Labels that come one class after another, or in turn."""
    found = torch.arange(count) % classes
    return found if order == "in turn" else found.sort().values


def images(order: str, count: int = 400) -> Dataset:
    return Images(torch.zeros(count, 1, 1, 1, dtype=torch.uint8), turn(order, count))


def labels(some: Dataset) -> list[int]:
    return [int(some[index][1]) for index in range(len(some))]


@pytest.mark.parametrize("order", ["in turn", "sorted"])
def test_a_sample_and_the_held_out_images_hold_every_class(order: str) -> None:
    data = images(order)
    training, out = split(data, None)
    assert (len(training), len(out)) == (320, 80)
    assert sorted([*training.indices, *out.indices]) == list(range(400))  # type: ignore[attr-defined]
    some = sampled(data, 40)
    for part, share in ((training, 32), (out, 8), (some, 4), (sampled(training, 40), 4)):
        assert torch.equal(torch.tensor(labels(part)).bincount(), torch.full((CLASSES,), share))
    assert labels(sampled(data, 40)) == labels(some)


@pytest.mark.parametrize("order", ["in turn", "sorted"])
def test_held_out_images_without_stored_labels_are_drawn_at_random(order: str) -> None:
    """Five classes in turn: every fifth image is of one class. Items that are read change nothing."""
    whole = turn(order, 400, 5)
    data = adapt([(torch.zeros(1, 1, 1), int(label)) for label in whole])
    mask = held_out(data)
    counts = whole[mask].bincount(minlength=5)
    assert int(mask.sum()) == 80
    assert int(counts.min()) >= 8  # of 16, by the draw
    assert data.labels is not None
    assert torch.equal(held_out(data), mask)


def test_stored_labels_are_found_through_samples_and_in_torchs_data_sets() -> None:
    whole = turn("in turn", 400)
    for data in (TensorDataset(torch.zeros(400, 1, 1, 1), whole), adapt(Some(images("in turn"), range(400)))):
        assert torch.equal(whole[held_out(data)].bincount(), torch.full((CLASSES,), 8))


@pytest.mark.parametrize("order", ["in turn", "sorted"])
def test_compress_holds_out_images_of_every_class(order: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image shows its class, as its gray level, and both steps hold out as many images of each."""
    whole = turn(order, 100, 5)
    data = Images((whole * 50).view(100, 1, 1, 1).expand(-1, -1, 6, 6).to(torch.uint8).contiguous(), whole)
    model = nn.Sequential(nn.Conv2d(1, 4, 6), nn.ReLU(), nn.Conv2d(4, 4, 1), nn.ReLU(), nn.Flatten(), nn.Linear(4, 5))
    torch.manual_seed(0)
    with torch.no_grad():
        for value in model.parameters():
            value.uniform_(0.1, 1)
    net = Network(model.eval(), (1, 6, 6))
    seen, out = moments.read_parts(net, channels_of(net.model, net.probe[:1]), data, batch=20)
    levels = torch.arange(5) * 50 / 255
    for part, share in ((seen["0/conv2d"], 16), (out["0/conv2d"], 4)):
        assert part.samples == 5 * share
        torch.testing.assert_close(part.read[0, 0, 0], levels.double().square().sum() * share, rtol=1e-5, atol=0)
    fits: list[tuple[moments.Moments, moments.Moments]] = []
    summed = refit.summed_parts
    monkeypatch.setattr(refit, "summed_parts", lambda parts: fits.append(summed(parts)) or fits[-1])
    compress(net, data, multiply_adds=0.6, batch=20)
    assert fits
    for fit, other in fits:  # each layer's outputs are a function of the class
        assert (fit.samples, other.samples) == (80, 20)
        torch.testing.assert_close(fit.read, 4 * other.read, rtol=1e-4, atol=1e-5)


def test_few_images() -> None:
    pair = images("sorted", 2)
    assert [len(part) for part in split(pair, None)] == [1, 1]
    assert [len(sampled(pair, count)) for count in (1, 2, 9)] == [1, 2, 2]
    assert split(pair, pair) == (pair, pair)
    for count in (0, 1):
        with pytest.raises(InputError):
            split(images("sorted", count), None)
    for count, out in ((0, 0), (1, 0), (2, 1), (5, 1), (9, 1), (10, 2)):
        assert int(held_out(images("sorted", count)).sum()) == out


def test_samples_belong_to_the_images_in_order() -> None:
    mask = torch.tensor([False, True, False])
    assert of_samples(mask, 6).tolist() == [False, False, True, True, False, False]
    assert of_samples(mask, 0).tolist() == of_samples(mask[:0], 0).tolist() == []
