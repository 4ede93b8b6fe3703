"""A data set in memory: shapes, labels, subsets, samples, other channels and sizes."""

from __future__ import annotations

import resource

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional

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


def test_a_long_strip_is_scaled_where_it_is_kept_only():
    """The same pixels as scaling the whole strip; 3 x 2 x 5000 at 224 would fill 1.5 GB for each image."""
    for shape, target in (((2, 3, 2, 60), (3, 8, 8)), ((2, 1, 60, 3), (1, 8, 9)), ((1, 3, 40, 900), (3, 12, 10))):
        strips = torch.randint(256, shape, dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
        found = data.Images(strips).fit(target).pixels.float()
        h, w = shape[2:]
        scale = max(target[1] / h, target[2] / w)
        size = (round(h * scale), round(w * scale))
        whole = functional.interpolate(strips.float(), size=size, mode="bilinear", antialias=True)
        top, left = (size[0] - target[1]) // 2, (size[1] - target[2]) // 2
        kept = whole[..., top : top + target[1], left : left + target[2]]
        assert float((found - kept).abs().max()) <= 0.51  # rounding to bytes
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    long = data.Images(torch.zeros((8, 3, 2, 5000), dtype=torch.uint8)).fit((3, 224, 224))
    assert long.shape == (3, 224, 224)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB; the whole would take 12 GB


def test_a_mask_chooses_images_and_fractions_are_refused(shades):
    """Read as numbers, a mask would give images 0 and 1 over and over."""
    mask = shades.labels == 3
    assert torch.equal(shades.subset(mask).pixels, shades.pixels[mask])
    assert set(shades.subset(mask.tolist()).labels.tolist()) == {3}
    for wrong in ([0.5], mask[:9], "a", [[1]], 5):
        with pytest.raises(InputError, match="image numbers"):
            shades.subset(wrong)
    with pytest.raises(InputError, match="in 0 to 255, got -1"):
        shades.subset([-1, 3])


def test_labels_are_whole_numbers_one_for_each_image(shades):
    pixels = shades.pixels[:4]
    for wrong in (torch.rand(4), torch.ones(4, dtype=torch.bool), torch.zeros(4, 1, dtype=torch.int64)):
        with pytest.raises(InputError, match="labels are expected as a tensor of whole numbers"):
            data.Images(pixels, wrong)
    with pytest.raises(InputError, match="labels are expected as a tensor, got list"):
        data.Images(pixels, [0, 1, 2, 3])
    with pytest.raises(InputError, match="pixels are expected as a tensor, got ndarray"):
        data.Images(pixels.numpy())
    with pytest.raises(InputError, match="input_shape: expected channels, height and width"):
        shades.fit((1, 0, 4))
