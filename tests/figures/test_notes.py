"""Notes of a result stand below its figure, in notebooks, on the terminal and on pages."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from microtome import Network, attribution, units
from microtome.cli import output

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


class Masked(nn.Module):
    """Holds a mask that guided backpropagation cannot tell, and may mix the images of a batch."""

    def __init__(self, mixes: bool = False) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 3)
        self.mixes = mixes

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv(x)
        y = y - y.mean(0) if self.mixes else y
        return self.head((y * (y > y.mean((2, 3), keepdim=True))).mean((2, 3)))


def texts(result: attribution.Attribution | units.TopPatches, **options: object) -> str:
    figure = result.plot(**options)
    figure.canvas.draw()
    return " ".join(text.get_text() for text in figure.texts).replace("\n", " ")


def test_a_figure_grows_by_its_notes() -> None:
    net = Network(Masked().eval(), (3, 8, 8))
    plain, noted = attribution.gradient(net, IMAGES), attribution.guided_backprop(net, IMAGES)
    assert not texts(plain)
    assert 'Note: guided backpropagation: "mul"' in texts(noted)
    assert noted.plot().get_figheight() > plain.plot().get_figheight() + 0.2
    figure = noted.plot()
    figure.canvas.draw()
    lowest = min(axes.get_tightbbox().y0 for axes in figure.axes)
    written = figure.texts[-1].get_window_extent()
    assert written.y1 <= lowest
    assert written.x1 <= figure.bbox.width


def test_notes_of_the_network_are_those_of_every_result() -> None:
    net = Network(Masked(mixes=True).eval(), (3, 8, 8))
    top = units.top_patches(net, list(IMAGES), k=1)
    assert any("influence each other" in note for note in top.notes)
    shown = attribution.gradient(net, IMAGES)
    assert "influence each other" in texts(shown)
    assert "influence each other" in shown._repr_html_()


def test_the_terminal_shows_notes(capsys: pytest.CaptureFixture[str]) -> None:
    output.save(attribution.guided_backprop(Network(Masked().eval(), (3, 8, 8)), IMAGES), None)
    assert capsys.readouterr().err.startswith('note: guided backpropagation: "mul"')


def test_a_map_that_is_zero_everywhere_is_said() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 3))
    dead = Network(nn.Sequential(*model, nn.Threshold(1e6, 0.0), nn.Linear(3, 2)).eval(), (3, 8, 8))
    assert "zero everywhere for 2 of 2 images" in attribution.gradient(dead, IMAGES, 0).notes[0]
    assert not attribution.gradient(Network(model.eval(), (3, 8, 8)), IMAGES, 0).notes
