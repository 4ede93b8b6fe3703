"""Can the numbers of a figure be read, and is no legend drawn over the data?"""

from __future__ import annotations

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from microtome import Network, attribution, training
from microtome.figures.ticks_and_legends import covers, readable


@pytest.fixture(scope="module")
def net() -> Network:
    torch.manual_seed(0)
    layers = (nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(108, 2))
    return Network(nn.Sequential(*layers), input_shape=(1, 8, 8))


IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("kind", ["line", "bars", "points", "area", "picture"])
def test_a_legend_over_the_data_moves_beside_the_axes(kind: str) -> None:
    figure = Figure(figsize=(3, 2), layout="constrained")
    axes = figure.subplots()
    axes.plot([], [], label="a name")
    if kind == "line":
        axes.plot([0, 1], [0, 1])
        axes.plot([0, 1], [1, 0])
    elif kind == "bars":
        axes.barh([0, 1], [1, 1])
    elif kind == "points":
        axes.scatter(*torch.rand(2, 400, generator=torch.Generator().manual_seed(0)).numpy())
    elif kind == "area":
        axes.fill_between([0, 1], [0, 0], [1, 1])
    else:
        axes.imshow([[0, 1], [1, 0]])
    axes.legend(loc="center")
    figure.draw_without_rendering()
    assert covers(axes, axes.get_legend().get_window_extent())
    readable(figure)
    figure.draw_without_rendering()
    legend = axes.get_legend().get_window_extent()
    assert legend.x0 >= axes.get_window_extent().x1
    assert legend.x1 <= figure.bbox.x1
    assert figure.get_figwidth() > 3


def test_a_legend_beside_the_data_stays() -> None:
    figure = Figure(figsize=(3, 2), layout="constrained")
    axes = figure.subplots()
    axes.plot([0, 1], [0, 1], label="a name")
    axes.legend(loc="upper left")
    readable(figure)
    figure.draw_without_rendering()
    assert axes.get_legend().get_window_extent().x1 < axes.get_window_extent().x1
    assert tuple(figure.get_size_inches()) == (3, 2)


def test_no_legend_covers_the_bars_of_eigenvalues(net: Network) -> None:
    data = [(image, number % 2) for number, image in enumerate(IMAGES)]
    figure = training.curvature.eigenvalues(net, data).plot()
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert not covers(axes, axes.get_legend().get_window_extent())


def test_a_short_logarithmic_axis_has_plain_numbers_of_one_size() -> None:
    figure = Figure(figsize=(4, 3), layout="constrained")
    short, long = figure.subplots(1, 2)
    for axes, low in ((short, 0.2), (long, 1e-9)):
        axes.semilogy([0, 1], [low, 0.6])
        axes.set_ylabel("loss")
    readable(figure)
    figure.draw_without_rendering()
    labels = [tick for minor in (False, True) for tick in short.get_yticklabels(minor=minor) if tick.get_text()]
    assert {"0.2", "0.3", "0.4", "0.6"} <= {label.get_text() for label in labels}
    assert {label.get_fontsize() for axes in (short, long) for label in axes.get_yticklabels()} == {7}
    assert {label.get_fontsize() for label in labels} == {7}
    assert any("10^{" in label.get_text() for label in long.get_yticklabels())
    assert short.yaxis.label.get_fontsize() == 8


def test_the_loss_on_a_line_says_what_alpha_is_and_leaves_no_empty_room(net: Network) -> None:
    data = [(image, number % 2) for number, image in enumerate(IMAGES)]
    figure = training.landscape.line(net, data, steps=3).plot()
    figure.draw_without_rendering()
    axes = figure.axes[0]
    assert axes.get_xlabel() == "alpha (steps along the direction; 0: the network itself)"
    below = axes.xaxis.label.get_window_extent().y0 - figure._supxlabel.get_window_extent().y1
    assert 0 <= below < 0.2 * figure.dpi
    assert "normalisation layers: fixed" in " ".join(figure.get_supxlabel().split())


def test_curves_of_deletion_say_which_is_better_and_their_legends_lie_below(net: Network) -> None:
    figure = attribution.evaluate(net, IMAGES, ["saliency", "lrp"], samples=2, steps=4).plot()
    figure.draw_without_rendering()
    for axes in figure.axes:
        assert ("lower is better" in axes.get_title()) == axes.get_title().startswith("deletion")
        assert axes.get_legend().get_window_extent().y1 <= axes.xaxis.label.get_window_extent().y0
        assert axes.get_legend().get_window_extent().y0 >= 0


def test_maps_of_a_randomisation_have_one_kind_of_colours(net: Network) -> None:
    figure = attribution.randomisation(net, IMAGES[:1], method="gradient-x-input").plot()
    maps = [axes.images[0] for axes in figure.axes if axes.images]
    assert len({one.get_cmap().name for one in maps}) == 1
    assert all(one.norm.vmin == -one.norm.vmax for one in maps)
    assert "similarity" in figure.axes[0].get_ylabel()
    assert "layer" in figure.axes[0].get_xlabel()
