"""Layers whose names begin with an underscore stand in legends like all others."""

from __future__ import annotations

import torch
from torch import nn

from microtome import Network, units


def test_layers_that_begin_with_an_underscore_are_in_the_legend() -> None:
    torch.manual_seed(0)
    model = nn.Sequential()
    model.add_module("_stem", nn.Conv2d(1, 3, 3))
    model.add_module("body", nn.Conv2d(3, 2, 3))
    model.add_module("_head", nn.Sequential(nn.Flatten(), nn.Linear(32, 2)))
    net = Network(model, (1, 8, 8))
    figure = units.specialised(net, list(torch.rand(4, 1, 8, 8)), ["_stem", "body"]).plot()
    legend = figure.axes[0].get_legend()
    assert legend is not None
    assert [text.get_text().strip("\u200b") for text in legend.get_texts()] == ["_stem", "body"]
    figure.draw_without_rendering()
