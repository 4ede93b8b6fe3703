"""Tuning: planted filters get their labels, noise gets none, and turning a filter turns its label."""

from __future__ import annotations

import math
import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from microtome import Network, units
from microtome.errors import InputError, LayerError
from microtome.units.stimulus_tuning import circular, labels, stimulus_responses, template_match


def _grid(size):
    """Right and up from the middle; written out, sharing nothing with the stimuli."""
    at = [i - (size - 1) / 2 for i in range(size)]
    return torch.tensor([at] * size), -torch.tensor([[v] * size for v in at])


def _across(size, angle):
    x, y = _grid(size)
    return -x * math.sin(math.radians(angle)) + y * math.cos(math.radians(angle))


def _line(size, angle):
    """A smooth ridge along ``angle``: an exponential of the distance, no band and no antialiasing."""
    ridge = torch.exp(-((_across(size, angle) / (size / 7)) ** 2))
    return ridge - ridge.mean()


def _edge(size, direction):
    """Bright, dark towards ``direction``: the derivative of a Gaussian."""
    x, y = _grid(size)
    along = x * math.cos(math.radians(direction)) + y * math.sin(math.radians(direction))
    return -along * torch.exp(-(x**2 + y**2) / (2 * (size / 3) ** 2))


def _network(filters, bias=0.0, after=None, size=28):
    conv = nn.Conv2d(filters[0].shape[0] if filters[0].dim() == 3 else 1, len(filters), filters[0].shape[-1])
    with torch.no_grad():
        conv.weight.copy_(torch.stack([f if f.dim() == 3 else f[None] for f in filters]))
        conv.bias.fill_(bias)
    model = nn.Sequential(
        conv, *([after] if after else []), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(len(filters), 2)
    )
    return Network(model, input_shape=(conv.in_channels, size, size), mean=0.1307, std=0.3081)


def _apart(a, b, period):
    return abs((a - b + period / 2) % period - period / 2)


ANGLES = list(range(0, 180, 15))


@pytest.mark.parametrize("size", [3, 5, 7, 9, 11])
def test_planted_lines_get_their_angle(size):
    """Planted truth. The stimuli are 11.25 degrees apart; the angle is found within 10, as is the one in words."""
    net = _network([*(_line(size, a) for a in ANGLES), *(-_line(size, a) for a in ANGLES)], bias=0.7)
    found = units.tuning(net, "0")
    for unit, angle in enumerate(ANGLES * 2):
        dark = unit >= len(ANGLES)
        match = re.fullmatch(
            rf"{'dark ' if dark else ''}line at (\d+)°( \(vertical\)| \(horizontal\))?", found.label(unit)
        )
        assert match, (angle, found.label(unit))
        assert _apart(float(match[1]), angle, 180) <= 10
        assert _apart(float(found.angle[unit]), angle, 180) <= 10
        assert float(found.confidence[unit]) > 0.6
    assert found.kind == ("line",) * len(found.kind)


@pytest.mark.parametrize("size", [5, 7, 9, 11])
def test_planted_edges_get_their_side(size):
    directions = list(range(0, 360, 15))
    found = units.tuning(_network([_edge(size, d) for d in directions]), "0")
    for unit, direction in enumerate(directions):
        assert found.kind[unit] == "edge", (direction, found.label(unit))
        assert _apart(float(found.direction[unit]), direction, 360) <= 10
        assert _apart(float(found.angle[unit]), direction + 90, 180) <= 10


def test_the_four_sides_in_words():
    """The right side of a vertical line is bright on the left and dark on the right."""
    right = torch.tensor([1.0, 1.0, 0.0, -1.0, -1.0]).expand(5, 5)
    found = units.tuning(_network([right, right.T, right.flip(1), right.T.flip(0)]), "0")
    assert found.labels == (
        "right side of a vertical line",
        "lower side of a horizontal line",  # bright above, dark below
        "left side of a vertical line",
        "upper side of a horizontal line",
    )
    assert found.side == ("right", "lower", "left", "upper")


@pytest.mark.parametrize("size", [5, 7, 9, 11])
def test_noise_is_not_selective(size):
    """At most 3 of 60 noise filters may get a label: the threshold is the 99th percentile of noise."""
    generator = torch.Generator().manual_seed(size)
    noise = [torch.randn(size, size, generator=generator) for _ in range(60)]
    found = units.tuning(_network(noise), "0")
    assert sum(label != labels.NOT_SELECTIVE for label in found.labels) <= 3
    assert found.angle.isnan().sum() >= 57


def test_constant_and_empty_filters():
    found = units.tuning(_network([torch.ones(5, 5), -torch.ones(5, 5), torch.zeros(5, 5)], bias=0.3), "0")
    assert found.labels == ("brightness", "darkness", labels.NOT_SELECTIVE)
    assert found.confidence.tolist() == pytest.approx([1, 1, 0])


def test_the_mean_of_a_filter_does_not_change_its_label():
    """The response is relative to a blank of equal level: on a convolution that takes the filter's mean off."""
    for shift in (-0.2, 0.2):
        shifted = units.tuning(_network([_line(7, 30) + shift, _edge(7, 90) + shift]), "0")
        plain = units.tuning(_network([_line(7, 30), _edge(7, 90)]), "0")
        assert shifted.labels == plain.labels
        assert torch.allclose(shifted.response, plain.response, atol=1e-4)


def test_blobs_gratings_and_corners():
    x, y = _grid(9)
    radius = (x**2 + y**2) / 9
    blob = (1 - radius) * torch.exp(-radius)
    wave = torch.cos(2 * math.pi * _across(9, 45) / 4) * torch.exp(-(x**2 + y**2) / 18)
    corner = torch.where((x > 0) & (y > 0), 1.0, -0.35)  # bright towards the upper right: its tip points lower left
    found = units.tuning(_network([blob - blob.mean(), blob.mean() - blob, wave - wave.mean(), corner]), "0")
    assert found.label(0).startswith("blob")
    assert found.label(1).startswith("dark blob")
    assert found.label(2) == "grating at 45°, period 4 px"
    assert found.label(3) == "corner pointing lower left"


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_turning_filters_turns_their_labels(turns):
    """Invariance: the standard stimuli turned by 90 degrees are the standard stimuli."""
    filters = [_line(7, 20), _edge(7, 300), _line(7, 135)]
    before = units.tuning(_network(filters), "0")
    after = units.tuning(_network([torch.rot90(f, turns) for f in filters]), "0")
    for unit in range(3):
        assert before.kind[unit] == after.kind[unit]
        assert _apart(float(after.angle[unit]), float(before.angle[unit]) + 90 * turns, 180) < 0.5
    assert _apart(float(after.direction[1]), float(before.direction[1]) + 90 * turns, 360) < 0.5


def test_responses_against_the_definition():
    """Oracle: sliding windows in float64, each without its own mean level; no engine, no integral image."""
    torch.manual_seed(0)
    kernels = [torch.randn(2, 5, 5) for _ in range(3)]
    net = _network(kernels, bias=0.4, size=14)
    shown = units.stimuli.standard(14, channels=2)
    found = units.tuning(net, "0", stimuli=shown)
    x = shown.images.double()
    windows = F.unfold(x, 5).reshape(len(shown), 2, 25, 100)
    level = windows.mean((1, 2), keepdim=True)  # the blank of equal level
    for unit, kernel in enumerate(kernels):
        weights = kernel.double().reshape(2, 25) / 0.3081
        expected = torch.einsum("sckp,ck->sp", windows - level, weights).amax(1)
        assert torch.allclose(found.response[unit].double(), expected, atol=2e-4)


def test_match_against_the_definition():
    """Oracle: cosine of the kernel and the crop under it, by hand."""
    kernel = _line(5, 60) + 0.1 * torch.randn(5, 5, generator=torch.Generator().manual_seed(1))
    net = _network([kernel])
    shown = units.stimuli.standard(28)
    found = units.tuning(net, "0", stimuli=shown)
    image = shown.images[int(found.best[0]), 0]
    crops = F.unfold(image[None, None], 5)[0].T
    crop = crops[int((crops @ (kernel - kernel.mean()).flatten()).argmax())]
    a, b = kernel.flatten() - kernel.mean(), crop - crop.mean()
    assert float(found.match[0]) == pytest.approx(float(a @ b / a.norm() / b.norm()), abs=1e-4)
    noise = template_match.noise_matches((5, 5), shown, 1)
    assert float(found.confidence[0]) >= float((noise < found.match[0]).float().mean()) > 0.98


def test_after_the_relu_and_after_pooling_labels_stay():
    filters = [_line(5, 45), _edge(5, 180)]
    net = _network(filters, after=nn.Sequential(nn.ReLU(), nn.MaxPool2d(2)))
    every = units.tuning(net, ["0", "1.0", "1.1"])
    assert every["0"].labels == ("line at 45°", "left side of a vertical line")
    assert every["1.0"].labels == every["1.1"].labels == every["0"].labels


def test_neurons_without_positions_are_tuned_too():
    """A fully connected layer reading pixels: one line through the middle of the image is its weights."""
    model = nn.Sequential(nn.Flatten(), nn.Linear(17 * 17, 2))
    with torch.no_grad():
        model[1].weight[0] = _line(17, 135).flatten()
        model[1].weight[1] = torch.randn(17 * 17, generator=torch.Generator().manual_seed(0))
    found = units.tuning(Network(model, input_shape=(1, 17, 17)), "1")
    assert found.label(0) == "line at 135°"
    assert found.label(1) == labels.NOT_SELECTIVE


def test_secondary_function_and_repeats():
    second = _line(9, 0) + 0.6 * _line(9, 90)
    found = units.tuning(_network([second, _line(9, 60), 2 * _line(9, 60), _line(9, 150)]), "0")
    assert found.label(0) == "line at 0° (horizontal)"
    assert found.secondary[0] == "line at 90° (vertical)"
    assert found.secondary[1] == ""
    assert found.repeats() == [(1, 2)]
    assert "repeats" in str(found.table())


@pytest.mark.parametrize("scale", [1e-25, 1e-6, 1e6])
def test_labels_and_repeats_do_not_depend_on_the_scale_of_the_weights(scale):
    filters = [_line(9, 60), 2 * _line(9, 60), _edge(9, 90), _line(9, 150)]
    usual, scaled = (units.tuning(_network([size * one for one in filters]), "0") for size in (1.0, scale))
    assert scaled.labels == usual.labels
    assert labels.NOT_SELECTIVE not in scaled.labels
    assert scaled.repeats() == usual.repeats() == [(0, 1)]


def test_colour_images_and_other_pixel_ranges():
    net = _network([torch.stack([_line(7, 45)] * 3)])
    assert units.tuning(net, "0", stimuli=units.stimuli.standard(28)).label(0) == "line at 45°"
    wide = Network(net.model, input_shape=(3, 28, 28), mean=33.0, std=78.0, pixels=(0.0, 255.0))
    assert units.tuning(wide, "0").label(0) == "line at 45°"


def test_curves_along_each_parameter():
    found = units.tuning(_network([_line(5, 90)]), "0")
    angles, by_angle = found.along(0, "angle", "line")
    assert abs(float(angles[by_angle.argmax()]) - 90) <= 11.25  # neighbours may tie in 5 x 5 pixels
    widths, by_width = found.along(0, "width")
    assert float(widths[by_width.argmax()]) == 1.5
    offsets, by_offset = found.along(0, "offset", "line", centre=True)
    assert abs(float(offsets[by_offset.argmax()])) <= 2
    assert float(by_offset[0]) < 0.3 * float(by_offset.max())  # a line far away does not reach the middle
    with pytest.raises(InputError, match="stimuli have no"):
        found.along(0, "colour")
    with pytest.raises(InputError, match=r"no stimulus of .* has a phase"):
        found.along(0, "phase", "line")


def test_bandwidth_is_narrower_for_longer_filters():
    short, long = (units.tuning(_network([torch.exp(-(_across(k, 45) ** 2))]), "0") for k in (5, 11))
    assert float(long.width[0]) < 0.9 * float(short.width[0])


def test_bandwidth_and_circular_mean_of_known_curves():
    """Closed form: a raised cosine of period 180 falls to half at 45 degrees to both sides; its resultant is 1/2."""
    angles = torch.arange(0, 180, 5.0)
    curve = 1 + torch.cos(torch.deg2rad(2 * (angles - 50)))
    assert float(circular.bandwidth(curve, 180)) == pytest.approx(90, abs=0.1)
    direction, length = circular.mean_direction(curve, angles, 180)
    assert float(direction) == pytest.approx(50, abs=1e-3)
    assert float(length) == pytest.approx(0.5, abs=1e-5)
    assert circular.peak(curve, angles, 180) == pytest.approx(50, abs=0.5)


def test_positions_whose_field_leaves_the_picture_do_not_count():
    """With zero padding a bright blank has an edge at the border; it must not be what an edge filter answers."""
    conv = nn.Conv2d(1, 1, 5, padding=2)
    with torch.no_grad():
        conv.weight.copy_(_edge(5, 0)[None, None])
    net = Network(nn.Sequential(conv, nn.Flatten()), input_shape=(1, 16, 16))
    rows, columns, inside = stimulus_responses.boxes(net.layer("0"), 16, 16)
    assert inside.sum() == 12 * 12
    assert rows[0].tolist() == [0, 3]
    assert columns[-1].tolist() == [13, 16]
    assert units.tuning(net, "0").label(0) == "right side of a vertical line"


def test_errors_and_saving(tmp_path):
    net = _network([_line(5, 0)])
    with pytest.raises(LayerError, match="Nearest"):
        units.tuning(net, "conv1")
    with pytest.raises(InputError, match="expected"):
        units.tuning(net, "0", stimuli=units.stimuli.bars(20))
    found = units.tuning(net, "0", stimuli=units.stimuli.bars(28))
    assert found.label(0) == "line at 0° (horizontal)"
    with pytest.raises(InputError, match="units 0 to 0"):
        found.label(1)
    found.save(tmp_path / "tuning.safetensors")
    again = units.Tuning.load(tmp_path / "tuning.safetensors")
    assert again.labels == found.labels
    assert torch.equal(again.response, found.response)
