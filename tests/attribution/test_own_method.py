"""A plain function in place of a registered method, in all functions that take one."""

from __future__ import annotations

import functools
from typing import Any

import pytest
import torch
from torch import nn

from microtome import InputError, Network, attribution, load
from microtome.attribution.own_method import chosen_methods, resolve


def network() -> Network:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 4, 3), nn.ReLU(), nn.Conv2d(4, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 16, 3)
    )
    return Network(model.double(), (2, 8, 8))


IMAGES = torch.rand(3, 2, 8, 8, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def by_autograd(net: Network, images: torch.Tensor, target: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
    """Gradient x input with plain autograd on the model itself."""
    x = images.clone().requires_grad_()
    score = net.model(x).gather(1, target[:, None]).sum()
    return scale * x * torch.autograd.grad(score, x)[0]


def summed(net: Network, images: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return by_autograd(net, images, target).sum(1)


@pytest.mark.parametrize("target", [1, None, [0, 1, 2]])
def test_the_result_is_that_of_the_registered_method(target: Any) -> None:
    """Oracle: the registered method; independent, for the function uses autograd without the engine."""
    net = network()
    expected = attribution.gradient_x_input(net, IMAGES, target)
    found = resolve(by_autograd).function(net, IMAGES, target)
    torch.testing.assert_close(found.values, expected.values, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.score, expected.score, rtol=1e-9, atol=0)
    assert torch.equal(found.target, expected.target)
    torch.testing.assert_close(resolve(summed).function(net, IMAGES, target).map, expected.map, rtol=1e-9, atol=1e-12)


def test_every_function_that_takes_a_name_takes_a_function(tmp_path) -> None:
    net, name = network(), "gradient-x-input"
    both = attribution.compare(net, IMAGES, methods=[name, by_autograd])
    assert list(both.results) == [name, "by_autograd"]
    assert float(both.agreement[0, 1]) == pytest.approx(1)

    judged = attribution.evaluate(net, IMAGES, [name, by_autograd], steps=3, samples=4, masks=torch.ones(8, 8))
    for number in judged.numbers:
        torch.testing.assert_close(judged.measures[f"by_autograd: {number}"], judged.measures[f"{name}: {number}"])
    assert any("sensitivity" in number for number in judged.numbers)

    def pair(measure, **options):
        return [measure(net, IMAGES, method, 1, **options) for method in (name, by_autograd)]

    first, own = pair(attribution.max_sensitivity, samples=3)
    torch.testing.assert_close(own.values, first.values)
    first, own = pair(attribution.randomisation, steps=2)
    torch.testing.assert_close(own.correlation, first.correlation)  # so it runs on the private copy
    assert (own.judged, own.provenance.parameters["judged"]) == ("by_autograd", "by_autograd")

    share = attribution.shortcut_share(net, IMAGES, torch.eye(8), methods={name: {}, by_autograd: {"scale": 2.0}})
    torch.testing.assert_close(share.share["network: by_autograd"], share.share[f"network: {name}"])
    for result in (both, judged, own, share):
        result.plot()
        result.save(tmp_path / "result.safetensors")
        assert type(load(tmp_path / "result.safetensors")) is type(result)


def test_the_provenance_names_the_function() -> None:
    net, where = network(), f"{__name__}.by_autograd"
    found = resolve(by_autograd).function(net, IMAGES, 1, scale=2.0)
    assert found.provenance.method == "by_autograd"
    assert found.provenance.parameters == {"function": where, "target": 1, "scale": 2.0}
    assert found.provenance.fingerprint == net.fingerprint
    both = attribution.compare(net, IMAGES, methods={by_autograd: {"scale": 2.0}, "half": summed})
    stated = both.provenance.parameters["methods"]
    assert stated == {"by_autograd": {"scale": 2.0, "function": where}, "half": {"function": f"{__name__}.summed"}}


def test_names_of_functions() -> None:
    twice = functools.partial(by_autograd, scale=2.0)
    assert resolve(twice).name == "by_autograd"
    assert resolve(lambda net, images, target: images).name == "lambda"
    assert list(chosen_methods({"once": by_autograd, "twice": twice})) == ["once", "twice"]
    assert resolve(attribution.saliency).name == "saliency"
    named = chosen_methods({"rays": functools.partial(attribution.lrp, rules="epsilon")})["rays"]
    found = named.method.function(network(), IMAGES, 1)
    assert isinstance(found, attribution.RelevanceAttribution)
    assert found.provenance.method == "lrp"


def test_an_attribution_may_be_returned() -> None:
    def own(net, images, target):
        found = attribution.gradient(net, images, target)
        return attribution.Attribution(values=found.values, target=found.target, score=found.score, images=found.images)

    found = resolve(own).function(network(), IMAGES, 1)
    assert found.provenance.method == "own"


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda net, images, target: images.mean((1, 2)), r"must return maps \(3, 8, 8\).* a tensor \(3, 8\)"),
        (lambda net, images, target: images.numpy(), "it returned ndarray"),
        (lambda net, images, target: images.sum(1) / 0 * 0, "NaN"),
        (lambda net, images: images, r"called as function\(network, images, target"),
        (
            lambda net, images, target: attribution.gradient(net, images, (target + 1) % 3),
            "must explain the given images",
        ),
        (
            lambda net, images, target: attribution.gradient(net, images[:1], target[:1]),
            "must explain the given images",
        ),
        ("salience", "Nearest: saliency"),
        (3, "a registered name or a function"),
    ],
)
def test_what_does_not_fit_is_one_clear_error(function: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        attribution.max_sensitivity(network(), IMAGES, function, 1)


@pytest.mark.parametrize(
    ("methods", "message"),
    [
        ([by_autograd, by_autograd], "comes twice"),
        (["grad_cam", "grad-cam"], "comes twice"),
        ([], "at least one method"),
        ({"mine": "saliency"}, 'got "mine" with "saliency"'),
        ({summed: by_autograd}, "got function with function"),
    ],
)
def test_lists_that_do_not_fit(methods: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        attribution.compare(network(), IMAGES, methods=methods)
