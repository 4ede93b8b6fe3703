"""Can every result be drawn, and do the small figures say what they show?"""

from __future__ import annotations

import dataclasses
import importlib
import inspect
import subprocess
import sys

import pytest
import torch
from torch import nn

from microtome import InputError, Network, attribution, registry, spaces, units
from microtome.attribution.relevance import unit_sums
from microtome.results import Result


def texts(result: Result, **options: object) -> str:
    """All words of a result's figure."""
    figure = result.plot(**options)
    figure.draw_without_rendering()
    found = [text.get_text() for axes in figure.axes for text in (axes.title, *axes.texts, axes.xaxis.label)]
    ticks = [text.get_text() for axes in figure.axes for text in (*axes.get_yticklabels(), *axes.get_xticklabels())]
    return "\n".join([*found, *ticks, figure.get_supxlabel()])


@pytest.fixture(scope="module")
def net() -> Network:
    torch.manual_seed(0)
    body = (nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 2))
    return Network(nn.Sequential(*body), input_shape=(1, 8, 8))


IMAGES = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))


def test_every_kind_of_result_has_a_drawing() -> None:
    """Of those that methods return; the atlas draws its own. ``Patches`` is the base of kinds that have one."""
    registry.methods()
    folders = ("attribution", "representation", "spaces", "synthesis", "units")
    kinds = [
        kind for kind in Result.kinds.values() if kind.__module__.startswith(tuple(f"microtome.{f}" for f in folders))
    ]
    assert len(kinds) > 40
    without = {kind.__name__ for kind in kinds if not kind.drawing}
    shards = {"LayerSummary", "PatchSummary"}  # what a shard of a large data set keeps for the atlas
    assert without == {"Patches"} | shards


def test_every_drawing_that_a_class_names_exists() -> None:
    """It takes the result first; its annotation names the class or a base of it."""
    registry.methods()
    named = [kind for kind in Result.kinds.values() if kind.drawing]
    assert len(named) > 50
    for kind in named:
        module, _, name = kind.drawing.partition(":")
        drawing = getattr(importlib.import_module(f"microtome.figures.{module}"), name)
        first = next(iter(inspect.signature(drawing).parameters.values()))
        assert {base.__name__ for base in kind.__mro__} & set(first.annotation.split(" | ")), kind


def test_results_import_no_figure() -> None:
    code = "import sys, microtome.units, microtome.spaces; print('microtome.figures' in sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "False"


def test_a_subclass_is_drawn_as_its_base_or_as_it_says(net: Network) -> None:
    class Mine(attribution.Attribution):
        """No word of a drawing."""

    class Own(attribution.Attribution, drawing="attribution.quality_figures:sensitivity"):
        """Another drawing."""

    class Bare(Result):
        """None at all."""

    try:
        assert (Mine.drawing, Own.drawing) == (
            "attribution.attribution_figures:attribution",
            "attribution.quality_figures:sensitivity",
        )
        with pytest.raises(InputError, match="no figure for a Bare: its class names no drawing"):
            Bare().plot()
        assert "<strong>Bare</strong>" in Bare()._repr_html_()
    finally:
        for kind in (Mine, Own, Bare):
            del Result.kinds[kind.__name__]


def test_a_notebook_shows_kinds_that_are_drawn_as_their_base(net: Network) -> None:
    assert "<svg" in attribution.lrp(net, IMAGES, 0)._repr_html_()


def test_the_nearest_facets(net: Network) -> None:
    found = spaces.facet_distance(net, IMAGES)
    said = texts(found, limit=2)
    for place in range(2):
        facet = found.facet[place]
        unit = ", ".join(map(str, facet["unit"]))
        assert f"{float(found.distance[place]):.2g}: {facet['layer']} {unit}" in said
    assert "2 of 3 images" in said
    flat = Network(nn.Sequential(nn.Flatten(), nn.Linear(64, 2)), (1, 8, 8))
    assert texts(spaces.facet_distance(flat, IMAGES)).count("inf: no facet") == 6


def test_the_way_out_of_a_region(net: Network) -> None:
    found = spaces.exit_distance(net, IMAGES, torch.ones_like(IMAGES))
    assert f"{float(found.step[2]):.3g}: {found.facet[2]['layer']}" in texts(found)
    bars = found.plot().axes[0].patches
    assert [bar.get_width() for bar in bars] == pytest.approx(found.step.tolist())


def test_what_can_be_undone(net: Network) -> None:
    said = texts(spaces.invertibility(net))
    assert "not:  relu, relu gives 0 for every negative value" in said
    assert texts(spaces.invertibility(Network(nn.Sequential(nn.Flatten(), nn.Linear(4, 4)), (1, 2, 2)))).count("exact:")


def test_measures_of_maps_by_image(net: Network) -> None:
    found = attribution.infidelity(net, IMAGES, attribution.gradient_x_input(net, IMAGES, 0), 0, samples=4)
    heights = [bar.get_height() for bar in found.plot().axes[0].patches]
    assert heights == pytest.approx(torch.cat([found.values, found.scaled, found.change]).tolist())
    found = attribution.max_sensitivity(net, IMAGES, "saliency", 0, samples=2)
    empty = dataclasses.replace(found, values=torch.tensor([0.5, float("nan"), 0.2]))
    assert (texts(found).count("no map"), texts(empty).count("no map")) == (0, 1)
    heights = [bar.get_height() for bar in found.plot().axes[0].patches]
    assert heights == pytest.approx(found.values.tolist())


def test_connections_of_units(net: Network) -> None:
    found = units.connections(net, "2")
    figure = found.plot(limit=2, links=3)
    assert len(figure.axes) == 4
    widths = [bar.get_width() for bar in figure.axes[2].patches]
    assert widths == pytest.approx([getattr(link, what) for what in ("norm", "weight") for link in found.inputs(1, 3)])
    assert f"{found.inputs(1)[0].layer}:{found.inputs(1)[0].unit}" in texts(found)


def test_stimuli_at_places() -> None:
    """The first pattern stands in the grid where it stands in its images; names leave out what a family shares."""
    found = units.placed((9, 15), grid=3, patterns=torch.rand(3, 5, 5), names=["bar, angle 0, width 2",
                         "bar, angle 90, width 2", "mine"])  # fmt: skip
    figure = found.plot()
    left, right = figure.subfigs
    assert [axes.get_xlabel() for axes in left.axes] == ["bar, angle 0", "bar, angle 90", "mine"]
    for number, axes in enumerate(left.axes):
        assert torch.equal(torch.as_tensor(axes.images[0].get_array()), found.images[9 * number + 4, 0])
    for place, axes in enumerate(right.axes):
        assert torch.equal(torch.as_tensor(axes.images[0].get_array()), found.images[place, 0])
    assert right.get_supxlabel() == "bar, angle 0, width 2 at each of 9 places"


def test_the_bars_of_a_decomposition_add_up(net: Network) -> None:
    found = unit_sums.decompose(net, IMAGES[:1], 0, ["0", "2"])
    (axes,) = found.plot(limit=2).axes
    names = [text.get_text() for text in axes.get_yticklabels()]
    top = [bar.get_width() for name, bar in zip(names, axes.patches, strict=True) if not name.startswith(" ")]
    assert sum(top) == pytest.approx(found.score, rel=1e-5)
    assert names[0] == f"{found.steps[0][0]}:{found.steps[0][1]}"
    assert any(name.strip() == "input" for name in names)
