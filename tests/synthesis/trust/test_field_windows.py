"""Paths in windows are those in whole pictures, and windows are refused where the whole picture takes part."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome import Network
from microtome.synthesis.trust import contribution_paths
from microtome.synthesis.trust.field_windows import field_window

SHAPE = (3, 96, 80)
PLACES = [(0, 0), (0, 9), (11, 0), (11, 9), (5, 4), (1, 8)]


def stem(groups: int = 1) -> nn.Sequential:
    """Strided, padded convolutions: 12 x 10 positions that read 23 px each, at the borders partly padding."""
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, 2, 1), nn.BatchNorm2d(8), nn.ReLU6(), nn.Conv2d(8, 8, 3, 2, 1, groups=groups), nn.SiLU(),
        nn.MaxPool2d(2), nn.Conv2d(8, 6, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4),
    ).double().eval()  # fmt: skip


class Placed(nn.Module):
    """Adds to each pixel how far it is from the middle: a window gives other values than the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem()

    def forward(self, x: Tensor) -> Tensor:
        ramp = torch.linspace(-1, 1, x.shape[2], dtype=x.dtype, device=x.device)
        return self.stem(x + ramp[:, None])


class Gated(nn.Module):
    """Scales the maps by the mean over the picture."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = stem()

    def forward(self, x: Tensor) -> Tensor:
        maps = self.stem[:3](x)
        return self.stem[3:](maps * functional.adaptive_avg_pool2d(maps, 1).sigmoid())


@pytest.mark.parametrize("groups", [1, 4])
def test_paths_in_windows_are_those_in_the_whole_picture(groups: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Oracle: the same passes over whole pictures, in float64, at corners, borders and inside."""
    net = Network(stem(groups), SHAPE)
    pictures = torch.rand(len(PLACES), *SHAPE, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    below = contribution_paths.layers_below(net, "6")
    entries = [(number % 6, place) for number, place in enumerate(PLACES)]
    window = field_window(net, "6")
    assert window is not None
    assert window.size[0] * window.size[1] < 0.5 * SHAPE[1] * SHAPE[2]
    found = contribution_paths.paths(net, "6", pictures, entries, below)
    monkeypatch.setattr("microtome.synthesis.trust.field_windows.field_window", lambda net, layer: None)
    whole = contribution_paths.paths(net, "6", pictures, entries, below)
    assert len(found) == len(below) >= 3
    for one, other in zip(found, whole, strict=True):
        assert float(other.abs().sum()) > 0
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("model", [Placed, Gated])
def test_no_window_where_the_picture_outside_it_takes_part(model: type[nn.Module]) -> None:
    net = Network(model().double(), SHAPE)
    assert field_window(net, "stem.6") is None


def test_no_window_where_a_position_reads_most_of_the_picture_or_has_no_place() -> None:
    net = Network(stem(), (3, 32, 32))
    assert field_window(net, "6") is None
    assert field_window(net, "9") is None
