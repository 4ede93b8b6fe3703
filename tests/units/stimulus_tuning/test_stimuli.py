"""Stimuli: what the parameters say is what the pictures show, measured on the pixels."""

from __future__ import annotations

import math

import pytest
import torch

from microtome.errors import InputError
from microtome.units.stimulus_tuning import stimuli


def _coordinates(size):
    """Columns to the right, rows upwards, from the middle; written out, sharing nothing with the renderer."""
    y = torch.tensor([[(size - 1) / 2 - i for _ in range(size)] for i in range(size)], dtype=torch.float64)
    return -y.T, y  # to the right as rows go down


def _moments_angle(image):
    """Orientation of the long axis of a picture's brightness, degrees in [0, 180): second moments."""
    x, y = _coordinates(image.shape[-1])
    w = image.double() / image.double().sum()
    xx, yy, xy = (w * x * x).sum(), (w * y * y).sum(), (w * x * y).sum()
    return math.degrees(0.5 * math.atan2(2 * float(xy), float(xx - yy))) % 180


def _apart(a, b, period):
    return abs((a - b + period / 2) % period - period / 2)


def test_the_angle_of_a_line_is_that_of_its_second_moments():
    """Independent: moments know nothing of how a line is drawn. A square window pulls odd angles by a few degrees."""
    shown = stimuli.bars(41, widths=[2], offsets=[0], polarities=[1])
    disc = (sum(c.square() for c in _coordinates(41)) <= 20**2).double()  # a round window pulls nowhere
    for index in range(len(shown)):
        assert _apart(_moments_angle(shown.images[index, 0] * disc), float(shown.angle[index]), 180) < 1.0


def test_forty_five_degrees_rises_from_bottom_left_to_top_right():
    shown = stimuli.bars(9, angles=4, widths=[1], offsets=[0], polarities=[1])
    rising = shown.images[shown.angle == 45][0, 0]
    assert rising[8, 0] > 0.9
    assert rising[0, 8] > 0.9
    assert rising[0, 0] == 0
    assert rising[8, 8] == 0


@pytest.mark.parametrize("direction", [0.0, 45.0, 90.0, 180.0, 225.0, 270.0])
def test_side_points_from_bright_to_dark(direction):
    """The centroid of the dark half lies in the direction of ``side``."""
    shown = stimuli.edges(21, angles=4, offsets=[0])
    image = shown.images[shown.side == direction][0, 0].double()
    x, y = _coordinates(21)
    dark = (1 - image) / (1 - image).sum()
    assert _apart(math.degrees(math.atan2(float((dark * y).sum()), float((dark * x).sum()))), direction, 360) < 1e-6


def test_the_right_side_is_bright_on_the_left():
    shown = stimuli.edges(8, angles=2, offsets=[0])
    right = shown.images[shown.side == 0][0, 0]
    assert right[:, :4].min() == 1
    assert right[:, 4:].max() == 0


@pytest.mark.parametrize("family", [stimuli.corners, stimuli.curves])
def test_corners_and_curves_point_where_they_say(family):
    """A corner's body and a curve's arms lie opposite to where it points: the centroid says so."""
    shown = family(33, polarities=(1,))
    x, y = _coordinates(33)
    disc = x.square() + y.square() <= 16**2  # a square window would pull diagonal arms
    for index in range(len(shown)):
        w = shown.images[index, 0].double() * disc
        across, up = float((w * x).sum()), float((w * y).sum())
        assert _apart(math.degrees(math.atan2(-up, -across)), float(shown.side[index]), 360) < 3


def test_width_and_offset_are_pixels():
    shown = stimuli.bars(20, angles=2, widths=[1.5, 4], offsets=[3], polarities=[1])
    horizontal = shown.images[(shown.angle == 0) & (shown.width == 4)][0, 0]
    assert torch.allclose(horizontal.sum(0), torch.full((20,), 4.0))
    rows = torch.arange(20.0)
    assert math.isclose(float((horizontal[:, 0] * (9.5 - rows)).sum() / 4), 3.0, rel_tol=1e-6)  # up is positive
    thin = shown.images[(shown.angle == 90) & (shown.width == 1.5)][0, 0]
    assert torch.allclose(thin.sum(1), torch.full((20,), 1.5))
    columns = torch.arange(20.0) - 9.5
    assert math.isclose(float((thin[0] * columns).sum() / 1.5), -3.0, rel_tol=1e-6)  # left of its direction


def test_a_grating_has_its_period_and_stripes_along_its_angle():
    shown = stimuli.gratings(32, angles=4, periods=[8], phases=(0,))
    image = shown.images[shown.angle == 90][0, 0]
    assert torch.allclose(image, image[:1].expand(32, 32))  # vertical stripes: all rows alike
    spectrum = torch.fft.rfft(image[0] - image[0].mean()).abs()
    assert int(spectrum.argmax()) == 32 // 8


def test_blobs_have_their_diameter():
    shown = stimuli.blobs(31, widths=[5, 12], polarities=(1,))
    for image, width in zip(shown.images, shown.width, strict=True):
        assert math.isclose(float(image.sum()), math.pi * float(width) ** 2 / 4, rel_tol=0.05)


def test_polarity_turns_the_picture_into_its_negative():
    shown = stimuli.bars(12, angles=3, widths=[2], offsets=[1])
    bright, dark = shown.images[shown.polarity == 1], shown.images[shown.polarity == -1]
    assert torch.allclose(bright + dark, torch.ones_like(bright))


def test_standard_holds_every_family_in_range_and_is_antialiased():
    shown = stimuli.standard((28, 20), channels=3)
    assert set(shown.family) == set(stimuli.FAMILIES)
    assert shown.images.shape == (len(shown), 3, 28, 20)
    assert float(shown.images.min()) >= 0
    assert float(shown.images.max()) <= 1
    between = (shown.images > 0.02) & (shown.images < 0.98)
    assert all(bool(between[index].any()) for index in range(len(shown)) if float(shown.angle[index]) % 90 > 1)
    assert torch.equal(shown.images[:, 0], shown.images[:, 2])
    counts = [int(shown.mask(name).sum()) for name in stimuli.FAMILIES]
    assert min(counts) > 0
    assert sum(counts) == len(shown)


def test_stimuli_survive_saving(tmp_path):
    shown = stimuli.bars(9)
    shown.save(tmp_path / "bars.safetensors")
    again = stimuli.Stimuli.load(tmp_path / "bars.safetensors")
    assert torch.equal(again.images, shown.images)
    assert again.family == shown.family


@pytest.mark.parametrize(
    "make",
    [
        lambda: stimuli.bars(2),
        lambda: stimuli.bars(28, widths=[0]),
        lambda: stimuli.bars(28, angles=0),
        lambda: stimuli.bars(28, offsets=[]),
        lambda: stimuli.edges(28, channels=0),
        lambda: stimuli.joined([stimuli.bars(8), stimuli.bars(9)]),
    ],
)
def test_what_cannot_be_drawn_is_an_input_error(make):
    with pytest.raises(InputError):
        make()
