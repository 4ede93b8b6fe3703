"""Does a figure of patches stay small, however many patches are kept?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microtome import Network, units
from microtome.errors import InputError


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


def test_blocks_hold_reconstructions_beside_their_patches() -> None:
    """By hand: the pixels of each axes are the crops, and the signals about mid-gray, in a square with white lines."""
    patches = table(4)
    torch.manual_seed(0)
    conv = nn.Conv2d(1, 2, 3)
    net = Network(nn.Sequential(conv, nn.Flatten(), nn.Linear(72, 2)), input_shape=(1, 8, 8))
    found = units.reconstruct(net, patches, k=4)
    left, right, other, _ = found.plot(view="blocks").axes
    assert left.get_title(loc="left") == "unit 0"
    assert other.get_title(loc="left") == "unit 1"
    shown = torch.as_tensor(right.images[0].get_array()).float()
    assert shown.shape[:2] == (7, 7)  # 3 + 1 + 3 pixels
    for rank, (top, side) in enumerate([(0, 0), (0, 4), (4, 0), (4, 4)]):
        assert torch.allclose(shown[top : top + 3, side : side + 3], found.crops[0, rank, 0], atol=1e-6)
    drawn = torch.as_tensor(left.images[0].get_array()).float()[:3, :3]
    kernel = conv.weight[0, 0].detach()  # deconvnet through one convolution gives its kernel
    assert torch.allclose(drawn, (0.5 + 0.5 * kernel / kernel.abs().quantile(0.98)).clamp(0, 1), atol=1e-5)
    with pytest.raises(InputError, match='"rows" or "blocks"'):
        found.plot(view="grid")
