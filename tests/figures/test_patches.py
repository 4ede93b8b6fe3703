"""Does a figure of patches stay small, however many patches are kept?"""

from __future__ import annotations

import torch
from torch import nn

from microtome import Network, units


def table(k: int) -> units.LayerPatches:
    torch.manual_seed(0)
    net = Network(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2)), input_shape=(1, 8, 8))
    images = torch.rand(40, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    return units.top_patches(net, list(images), layers=["0"], k=k)["0"]


def test_a_figure_holds_so_many_patches_of_a_unit_and_says_of_how_many() -> None:
    found = table(40)
    figure = found.plot()
    assert len(figure.axes) == 2 * 24
    assert figure.get_supxlabel() == "0: 24 of 40 strongest patches, strongest on the left"
    assert len(found.plot(columns=30).axes) == 2 * 30
    one = found.plot(channel=1)
    assert len(one.subfigs[0].axes) == 3 * 24


def test_all_patches_are_drawn_where_they_are_few() -> None:
    figure = table(5).plot()
    assert len(figure.axes) == 2 * 5
    assert figure.get_supxlabel() == "0: strongest patches, strongest on the left"
