"""A data set in memory: shapes, labels, subsets, samples, other channels and sizes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from microtome import data
from microtome.errors import InputError


@pytest.fixture
def shades() -> data.Images:
    """256 gray pictures of 4 x 6, one of each byte, labels 0, 0, 1, 1, 2, 2, ..., 9 and then 9 for all the rest."""
    pixels = torch.arange(256, dtype=torch.uint8).view(-1, 1, 1, 1).expand(-1, 1, 4, 6).contiguous()
    return data.Images(pixels, (torch.arange(256) // 2).clamp(max=9), tuple("0123456789"))


def test_floats_are_the_bytes_over_255_and_back(shades):
    assert shades.images.dtype == torch.float32
    assert torch.equal(shades.images[:, 0, 0, 0], torch.arange(256) / 255)
    assert torch.equal(data.Images.from_float(shades.images).pixels, shades.pixels)


def test_items_fetch_and_batches_agree(shades):
    image, label = shades[201]
    fetched, labels = shades.fetch(torch.tensor([3, 201]))
    assert torch.equal(fetched[1], image)
    assert labels.tolist() == [1, label]
    seen = [(i, x, y) for indices, xs, ys in data.batches(shades, 100) for i, x, y in zip(indices, xs, ys, strict=True)]
    assert [int(i) for i, _, _ in seen] == list(range(256))
    assert all(torch.equal(x, shades[int(i)][0]) and int(y) == shades[int(i)][1] for i, x, y in seen)


def test_items_end_so_that_iteration_stops(shades):
    assert len(list(shades)) == 256


def test_subset_keeps_labels_and_names(shades):
    chosen = shades.subset([250, 3])
    assert chosen.pixels[:, 0, 0, 0].tolist() == [250, 3]
    assert chosen.labels.tolist() == [9, 1]
    assert chosen.names == ("250", "003")
    with pytest.raises(InputError, match="0 to 255"):
        shades.subset([256])


def test_sample_is_even_over_the_classes_and_repeatable(shades):
    sample = shades.sample(25, seed=3)
    assert sample.labels.bincount().tolist() == [2] * 9 + [7]  # nine classes have two pictures each
    assert shades.sample(10, seed=3).labels.tolist() == list(range(10))
    assert sample.names == shades.sample(25, seed=3).names
    assert sample.names != shades.sample(25, seed=4).names
    assert list(sample.names) == sorted(sample.names)
    assert len(shades.sample(1000)) == 256


def test_gray_becomes_rgb_and_rgb_its_luma_as_pillow_has_it():
    rng = np.random.default_rng(0)
    colours = rng.integers(0, 256, (5, 4, 3), dtype=np.uint8)
    images = data.Images(torch.from_numpy(colours).permute(2, 0, 1)[None].contiguous())
    gray = images.fit((1, 5, 4))
    expected = np.asarray(Image.fromarray(colours).convert("L")).astype(int)
    # Pillow rounds its fixed-point luma, we round the float one: they differ by one level at most.
    assert np.abs(gray.pixels[0, 0].numpy().astype(int) - expected).max() <= 1
    again = gray.fit((3, 5, 4)).pixels[0]
    assert torch.equal(again, gray.pixels[0].expand(3, -1, -1))


def test_fit_covers_the_target_and_cuts_its_centre():
    ramp = torch.arange(60, dtype=torch.uint8).view(1, 1, 1, 60).expand(1, 1, 30, 60).contiguous()
    fitted = data.Images(ramp).fit((1, 10, 14))
    assert fitted.shape == (1, 10, 14)
    # 30 x 60 scales by 1/3 to 10 x 20, of which columns 3 to 16 stay: column j averages source columns around 3 j + 10.
    assert np.abs(fitted.pixels[0, 0, 5].numpy() - (3 * np.arange(14) + 10)).max() <= 1


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: data.Images(torch.zeros(2, 1, 3, 3)), "uint8"),
        (lambda: data.Images(torch.zeros(1, 3, 3, dtype=torch.uint8)), "N, C, H, W"),
        (lambda: data.Images(torch.zeros(2, 1, 1, 1, dtype=torch.uint8), torch.tensor([0])), "2 images came with 1"),
        (lambda: data.Images(torch.zeros(1, 1, 1, 1, dtype=torch.uint8), torch.tensor([2]), ("a", "b")), "label 2"),
        (lambda: data.Images.from_float(torch.full((1, 1, 1, 1), 1.5)), r"\[0, 1\]"),
        (lambda: data.Images.from_float(torch.full((1, 1, 1, 1), float("nan"))), r"\[0, 1\]"),
        (lambda: data.Images(torch.zeros(1, 2, 4, 4, dtype=torch.uint8)).fit((3, 4, 4)), "2 channels"),
    ],
)
def test_what_does_not_fit_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
