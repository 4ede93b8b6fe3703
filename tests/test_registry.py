"""Are a method's line and paper words that a person can read, wherever they are shown?"""

from __future__ import annotations

import inspect
from collections.abc import Callable

import pytest
import torch
from torch import nn

from microtome import Network, attribution, registry, training, units
from microtome.errors import InputError


@pytest.mark.parametrize("name", registry.methods())
def test_summary_and_paper_are_plain_text(name: str) -> None:
    method = registry.method(name)
    for text in (method.summary, method.reference):
        assert " " in text
        assert not any(mark in text for mark in ("`", "]_", ":math:", ".. [", ",.", " ."))


@pytest.mark.parametrize("name", registry.methods())
def test_a_layer_stands_behind_the_data_and_is_by_keyword_where_it_may_be_left_out(name: str) -> None:
    parameters = inspect.signature(registry.method(name).function).parameters
    if "layer" in parameters:
        may_be_left_out = parameters["layer"].default is not inspect.Parameter.empty
        assert (parameters["layer"].kind is inspect.Parameter.KEYWORD_ONLY) == may_be_left_out


def test_provenance_holds_every_option_that_changes_the_numbers() -> None:
    """A method whose body states nothing: the registry alone writes the provenance. Each option is changed once."""
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), (1, 3, 3))
    images, mask = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(0)), torch.ones(3, 3)
    usual = attribution.evaluate(net, images, "gradient", 0, steps=2, samples=2).provenance
    assert usual.method == "evaluate"
    assert usual.fingerprint == net.fingerprint
    assert not {"net", "images", "batch"} & set(usual.parameters)
    for option, value in {"masks": mask, "tolerance": 1, "steps": 3, "samples": 4, "fills": ["mean"]}.items():
        options = {"steps": 2, "samples": 2, option: value}
        other = attribution.evaluate(net, images, "gradient", 0, **options).provenance
        assert other.parameters[option] != usual.parameters[option]
    assert attribution.evaluate(net, images, "gradient", 0, steps=2, samples=2, seed=5).provenance.seed == 5


def test_a_default_that_the_method_finds_is_stated_as_found() -> None:
    net = Network(nn.Sequential(nn.Conv2d(1, 2, 2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)), (1, 3, 3))
    found = attribution.grad_cam(net, torch.rand(1, 1, 3, 3, generator=torch.Generator().manual_seed(0)))
    assert found.provenance.parameters["layer"] == found.layer


def test_each_result_of_several_layers_says_how_it_was_made() -> None:
    net = Network(nn.Sequential(nn.Conv2d(1, 2, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(162, 2)), (1, 9, 9))
    data = [torch.rand(1, 9, 9, generator=torch.Generator().manual_seed(seed)) for seed in range(4)]
    found = units.similar(net, data, ["0", "1"])
    assert {name: one.provenance.method for name, one in found.items()} == dict.fromkeys(("0", "1"), "similar-units")
    assert all(one.provenance.fingerprint == net.fingerprint for one in found.values())
    assert {name: one.provenance.parameters["layers"] for name, one in found.items()} == {"0": "0", "1": "1"}


def test_options_of_a_shared_list_stand_each_by_its_name() -> None:
    net = Network(nn.Sequential(nn.Flatten(), nn.Linear(9, 2)), (1, 3, 3))
    pixels = torch.rand(4, 1, 3, 3, generator=torch.Generator().manual_seed(0))
    found = training.landscape.line(net, [(pixels[k], k % 2) for k in range(4)], steps=3, batch=2, images=3)
    assert found.provenance.method == "loss-line"
    assert found.provenance.parameters["images"] == 3
    assert not {"options", "batch"} & set(found.provenance.parameters)


def _named(module: str, qualname: str) -> Callable[..., None]:
    def function(net: Network) -> None: ...

    function.__module__, function.__qualname__ = module, qualname
    return function


def test_two_functions_under_one_name_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another module, another name, or another closure is another function; one defined anew takes over."""
    monkeypatch.setattr(registry, "_METHODS", dict(registry.methods()))
    line = registry.register("probe", rows=("C1",), paper="")
    first = line(_named("one", "probe"))
    again = line(_named("one", "probe"))  # a cell of a notebook that is run again
    assert registry.method("probe").function is again is not first
    for other in (_named("two", "probe"), _named("one", "other")):
        with pytest.raises(
            InputError, match=r'two methods are registered as "probe": one\.probe and \w+\.\w+\. Rename one'
        ):
            line(other)
    inner = registry.register("inner", rows=("C1",), paper="")
    closure = _named("one", "make.<locals>.probe")
    inner(closure)
    inner(closure)
    with pytest.raises(InputError, match="two methods are registered as"):
        inner(_named("one", "make.<locals>.probe"))
    assert registry.method("inner").function.__wrapped__ is closure


def test_what_takes_more_than_a_network_and_images_says_what_it_needs() -> None:
    """The table and the pages say "any network" of a method that names no need."""
    enough = {"net", "image", "images", "target"}
    for name, method in registry.methods().items():
        parameters = inspect.signature(method.function).parameters.values()
        needed = {one.name for one in parameters if one.default is one.empty and one.kind is one.POSITIONAL_OR_KEYWORD}
        assert method.needs or needed <= enough, name


def test_a_method_with_sizes_of_windows_is_long_work() -> None:
    """The explorer lets methods of up to ten passes overtake others; one pass for each window is no such method."""
    for name, method in registry.methods(registry.EXPLAINING).items():
        if "stride" in inspect.signature(method.function).parameters:
            assert method.cost > 10, name
