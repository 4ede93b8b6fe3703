"""Registered methods give the same numbers in whatever modes of torch the calling code has set."""

from __future__ import annotations

import ast
import copy
from collections.abc import Callable
from contextlib import AbstractContextManager, contextmanager

import pytest
import torch
from benchmarks import gpu, gpu_cases

from conformance.portraits import differences, portrait
from microtome import Network, training
from microtome.errors import InputError, MicrotomeError, ModelError
from test_devices import calls, factory, keyword

SMALL = gpu_cases.subjects()["small"]
CASES = gpu_cases.cases()
# These calls copy the model first: under inference mode their networks are made of tensors that torch cannot
# differentiate. The others draw weights or images of their own in torch's default precision.
COPYING = {"facet-distance", "linear-region", "loss-between", "feature-history", "hessian-along-training"}
TRAINED = {"information-plane"}
DRAWING = {"facet-distance", "linear-region", "usable-information"}


@contextmanager
def double():
    torch.set_default_dtype(torch.float64)
    try:
        yield
    finally:
        torch.set_default_dtype(torch.float32)


def autocast() -> AbstractContextManager:
    return torch.autocast("cpu", torch.bfloat16)


MODES: dict[str, Callable[[], AbstractContextManager]] = {
    "no_grad": torch.no_grad,
    "inference_mode": torch.inference_mode,
    "float64 by default": double,
}
LEFT_OUT = {
    "no_grad": set(CASES) - COPYING - TRAINED,
    "inference_mode": COPYING | TRAINED,
    "float64 by default": DRAWING,
}
PAIRS = [(name, mode) for mode in MODES for name in sorted(CASES) if name not in LEFT_OUT[mode]]


def outcome(name: str, around: Callable[[], AbstractContextManager]):
    model = copy.deepcopy(SMALL.model)
    net = Network(model, (3, gpu_cases.SIDE, gpu_cases.SIDE))
    before = portrait(model)
    with around():
        found = caught(name, net)
    assert differences(before, portrait(model)) == []
    return found


def caught(name: str, net: Network):
    """The result of a call, or the library's refusal."""
    try:
        return CASES[name](net, SMALL)
    except MicrotomeError as error:
        return error


@pytest.fixture(scope="module")
def plainly():
    """What each method gives in torch's usual modes."""
    return {name: outcome(name, torch.enable_grad) for name in CASES}


@pytest.mark.parametrize(("name", "mode"), PAIRS)
def test_every_method_gives_what_it_gives_in_the_usual_modes(name, mode, plainly):
    found, expected = outcome(name, MODES[mode]), plainly[name]
    if isinstance(expected, MicrotomeError):
        assert str(found) == str(expected)
    elif name != "prune":  # it holds measured seconds
        assert gpu.difference(found, expected) <= 1e-6
        kinds = [{path: value.dtype for path, value in floating(one)} for one in (found, expected)]
        assert kinds[0] == kinds[1]


def floating(value):
    """All floating tensors of a result as they are, by the path of their fields."""
    if isinstance(value, torch.Tensor):
        yield "", value
    elif hasattr(value, "__dataclass_fields__"):
        for name in value.__dataclass_fields__:
            if isinstance(one := getattr(value, name), torch.Tensor):
                yield name, one


# These methods read weights or tables, and run the model for nothing that their numbers depend on.
OF_WEIGHTS = ("spectra", "subspaces", "filters", "natural-filters", "connections", "invertibility")


@pytest.mark.parametrize("name", sorted(CASES))
def test_under_autocast_the_model_is_rounded_and_the_library_is_not(name, plainly):
    """Each method runs, on the values of the model in bfloat16; what no pass of the model enters keeps its digits."""
    found, expected = outcome(name, autocast), plainly[name]
    assert isinstance(found, MicrotomeError) == isinstance(expected, MicrotomeError), found
    if name in OF_WEIGHTS:
        assert gpu.difference(found, expected) <= 1e-6


def test_the_models_passes_have_the_callers_autocast():
    """Oracle: plain torch, the forward pass under autocast and the backward pass behind it."""
    net = Network(SMALL.model, (3, gpu_cases.SIDE, gpu_cases.SIDE))
    images = gpu_cases.images().images[:2].clone().requires_grad_()
    with autocast():
        scores = SMALL.model(images)
        found = CASES["gradient"](net, SMALL)
    (expected,) = torch.autograd.grad(scores[:, 1].sum(), images)
    assert scores.dtype == torch.bfloat16
    torch.testing.assert_close(found.values, expected, rtol=0, atol=0)


@pytest.mark.parametrize("dtype", [pytest.param(torch.float16, marks=pytest.mark.slow), torch.bfloat16, torch.float64])
@pytest.mark.parametrize("name", sorted(CASES))
def test_every_method_takes_models_of_any_precision_or_refuses_them_in_words(name, dtype, plainly):
    """Nothing but an error of ours may come out; in float64 the numbers are those of float32, up to its rounding."""
    model = copy.deepcopy(SMALL.model).to(dtype)
    before = portrait(model)
    found = caught(name, Network(model, (3, gpu_cases.SIDE, gpu_cases.SIDE)))
    if isinstance(found, MicrotomeError):
        assert "training and evaluation are in float32" in str(found) or isinstance(plainly[name], MicrotomeError), (
            found
        )
    else:
        rounding = {"tsne", "aligned-maps", "tuning", "prune", "spectra", "subspaces", "dissect", "explain-path"}
        bounds = {"class-residuals", "kept-and-lost", "rejected-energy", "criteria", "facet-distance"}
        if dtype == torch.float64 and name not in rounding | bounds:
            assert gpu.difference(found, plainly[name]) <= 2e-3
    assert differences(before, portrait(model)) == []


def test_factories_of_floats_name_their_precision():
    """Otherwise tables and draws change with ``torch.set_default_dtype``."""
    floats = {"empty", "eye", "linspace", "logspace", "ones", "rand", "randn", "zeros"}
    given = [(file, call) for file, call, _ in calls() if factory(call) in floats and not keyword(call, "out")]
    nameless = [
        f"{file}:{call.lineno}"
        for file, call in given
        if not any(word.arg in ("dtype", None) for word in call.keywords)
    ]
    assert nameless == []
    assert len(given) > 60
    written = [
        f"{file}:{call.lineno}"
        for file, call, _ in calls()
        if factory(call) == "full"
        and not keyword(call, "dtype")
        and len(call.args) > 1
        and isinstance(call.args[1], ast.Constant)
        and isinstance(call.args[1].value, float)
    ]
    assert written == []


def test_training_refuses_other_precisions_and_inference_tensors():
    data, recipe = gpu_cases.images(), training.Recipe(epochs=1, batch=3, lr=1e-3)
    double = copy.deepcopy(SMALL.model).double()
    with pytest.raises(InputError, match=r"training and evaluation are in float32, and the model is in torch.float64"):
        training.fit(double, data, recipe=recipe)
    with pytest.raises(InputError, match="training and evaluation are in float32"):
        training.evaluate(double, data)
    with torch.inference_mode():
        inferred = copy.deepcopy(SMALL.model)
    with pytest.raises(ModelError, match=r"made under torch.inference_mode"):
        training.fit(inferred, data, recipe=recipe)


@pytest.mark.parametrize("around", [torch.no_grad, torch.inference_mode])
def test_a_model_is_trained_in_any_mode(around):
    data, recipe = gpu_cases.images(), training.Recipe(epochs=1, batch=3, lr=1e-2)
    expected, model = (copy.deepcopy(SMALL.model) for _ in range(2))
    training.fit(expected, data, recipe=recipe)
    with around():
        training.fit(model, data, recipe=recipe)
    assert not differences(portrait(expected)["bytes"], portrait(model)["bytes"])
