"""Is the tag where it is said to be, and does it tell the class as often as it is said to?"""

from __future__ import annotations

import pytest
import torch

from microtome import InputError, data


def blank(count: int = 4000, classes: int = 10, shape: tuple[int, int, int] = (1, 28, 28)) -> data.Images:
    labels = torch.arange(count) % classes
    return data.Images(torch.full((count, *shape), 10, dtype=torch.uint8), labels, [str(c) for c in range(classes)])


def test_the_tag_lies_under_its_mask_and_nowhere_else():
    planted = data.with_shortcut(blank(50), agreement=0.5, tell="place", value=0.8)
    pixels = planted.images.pixels[:, 0]
    assert (pixels[planted.masks] == 204).all()
    assert (pixels[~planted.masks] == 10).all()
    assert planted.masks.flatten(1).sum(1).unique().tolist() == [16]


def test_every_class_has_a_place_of_its_own():
    planted = data.with_shortcut(blank(10), agreement=1.0, tell="place")
    assert planted.tags.tolist() == planted.images.labels.tolist() == list(range(10))
    assert int(planted.masks.long().sum(0).max()) == 1  # no two tags share a pixel
    inner = planted.masks[:, 4:-4]
    assert not bool(inner.any())  # MNIST's margin of four pixels


def test_the_place_is_that_of_the_tag_not_of_the_label():
    places = data.with_shortcut(blank(10), agreement=1.0, tell="place").masks
    wrong = data.with_shortcut(blank(100), agreement=0.0, tell="place")
    assert torch.equal(wrong.masks, places[wrong.tags])
    assert not bool((wrong.tags == wrong.images.labels).any())


@pytest.mark.parametrize("agreement", [0.0, 0.1, 0.7, 1.0])
def test_the_tag_agrees_as_often_as_asked(agreement):
    """Binomial: four standard errors of 4,000 draws."""
    planted = data.with_shortcut(blank(), agreement=agreement, tell="place", seed=3)
    found = float((planted.tags == planted.images.labels).double().mean())
    assert abs(found - agreement) <= 4 * (agreement * (1 - agreement) / 4000) ** 0.5
    wrong = planted.tags[planted.tags != planted.images.labels]
    if len(wrong):
        counts = torch.bincount(wrong, minlength=10).double() / len(wrong)
        assert float((counts - 0.1).abs().max()) < 4 * (0.09 / len(wrong)) ** 0.5 + 1e-9


def test_one_in_as_many_as_classes_says_nothing():
    """Whatever the class, each tag is as frequent: the table of both is flat."""
    planted = data.with_shortcut(blank(20_000), agreement=0.1, tell="place")
    table = torch.zeros(10, 10).index_put((planted.images.labels, planted.tags), torch.ones(20_000), accumulate=True)
    assert float((table / 200 - 1).abs().max()) < 5 * (0.9 / 200) ** 0.5


def test_a_pattern_tells_the_class_and_its_place_nothing():
    planted = data.with_shortcut(blank(10), agreement=1.0)
    assert torch.equal(planted.masks, planted.masks[:1].expand(10, -1, -1))
    assert planted.masks[0].nonzero().amax(0).tolist() == [5, 5]
    bright = planted.images.pixels[:, 0] == 255
    assert not bool((bright & ~planted.masks).any())
    assert bright.flatten(1).sum(1).unique().tolist() == [16]  # four cells of two by two pixels
    assert len({tuple(one.flatten().tolist()) for one in bright}) == 10
    wrong = data.with_shortcut(blank(100), agreement=0.0)
    assert torch.equal(wrong.images.pixels[:, 0] == 255, bright[wrong.tags])


def test_seed_colour_and_batches():
    images = blank(8, classes=2, shape=(3, 12, 12))
    one, same, other = (
        data.with_shortcut(images, agreement=0.5, tell="place", seed=seed).tags.tolist() for seed in (0, 0, 3)
    )
    assert one == same != other
    red = data.with_shortcut(images, agreement=1.0, tell="place", size=2, value=(1.0, 0.0, 0.0))
    assert red.images.pixels[0, :, 0, 0].tolist() == [255, 0, 0]
    (_, first, labels), *_ = data.batches(red, 4)
    assert torch.equal(first, red.images.images[:4])
    assert labels.tolist() == [0, 1, 0, 1]


def test_what_does_not_fit_is_refused():
    with pytest.raises(InputError, match="do not fit"):
        data.with_shortcut(blank(4), agreement=1.0, tell="place", size=6)
    with pytest.raises(InputError, match="multiple of 3"):
        data.with_shortcut(blank(4), agreement=1.0, size=4)
    with pytest.raises(InputError, match="pattern or place"):
        data.with_shortcut(blank(4), agreement=1.0, tell="smell")
    with pytest.raises(InputError, match="probability"):
        data.with_shortcut(blank(4), agreement=1.5, tell="place")
    with pytest.raises(InputError, match="label"):
        data.with_shortcut(data.Images(torch.zeros(2, 1, 28, 28, dtype=torch.uint8)), agreement=1.0, tell="place")
    with pytest.raises(InputError, match="value"):
        data.with_shortcut(blank(4), agreement=1.0, tell="place", value=(0.1, 0.2))
