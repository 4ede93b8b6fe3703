"""Every argument of a wrong type is one clear error, in every method, before any computation."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
import torch
from torch import nn

from microtome import (
    Network,
    attribution,
    data,
    registry,
    representation,
    surgery,
    synthesis,
    training,
    units,
    zoo,
)
from microtome.errors import InputError
from microtome.option_types import OptionTypes

WRONG = {"int": [math.nan, 2.5, "x", [1], True], "float": [math.nan, "x", [1.0], True], "bool": ["x", 7, 0.5]}
WRONG["str"] = [3, 0.5, ["x"], True]
CASES = [
    (name, parameter.name, str(parameter.annotation).split(" |")[0])
    for name, method in registry.methods().items()
    for parameter in inspect.signature(method.function).parameters.values()
    if str(parameter.annotation) in {kind + end for kind in WRONG for end in ("", " | None")}
]


@pytest.mark.parametrize(("name", "option", "kind"), CASES)
def test_a_wrong_type_of_any_option_of_any_method_is_refused_before_it_runs(name, option, kind):
    """The arguments before it may be anything: the error names the wrong option and its value first."""
    signature = inspect.signature(registry.method(name).function)
    for wrong in WRONG[kind]:
        with pytest.raises(InputError, match=f"^{option}: expected .*, got "):
            OptionTypes(signature).check({option: wrong})


def test_every_method_asks_for_a_network_where_a_model_is_given():
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2))
    images = torch.rand(1, 1, 8, 8)
    for call in (
        lambda: attribution.saliency(model, images),
        lambda: attribution.grad_cam(model, images),
        lambda: units.top_patches(model, [images[0]], "0"),
        lambda: synthesis.maximize(model, "0"),
        lambda: attribution.saliency(images, model),
    ):
        with pytest.raises(
            InputError, match=r"net: expected a Network, made .* by microtome\.Network\(model, input_shape"
        ):
            call()


def test_results_of_another_kind_are_told_by_what_makes_the_right_one():
    net = Network(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2)), (1, 8, 8))
    top = units.top_patches(net, [torch.rand(1, 8, 8) for _ in range(3)], "0", k=1)
    with pytest.raises(InputError, match=r"units\.top_patches\(net, dataset, layer\)\[layer\], got .* TopPatches"):
        units.reconstruct(net, top)
    with pytest.raises(InputError, match=r"representation\.features\(net, dataset, layer\), got .* Tensor"):
        representation.pca(torch.rand(9, 3))
    with pytest.raises(InputError, match=r"prior: expected a synthesis\.Prior or None, got 'maco'"):
        synthesis.invert(net, torch.rand(1, 8, 8), "0", prior="maco")
    with pytest.raises(InputError, match="the list of units is empty"):
        units.reconstruct(net, top["0"], units=[])
    with pytest.raises(InputError, match="batch: expected a whole number from 1 on, got 0"):
        representation.features(net, [torch.rand(1, 8, 8)], "0", batch=0)
    with pytest.raises(InputError, match="k must be at least 1"):
        units.connections(net, "0", k=0)


def test_numbers_of_other_libraries_are_numbers():
    def method(net, *, k: int, share: float, flag: bool, units: object, layers: object): ...

    method.__annotations__ |= {"k": "int", "share": "float", "flag": "bool", "units": "int | Sequence[int] | None"}
    method.__annotations__ |= {"layers": "str | Iterable[str] | None"}
    known = OptionTypes(inspect.signature(method))
    known.check({"k": np.int64(3), "share": np.float32(0.5), "flag": np.bool_(True), "units": np.arange(3)})
    known.check({"k": torch.tensor(3), "share": torch.tensor(0.5), "flag": 1, "units": torch.arange(3)})
    known.check({"share": math.inf, "units": range(3), "layers": (name for name in ("a", "b"))})
    with pytest.raises(InputError, match="units: expected a whole number or a list of whole numbers or None, got"):
        known.check({"units": [0, "1"]})
    with pytest.raises(InputError, match=r"layers: expected a name or a list of names or None, got \[3\]"):
        known.check({"layers": [3]})


def test_swapped_arguments_are_told():
    net = Network(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2)), (1, 8, 8))
    images = [torch.rand(1, 8, 8) for _ in range(3)]
    for call, names, order in (
        (lambda: units.ablate(net, "0", images), '"dataset" and "layer"', "net, dataset, layer"),
        (lambda: representation.features(net, "0", images), '"dataset" and "layer"', "net, dataset, layer"),
        (lambda: synthesis.invert(net, "0", images[0]), '"image" and "layer"', "net, image, layer"),
        (lambda: zoo.load_weights("a.pt", net.model), '"path" and "model"', "model, path"),
        (lambda: data.folder((1, 8, 8), "photos"), '"input_shape" and "path"', "path, input_shape"),
        (lambda: training.Recorder(net.model, "run"), '"model" and "folder"', "folder, model"),
    ):
        with pytest.raises(InputError, match=f"Are {names} swapped\\? The order is .*{order}"):
            call()
    with pytest.raises(InputError) as told:
        units.ablate(net, images, 5)
    assert "swapped" not in str(told.value)


def test_a_model_or_a_number_is_no_data_set():
    net = Network(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(72, 2)), (1, 8, 8))
    for wrong in (net, net.model, 5, None):
        with pytest.raises(InputError, match="dataset: expected a data set of images"):
            units.ablate(net, wrong, "0")


def test_functions_outside_the_registry_check_their_arguments_too():
    model, images = nn.Linear(2, 2), [(torch.rand(1, 8, 8), 0)]
    recipe = training.Recipe()
    for call, message in (
        (lambda: training.fit(Network(model, (1, 1, 2)), images, recipe=recipe), "model: expected a torch.nn.Module"),
        (lambda: training.fit(images, model, recipe=recipe), 'Are "train" and "model" swapped'),
        (lambda: training.fit(model, images, recipe=5), "recipe: expected a training.Recipe, got 5"),
        (lambda: training.evaluate(images, model), 'Are "dataset" and "model" swapped'),
        (lambda: training.train_network(seed=-1), "seed: expected a whole number from 0"),
        (lambda: training.Run.read(5), "folder: expected a path"),
        (lambda: zoo.build("fcnn1", classes="ten"), "classes: expected a whole number"),
        (lambda: zoo.build("fcnn1", classes=0), "at least one class was expected, got 0"),
        (lambda: zoo.build("fcnn1", input_shape=(1, 8)), "input_shape: expected channels, height and width"),
        (lambda: zoo.network("fcnn1", classes="ab"), "classes: expected a list of names"),
        (lambda: zoo.fill(model, {"weight": 5}), 'tensors by name was expected, got a int for "weight"'),
        (lambda: data.folder("photos", (1, 0, 8)), "input_shape: expected channels, height and width, three positive"),
        (lambda: data.with_shortcut(images, agreement=1.0), "images: expected a data.Images"),
        (lambda: data.open_picture(5, (1, 8, 8)), "source: expected a name or a path"),
        (lambda: surgery.latency(5, 5), "net: expected a Network"),
    ):
        with pytest.raises(InputError, match=message):
            call()
