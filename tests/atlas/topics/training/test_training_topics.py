"""Topics of a training: planned only where one is given, bounded by the budget, refused where it is foreign."""

from __future__ import annotations

import dataclasses
import inspect
import re
import sys
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import pytest
import torch

from atlas import small
from microtome import ModelError, StoreError, load, training
from microtome.atlas import TOPICS, build
from microtome.atlas.atlas_run import Plan
from microtome.atlas.pictures.figure_drawing import drawn_figure
from microtome.atlas.planning.first_look import first_tasks
from microtome.atlas.planning.network_summary import network_summary
from microtome.atlas.planning.selection import select
from microtome.atlas.store import Store
from microtome.atlas.topics.training.features_in_training import FEATURES_IN_TRAINING
from microtome.cli.commands.training.information_command import information
from microtome.loading import RunConfig
from microtome.results import Provenance

TRAINING = [
    topic for topic in TOPICS if topic.jobs and all("training" in job.__module__ for job in topic.jobs.values())
]
SIZE = dataclasses.replace(small.TINY, sample_images=60)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """A small network on its images, trained for three epochs that are kept; the recipe of its atlas."""
    folder = tmp_path_factory.mktemp("trained")
    small.write(folder, pictures=60)
    sys.path.insert(0, str(folder))
    sys.modules.pop("nets", None)
    torch.manual_seed(0)
    recipe = RunConfig("nets:build", input_shape=(1, 12, 10), data=str(folder / "images"), weights="random")
    subject = recipe.open()
    training.fit(
        subject.net.model, subject.images, recipe=training.Recipe(epochs=3, batch=10, lr=0.1), out=folder / "run"
    )
    weights = str(folder / "run" / "epoch-00003.safetensors")
    yield dataclasses.replace(recipe, weights=weights, run=str(folder / "run"))
    sys.path.remove(str(folder))


@pytest.fixture(scope="module")
def site(trained, tmp_path_factory):
    """The site of its training."""
    out = tmp_path_factory.mktemp("site")
    build(trained, out, size=SIZE, topics=TRAINING, engine="inline")
    return out


def planned(recipe: RunConfig, folder: Path, size=SIZE) -> dict[str, object]:
    subject = recipe.open()
    plan = Plan(network_summary(subject, size), subject)
    assert len(first_tasks(plan)) == 3  # one shard, scores and patches
    chosen = select(plan, Store(folder))
    return {task.job: task for topic in TRAINING for task in topic.tasks(plan, chosen)}


def test_every_figure_of_the_training_is_on_the_page(site):
    page = (site / "index.html").read_text()
    for title in ("How the training went", "The loss around its weights", "How curved the loss is",
                  "What the layers know of image and class", "Where the class becomes readable"):  # fmt: skip
        assert f"<h2>{title}</h2>" in page
    # two curves, gradients, line, plane, path, surfaces that turn, layers, history, planes of information, readers
    assert page.count("<svg") >= 13
    assert "Not on this page" not in page
    assert "of the path&#39;s length lies off this plane" in page or "lies off this plane" in page
    layer = (site / "layers" / "two.html").read_text() if (site / "layers" / "two.html").is_file() else ""
    layers = layer or "".join(file.read_text() for file in site.rglob("*.html"))
    assert "How it came about" in layers
    assert "settled at epoch" in layers


@pytest.mark.parametrize(("distances", "said"), [((1.0, 0.05, 0.0), "10"), ((1.0, 1.0, 0.0), "not settled")])
def test_a_layer_page_says_when_its_layer_settled_or_that_it_has_not(distances, said):
    pictures = {kind: {} for kind in ("patches", "superstimuli", "filters", "labels")}
    found = training.FeatureHistory(
        provenance=Provenance(""), layers=["one"], epochs=[5.0, 10.0, 15.0], units=[], images=3,
        distance={"one": torch.tensor(distances)[:, None]}, **pictures,
    )  # fmt: skip
    album = SimpleNamespace(one=lambda kind, job: found, subject=SimpleNamespace(run="run"))
    (fact,) = FEATURES_IN_TRAINING.facts["layer"](album, "one")
    assert (fact.name, fact.value) == ("settled at epoch", said)


def test_svgs_are_sound_and_no_name_stands_twice(site):
    page = (site / "index.html").read_text()
    ids = []
    for text in re.findall(r"<svg.*?</svg>", page, re.DOTALL):
        ElementTree.fromstring(text.replace("xlink:href", "href"))
        ids.append(set(re.findall(r'\bid="([^"]+)"', text)))
    shared = [name for at, one in enumerate(ids) for name in one for other in ids[at + 1 :] if name in other]
    contents = {name: set(re.findall(rf'<[^>]*id="{name}"[^>]*>', page)) for name in shared}
    assert all(len(found) == 1 for found in contents.values())  # equal names have equal content
    assert "#010203" not in page
    assert "currentColor" in page


def test_stored_results_are_those_of_the_methods(trained, site):
    """Oracle: the library called by hand on the same images."""
    tasks = planned(trained, site)
    subject = trained.open()
    found = load(site / "results" / tasks["loss-plane"].key[:2] / f"{tasks['loss-plane'].key}.safetensors")
    steps, count = tasks["loss-plane"].parameters["steps"], tasks["loss-plane"].parameters["count"]
    assert found.loss.shape == (steps, steps)
    by_hand = training.landscape.surface(subject.net, subject.images, steps=steps, images=count)
    torch.testing.assert_close(found.loss, by_hand.loss, rtol=1e-5, atol=1e-6)
    history = load(
        site / "results" / tasks["curvature-history"].key[:2] / f"{tasks['curvature-history'].key}.safetensors"
    )
    assert history.epochs.tolist() == [1, 2, 3]


def test_the_information_plane_is_that_of_the_method(trained, site):
    """Oracle: the library called by hand on the images and layers that are named; refused layers are hollow there."""
    task = planned(trained, site)["information-bins"]
    subject = trained.open()
    found = load(site / "results" / task.key[:2] / f"{task.key}.safetensors")
    assert found.epochs.tolist() == [1, 2, 3]
    by_hand = training.information.plane(
        training.Run.read(trained.run), subject.net, subject.subset(task.parameters["images"]), layers=found.layers
    )
    torch.testing.assert_close(found.i_xt, by_hand.i_xt, rtol=1e-9, atol=1e-9)
    assert found.reasons == by_hand.reasons
    page = (site / "index.html").read_text()
    command = re.search(r"<code>microtome (information [^<]*)</code>", page).group(1)
    known = set(inspect.signature(information).parameters)
    assert {word[2:].replace("-", "_") for word in command.split() if word.startswith("--")} <= known
    assert f"ceiling log2 {found.samples}" in page
    for name, good in zip(found.layers, found.admitted.tolist(), strict=True):
        assert good or f"{name} is hollow" in page


def test_the_same_bytes_again_and_nothing_is_made_twice(trained, site, tmp_path):
    build(trained, tmp_path / "again", size=SIZE, topics=TRAINING, engine="inline")
    one, other = ({name: text for name, text in small.contents(folder).items() if name.endswith(".html")}
                  for folder in (site, tmp_path / "again"))  # fmt: skip
    assert one == other
    assert build(trained, site, size=SIZE, topics=TRAINING, engine="inline").made == 0


def test_without_a_training_nothing_is_planned_or_shown(trained, site):
    assert not planned(dataclasses.replace(trained, run=None), site)


def test_costs_stay_within_the_budget(trained, site):
    """With a network a million times slower than its budget allows, only what costs nothing is left."""
    tasks = planned(trained, site)
    assert {
        "loss-line",
        "loss-plane",
        "loss-path",
        "curvature-layers",
        "readable-class",
        "feature-distances",
        "information-bins",
        "information-kernels",
    } <= set(tasks)
    assert all(task.cost <= SIZE.topic_seconds for task in tasks.values())
    poor = planned(trained, site, dataclasses.replace(SIZE, topic_seconds=1e-9))
    assert "loss-plane" not in poor
    assert "curvature-history" not in poor
    assert "information-bins" not in poor


def test_a_training_of_another_network_is_refused(trained, tmp_path):
    with pytest.raises(StoreError, match="holds no training run"):
        build(dataclasses.replace(trained, run=str(tmp_path)), tmp_path / "out", size=SIZE, topics=TRAINING)
    other = dataclasses.replace(trained, model="nets:averaged", weights="random")
    with pytest.raises(ModelError, match="does not fit"):
        build(other, tmp_path / "out", size=SIZE, topics=TRAINING)


def test_a_drawn_figure_is_the_same_text_twice():
    result = training.LossLine(
        alpha=torch.linspace(-1, 1, 5), loss=torch.tensor([3.0, 1, 0.5, 1, 3]), error=torch.full((5,), 0.1),
        accuracy=torch.linspace(0, 1, 5), images=torch.full((5,), 9), provenance=Provenance(""),
    )  # fmt: skip
    one, two = (drawn_figure(result, "a line", "A caption.") for _ in range(2))
    assert one == two
    assert one.svg.startswith("<svg")
    assert "<metadata" not in one.svg
