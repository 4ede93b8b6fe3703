"""Figures of synthetic images show every image, with its name and number."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microtome import InputError, Network
from microtome.synthesis import invert, maximize, maximize_class


def small_net(channels: int = 1) -> Network:
    model = nn.Sequential(nn.Conv2d(channels, 5, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 64, 2))
    return Network(model, (channels, 8, 8), classes=["cat", "dog"])


def test_every_image_is_there_with_its_unit_and_what_it_reaches() -> None:
    made = maximize(small_net(), "0", steps=2, diverse=2)
    figure = made.plot()
    titles = [axis.get_title() for axis in figure.axes if axis.images]
    assert len(titles) == 10
    assert titles[3] == f"1  {float(made.peak[3]):.3g}"
    shown = figure.axes[3].images[0]
    assert torch.equal(torch.as_tensor(shown.get_array()), made.images[3, 0])
    assert shown.get_clim() == (0, 1)
    assert len([axis for axis in made.plot(limit=4).axes if axis.images]) == 4


def test_one_unit_shows_its_ascent() -> None:
    made = maximize(small_net(3), "0", steps=3, diverse=2)
    figure = made.plot(channel=2)
    assert len([axis for axis in figure.axes if axis.images]) == 2
    assert len(figure.axes[-1].lines) == 2
    with pytest.raises(InputError):
        made.plot(channel=9)


def test_classes_have_their_names() -> None:
    figure = maximize_class(small_net(), steps=2).plot()
    assert figure.axes[1].get_title().startswith("dog")


def test_an_inversion_shows_the_image_and_every_start() -> None:
    found = invert(small_net(3), torch.rand(2, 3, 8, 8), "0", starts=3, steps=3)
    figure = found.plot(image=1)
    assert [axis.get_title() for axis in figure.axes[:2]] == ["reference", f"start 0: {float(found.error[3]):.2%}"]
    assert len([axis for axis in figure.axes if axis.images]) == 4
    with pytest.raises(InputError):
        found.plot(image=2)
