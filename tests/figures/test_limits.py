"""Every figure with a ``limit`` draws as many parts as asked, and says what it leaves out."""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from microtome import InputError, Network, attribution, figures, spaces, units
from microtome.attribution.relevance import unit_sums
from microtome.data import Images
from microtome.figures.limits import note
from microtome.results import Result
from microtome.synthesis import maximize
from microtome.units import stimuli

torch.manual_seed(0)
NET = Network(
    nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 4)),
    input_shape=(1, 8, 8),
)
SQUARE = Network(nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.LeakyReLU(), nn.Linear(16, 16)), (1, 4, 4))
IMAGES = torch.rand(20, 1, 8, 8, generator=torch.Generator().manual_seed(1))
DATA = Images.from_float(IMAGES, torch.arange(20) % 4, classes=tuple("abcd"))

# A result, and what its figure says with a limit of 2.
LIMITED: dict[str, tuple[Callable[[], Result], str]] = {
    "attribution": (lambda: attribution.saliency(NET, IMAGES[:3], 0), "2 of 3 images"),
    "occlusion": (lambda: attribution.occlusion(NET, IMAGES[:3], 0, window=4, stride=4), "2 of 3 images"),
    "comparison": (lambda: attribution.compare(NET, IMAGES[:3], methods=["gradient"]), "2 of 3 images"),
    "randomisation": (lambda: attribution.randomisation(NET, IMAGES[:2], "saliency", 0), "2 of 4 maps of image 0"),
    "shortcut": (
        lambda: attribution.shortcut_share(
            NET, IMAGES[:4], torch.eye(8), methods=["gradient", "saliency", "lrp", "gradient-x-input", "grad-cam"]
        ),
        "2 of 5 methods",
    ),
    "maps": (lambda: units.activation_maps(NET, IMAGES, "0"), "2 of 5 units"),
    "patches": (lambda: units.top_patches(NET, DATA, "0")["0"], "2 of 5 units"),
    "reconstructions": (
        lambda: units.reconstruct(NET, units.top_patches(NET, DATA, "0")["0"], k=2),
        "2 of 5 units",
    ),
    "specialised": (lambda: units.specialised(NET, DATA, "0"), "2 of 5 units named"),
    "ablation": (lambda: units.ablate(NET, DATA, "0"), "2 of 5 removals"),
    "connections": (lambda: units.connections(NET, "0"), "2 of 5 units"),
    "dissection": (lambda: units.dissect(NET, IMAGES[:1], "2", 0), "sum of 3 weaker channels"),
    "tuning": (lambda: units.tuning(NET, "0"), "2 of 5 units"),
    "stimuli": (lambda: stimuli.standard((8, 8)), "2 of "),
    "placed": (lambda: units.placed(12, grid=2), "2 of 34 patterns"),
    "decomposition": (lambda: unit_sums.decompose(NET, IMAGES[:1], 1, ["0"]), "2 of 4 units"),
    "region": (lambda: spaces.linear_region(NET, IMAGES[:1]), "2 of 4 classes"),
    "facets": (lambda: spaces.facet_distance(NET, IMAGES[:5]), "2 of 5 images"),
    "exit": (lambda: spaces.exit_distance(NET, IMAGES[:5], torch.ones_like(IMAGES[:5])), "2 of 5 images"),
    "inverse": (
        lambda: spaces.invert_outputs(SQUARE, SQUARE.logits(IMAGES[:5, :, :4, :4])),
        "2 of 5 images",
    ),
    "residuals": (lambda: spaces.class_residuals(NET, DATA), "2 of 4 residuals"),
    "subspaces": (lambda: spaces.subspaces(NET, "5"), "2 of 4 signal vectors"),
    "triplets": (lambda: spaces.operator(NET, "0").triplets(5), "2 of 5 triplets"),
    "superstimuli": (lambda: maximize(NET, "0", steps=1), "2 of 5 images"),
}


def words(figure: Figure) -> str:
    """All text of a figure and its parts, in one line."""
    from matplotlib.text import Text

    return " ".join(" ".join(text.get_text() for text in figure.findobj(Text)).split())


@pytest.mark.parametrize("name", LIMITED)
def test_a_figure_says_what_it_leaves_out(name: str) -> None:
    make, said = LIMITED[name]
    result = make()
    assert said in words(result.plot(limit=2))
    if name != "stimuli":  # hundreds of each family
        assert said not in words(result.plot(limit=500))
    for wrong in (0, -1, 1.5):
        with pytest.raises(InputError, match="limit must be a whole number of at least 1"):
            result.plot(limit=wrong)


def test_as_many_are_drawn_as_asked() -> None:
    result = attribution.saliency(NET, IMAGES, 0)
    pictures = [axes for axes in result.plot(limit=18).axes if axes.images and not hasattr(axes, "_colorbar")]
    assert len(pictures) == 3 * 18
    shares = attribution.shortcut_share(NET, IMAGES, torch.eye(8), methods=["gradient", "lrp"], examples=6)
    figure = shares.plot()
    assert len([axes for axes in figure.axes if axes.images]) == 6 * (1 + 2)
    assert "6 of 20 images" in words(figure)


def test_filters_say_which_channels_are_missing() -> None:
    result = units.filters(NET, "2")
    text = words(result.plot(outputs=2, inputs=3))
    assert "2 of 4 outputs" in text
    assert "3 of 5 inputs" in text
    assert " of " not in words(result.plot())


def test_units_that_are_named_are_all_drawn() -> None:
    result = units.tuning(NET, "0")
    assert len(result.plot(units=[0, 1, 2, 3], limit=2).axes) == len(result.plot(limit=4).axes)


def _drawings() -> dict[str, Any]:
    found = {}
    for module in pkgutil.walk_packages(figures.__path__, f"{figures.__name__}."):
        for name, function in vars(importlib.import_module(module.name)).items():
            if inspect.isfunction(function) and not name.startswith("_"):
                first = next(iter(inspect.signature(function).parameters), "")
                if first == "result":
                    found[f"{module.name}:{name}"] = function
    return found


def test_one_word_for_how_many() -> None:
    """Every drawing that cuts its parts calls the number ``limit``; no other word for it is left."""
    drawings = _drawings()
    assert len(drawings) > 40
    for name, function in drawings.items():
        assert not {"most", "n", "rows", "maps", "methods", "each", "count"} & set(
            inspect.signature(function).parameters
        ), name


def test_a_note_fits_the_width_of_its_figure() -> None:
    figure = Figure(figsize=(2.0, 2.0))
    note(figure, "patches and their reconstructions, each on its own scale", "8 of 60 units")
    figure.draw_without_rendering()
    drawn = figure._supxlabel.get_window_extent()
    assert drawn.width <= figure.bbox.width
