"""Does a figure say of what its colours and columns are?"""

from __future__ import annotations

import pytest
import torch
from matplotlib.colors import to_hex
from torch import nn

from microtome import Network, attribution, spaces, units


@pytest.fixture(scope="module")
def net() -> Network:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2))
    return Network(nn.Sequential(*layers), input_shape=(1, 8, 8))


@pytest.mark.parametrize(
    ("method", "quantity"),
    [
        (attribution.saliency, "logit per pixel value"),
        (attribution.lrp, "logit per pixel"),
        (attribution.grad_cam, "weighted activation"),
        (attribution.guided_backprop, "rectified signal"),
    ],
)
def test_the_scale_of_a_map_names_its_quantity(net: Network, method, quantity: str) -> None:
    figure = method(net, torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)), 0).plot()
    labels = [axes.get_ylabel() for axes in figure.axes if axes.get_label() == "<colorbar>"]
    assert labels == [quantity, quantity]


def test_a_layer_has_one_colour_in_both_halves_of_the_spectra(net: Network) -> None:
    curves, bars = spaces.spectra(net).plot().axes
    lines = [to_hex(line.get_color()) for line in curves.lines]
    assert lines == [to_hex(bar.get_facecolor()) for bar in bars.patches]
    assert len(set(lines)) == 2


def test_the_sheet_names_the_column_of_labels_only_where_there_are_any(net: Network) -> None:
    image = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(2))
    for labels, named in ((None, False), (["a line"], True)):
        found = units.dissect(net, image, "0", 1, labels=labels)
        assert ("label" in found.table().columns) is named
        figure = found.plot()
        assert any("what it detects" in text.get_text() for text in figure.texts) is named
