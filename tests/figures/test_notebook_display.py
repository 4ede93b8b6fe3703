"""What a notebook shows: every public kind of result, a network and a run, with figure or table and caption."""

from __future__ import annotations

import copy
import re
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
import torch
from matplotlib.figure import Figure
from torch import nn

from microtome import (
    InputError,
    Network,
    attribution,
    registry,
    representation,
    spaces,
    surgery,
    synthesis,
    training,
    units,
)
from microtome.attribution.relevance import unit_sums
from microtome.data import Images
from microtome.results import Result
from microtome.training import information

torch.manual_seed(0)
SHAPE = (1, 8, 8)
NET = Network(
    nn.Sequential(
        nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Conv2d(5, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(),
        nn.Linear(4, 3),
    ),
    input_shape=SHAPE,
)  # fmt: skip
SQUARE = Network(nn.Sequential(nn.Flatten(), nn.Linear(16, 16), nn.LeakyReLU(), nn.Linear(16, 16)), (1, 4, 4))
SAME = Network(
    nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 3, padding=1), nn.Flatten(),
                  nn.Linear(256, 3)),
    input_shape=SHAPE,
)  # fmt: skip
IMAGES = torch.rand(12, *SHAPE, generator=torch.Generator().manual_seed(1))
DATA = Images.from_float(IMAGES, torch.arange(12) % 3, classes=tuple("abc"))
ONE = IMAGES[:1]


def patches() -> Any:
    return units.top_patches(NET, DATA, ["0"], k=2)


def runs() -> Any:
    return information.train_networks(
        information.twelve_bits(), hidden=(4, 3), networks=2, epochs=3, checkpoints=3, batch=512
    )


def stimulus() -> Any:
    return synthesis.maximize(NET, "0", channels=[0, 1], steps=2)


def table() -> Any:
    return representation.features(NET, DATA, "2")


def pruning() -> Any:
    return surgery.prune(SAME, DATA, rounds=1, multiply_adds=0.8, epochs=1)


MADE: dict[str, Callable[[], Any]] = {
    "Ablation": lambda: units.ablate(NET, DATA, "0"),
    "ActivationMaps": lambda: units.activation_maps(NET, ONE, "0"),
    "AlignedMaps": lambda: representation.aligned([table(), representation.features(NET, DATA, "0")], perplexity=3),
    "Attribution": lambda: attribution.saliency(NET, ONE),
    "CamConversion": lambda: surgery.convert_to_cam(SAME, DATA, DATA, epochs=1),
    "ClassLabels": lambda: units.class_labels(patches()["0"]),
    "ClassResiduals": lambda: spaces.class_residuals(SQUARE, small()),
    "Comparison": lambda: attribution.compare(NET, ONE, methods=["gradient", "lrp"]),
    "Compression": lambda: surgery.compress(SAME, DATA, multiply_adds=0.8),
    "Connections": lambda: units.connections(NET, "2"),
    "ConvexityMap": lambda: training.curvature.convexity_map(SQUARE, small(), steps=3, products=10, tolerance=0.5),
    "CurvatureHistory": lambda: training.curvature.along_training(SQUARE, kept_run(), small(), products=20),
    "Criteria": lambda: units.criteria(NET, DATA, ["0"], columns=["variation", "kernel"]),
    "Dissection": lambda: units.dissect(NET, ONE, "2", 0),
    "EffectiveField": lambda: units.effective_field(NET, patches()["0"], 0, k=2),
    "Evaluation": lambda: attribution.evaluate(NET, ONE, attribution.gradient(NET, ONE), samples=2, steps=4),
    "ExitDistance": lambda: spaces.exit_distance(SQUARE, IMAGES[:2, :, :4, :4], torch.ones(2, 1, 4, 4)),
    "FacetDistance": lambda: spaces.facet_distance(SQUARE, IMAGES[:2, :, :4, :4]),
    "FacetPath": lambda: spaces.facets_between(SQUARE, IMAGES[0, :, :4, :4], IMAGES[1, :, :4, :4]),
    "FeatureHistory": lambda: training.feature_history(
        NET, [NET.model.state_dict()] * 2, DATA, ["0"], shown=(0,), show=("filters",), steps=2
    ),
    "Features": table,
    "Filters": lambda: units.filters(NET, "0"),
    "GradientPhases": lambda: training.information.gradient_phases(runs()),
    "HessianEigenvalues": lambda: training.curvature.eigenvalues(SQUARE, small(), products=20, tolerance=0.1),
    "IdealInputs": lambda: spaces.ideal_inputs(NET, DATA, steps=2),
    "Infidelity": lambda: attribution.infidelity(NET, ONE, attribution.gradient(NET, ONE), samples=2),
    "InformationPlane": lambda: information.plane(runs(), trials=2),
    "Inversion": lambda: synthesis.invert(NET, ONE, "0", starts=2, steps=2),
    "Invertibility": lambda: spaces.invertibility(NET),
    "KeptAndLost": lambda: spaces.kept_and_lost(NET, ONE, iterations=20),
    "KernelAlignment": lambda: representation.cka(NET, None, DATA, ["0", "2"], permutations=5),
    "Latency": lambda: surgery.latency(SAME, NET, images=1, turns=2),
    "LayerAttribution": lambda: attribution.grad_cam(NET, ONE),
    "LayerPatches": lambda: patches()["0"],
    "LayerRepeats": lambda: representation.repeats(NET, DATA, ["0", "2"], permutations=3),
    "LinearRegion": lambda: spaces.linear_region(NET, ONE),
    "LossLine": lambda: training.landscape.line(NET, DATA, steps=3),
    "LossSurface": lambda: training.landscape.surface(NET, DATA, steps=3),
    "Lossless": lambda: surgery.lossless(SAME, DATA),
    "NaturalFilters": lambda: units.natural_filters(NET, DATA, patches=200),
    "NeighbourMap": lambda: representation.tsne(table(), perplexity=3),
    "NetworkInverse": lambda: spaces.invert_outputs(SQUARE, SQUARE.logits(IMAGES[:2, :, :4, :4])),
    "NetworkRuns": runs,
    "Occlusion": lambda: attribution.occlusion(NET, ONE, window=4, stride=4),
    "PathAttribution": lambda: attribution.integrated_gradients(NET, ONE, steps=4),
    "PixelCurve": lambda: attribution.deletion(NET, ONE, attribution.gradient(NET, ONE), steps=4),
    "PlacedStimuli": lambda: units.placed(SHAPE[1:]),
    "PlaneComparison": lambda: information.compare({"tanh": runs()}, trials=2),
    "PrincipalMap": lambda: representation.pca(table()),
    "Projection": lambda: units.project_back(NET, ONE, "0", 0),
    "Pruning": pruning,
    "PruningRound": lambda: pruning().rounds[0],
    "Randomisation": lambda: attribution.randomisation(NET, ONE, "gradient"),
    "Reconstructions": lambda: units.reconstruct(NET, patches()["0"], k=2),
    "Rejected": lambda: spaces.rejected_energy(NET, DATA, iterations=20),
    "RelevanceAttribution": lambda: attribution.lrp(NET, ONE),
    "SampledAttribution": lambda: attribution.smooth_grad(NET, ONE, samples=2),
    "ScoreDecomposition": lambda: unit_sums.decompose(NET, ONE, 0, ["0", "2"]),
    "ScorePath": lambda: units.explain_path(NET, ONE[0], labels=False),
    "Sensitivity": lambda: attribution.max_sensitivity(NET, ONE, "gradient", samples=2),
    "ShortcutShare": lambda: attribution.shortcut_share(NET, ONE, torch.eye(8), methods=["gradient"]),
    "Similarity": lambda: units.similar(NET, DATA, "0"),
    "SingularTriplets": lambda: spaces.operator(NET, "0").triplets(2),
    "SmallerNetwork": lambda: surgery.compress(SAME, DATA, multiply_adds=0.8),
    "SpectralDensity": lambda: training.curvature.spectral_density(SQUARE, small(), probes=2, products=10),
    "Specialised": lambda: units.specialised(NET, DATA, "0"),
    "Spectra": lambda: spaces.spectra(NET),
    "Stimuli": lambda: units.stimuli.bars(SHAPE[1:]),
    "Subspaces": lambda: spaces.subspaces(NET, "6"),
    "Superstimuli": stimulus,
    "TopImages": lambda: units.top_images(NET, DATA, "0", 0, k=2),
    "TopPatches": patches,
    "Tuning": lambda: units.tuning(NET, "0", stimuli=units.stimuli.bars(SHAPE[1:])),
    "UsableInformation": lambda: information.usable_information(NET, DATA, ["2"], folds=3),
    "WeightVectors": lambda: spaces.weight_vectors(SQUARE, IMAGES[:2, :, :4, :4], layer="1"),
    "WhatWhere": lambda: units.what_where(NET, "0"),
    "Without": lambda: surgery.without(SAME, "2", DATA, epochs=1),
}
LONG = {  # more than a second each; drawn by their own tests, too
    "AlignedMaps", "CamConversion", "ClassResiduals", "Dissection", "GradientPhases", "LayerRepeats", "LossSurface",
    "NaturalFilters", "NeighbourMap", "NetworkRuns", "PlaneComparison", "Pruning", "PruningRound", "Reconstructions",
    "ScorePath", "Spectra", "Stimuli", "TopPatches", "Tuning", "WhatWhere", "Without",
}  # fmt: skip
FOLDERS = tuple(f"microtome.{folder}." for folder in registry._FOLDERS)
# Bases of kinds that methods return, and what the shards of a large data set keep for the atlas.
INSIDE = {"AttachedNetwork", "Patches", "ImageMap", "LayerSummary", "PatchSummary"}


def small() -> Images:
    """Images of 4 x 4 pixels and 16 classes."""
    return Images.from_float(IMAGES[:, :, :4, :4], torch.arange(12) % 16)


def kept_run() -> training.Run:
    """A training of two epochs whose weights are kept."""
    model, folder = copy.deepcopy(SQUARE.model), Path(tempfile.mkdtemp())
    return training.fit(model, small(), recipe=training.Recipe(epochs=2, batch=6, lr=0.01), out=folder)


def whole(page: str) -> None:
    """The page is one tree of elements that are all closed, so that nothing of it leaks into the notebook."""
    ElementTree.fromstring(re.sub(r"(<img [^>]*)>", r"\1/>", page))


def test_every_public_kind_is_made_here() -> None:
    registry.methods()
    kinds = {kind.__name__ for kind in Result.kinds.values() if kind.__module__.startswith(FOLDERS)}
    assert kinds == {*MADE} | INSIDE


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=[pytest.mark.slow] if kind in LONG else []) for kind in MADE]
)
def test_a_result_shows_itself(kind: str) -> None:
    """A figure where its class names one, else its fields with their ranges; below it sentences without braces."""
    result = MADE[kind]()
    assert kind in {base.__name__ for base in type(result).__mro__}
    page = result._repr_html_()
    whole(page)
    assert ("<svg" in page or "<img" in page) == bool(result.drawing)
    text = page[page.index("<figcaption>") :]
    assert result.provenance.method in text
    assert not [mark for mark in ("{", "}", "tensor(", "object at", "None") if mark in text]
    assert len(page) < 4 * 2**20
    if result.provenance.method in registry.methods():
        assert registry.methods()[result.provenance.method].summary[:20].replace("'", "&#x27;") in text


def test_the_caption_names_options_seed_and_notes() -> None:
    page = attribution.smooth_grad(NET, ONE, 1, samples=2, noise=0.25)._repr_html_()
    assert "noise 0.25" in page
    assert "samples 2" in page
    assert "Seed 0." in page
    random = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), Noisy())
    with pytest.warns(UserWarning, match="random"):
        noted = attribution.gradient(Network(random, SHAPE), ONE)._repr_html_()
    assert "Note: the scores change with the random state" in noted


class Noisy(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + torch.rand_like(x)


def test_what_cannot_be_drawn_is_a_table_with_the_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    """A notebook must not answer with a traceback where a result holds nothing that could be drawn."""
    result = attribution.saliency(NET, ONE)
    refuse = InputError("nothing to draw")

    def draw(*_: Any, **__: Any) -> Figure:
        raise refuse

    monkeypatch.setattr("microtome.figures.attribution.attribution_figures.attribution", draw)
    page = result._repr_html_()
    whole(page)
    assert "Note: nothing to draw." in page
    assert "1 x 1 x 8 x 8" in page


def test_a_heavy_drawing_is_a_picture(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("microtome.figures._HEAVY", 10)
    page = attribution.saliency(NET, ONE)._repr_html_()
    whole(page)
    assert "data:image/png;base64," in page
    assert 'alt="saliency"' in page


def test_a_plot_shows_itself_without_pyplot() -> None:
    """IPython asks an object for ``_repr_png_``; matplotlib's own figures answer only after ``%matplotlib inline``."""
    figure = attribution.saliency(NET, ONE).plot()
    picture, about = figure._repr_png_()
    assert picture.startswith(b"\x89PNG")
    assert about["width"] == round(figure.get_size_inches()[0] * figure.dpi)
    assert "savefig" in repr(figure)
    with pytest.raises(InputError, match=r"figure\.savefig"):
        figure.show()


def test_a_plot_is_still_a_figure_of_matplotlib(tmp_path: Path) -> None:
    figure = attribution.saliency(NET, ONE).plot()
    assert isinstance(figure, Figure)
    figure.savefig(tmp_path / "map.pdf")
    assert (tmp_path / "map.pdf").read_bytes().startswith(b"%PDF")


def test_a_network_shows_its_layers() -> None:
    page = NET._repr_html_()
    whole(page)
    for said in ("Sequential: 1 x 8 x 8 in", "3 logits", "<td>Conv2d</td>", "<td>5 x 6 x 6</td>"):
        assert said in page
    assert "<details>" not in page
    deep = nn.Sequential(*(nn.Conv2d(1, 1, 1) for _ in range(41)), nn.Flatten())
    folded = Network(deep, (1, 2, 2))._repr_html_()
    whole(folded)
    assert "<summary>42 rows</summary>" in folded


def test_a_run_shows_its_curves(tmp_path: Path) -> None:
    recipe = training.Recipe(epochs=30, batch=12, lr=0.01)
    model = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
    run = training.fit(model, DATA, DATA, recipe=recipe, out=tmp_path, keep=[10])
    page = run._repr_html_()
    whole(page)
    for said in ("Training run of 30 epochs", "epochs: 10 and 30", "validation accuracy", "lr 0.01", "One of 2 epochs"):
        assert said in page
    assert page.count("<tr>") == 1 + 15
    assert "<td>30</td>" in page
    whole(training.Run((), {})._repr_html_())
