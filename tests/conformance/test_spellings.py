"""Does any method notice how a network is written? All registered methods on all spellings, against the oracle."""

from __future__ import annotations

import pytest
import torch

from conformance.spellings import SPELLINGS, Spelling, weights
from microtome import Network, registry
from oracles import attribution_by_hand as oracle

METHODS = sorted(registry.methods("attribution"))
COUNT, CHANNELS, HEIGHT, WIDTH = 3, 3, 12, 9  # odd width: pooling and strides leave a rest
OPTIONS = {
    "occlusion": {"window": (5, 4), "stride": (4, 3)},
    "integrated-gradients": {"steps": 4},
    "smooth-grad": {"samples": 3, "noise": 0.2},
}
TARGET = [2, 0, 3]
PLAINEST = {("plain", "max"): "ReluModules", ("plain", "average"): "AveragePoolModule",
            ("residual", "max"): "AddedByPlus", ("concat", "max"): "TorchCat"}  # fmt: skip


def images() -> torch.Tensor:
    generator = torch.Generator().manual_seed(5)
    return torch.rand(COUNT, CHANNELS, HEIGHT, WIDTH, generator=generator, dtype=torch.float64)


def network(spelled: Spelling) -> Network:
    return Network(spelled.build(weights(spelled.family, CHANNELS)).eval(), (CHANNELS, HEIGHT, WIDTH))


def options(method: str, spelled: Spelling) -> dict[str, object]:
    layer = {"layer": spelled.layer} if "grad-cam" in method else {}
    return OPTIONS.get(method, {}) | layer


@pytest.fixture(scope="module", params=sorted(SPELLINGS))
def spelled(request) -> Spelling:
    return SPELLINGS[request.param]


@pytest.fixture(scope="module")
def net(spelled) -> Network:
    return network(spelled)


def test_there_are_many():
    assert len(SPELLINGS) >= 18
    assert {(spelled.family, spelled.pool) for spelled in SPELLINGS.values()} == set(PLAINEST)


def test_the_function_is_the_same(net, spelled):
    """The scores themselves, before any method."""
    p = weights(spelled.family, CHANNELS)
    expected = oracle.run(spelled.family, spelled.pool, p, images(), torch.tensor(TARGET)).logits
    torch.testing.assert_close(net.logits(images()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("method", sorted(oracle.METHODS))
def test_every_method_equals_its_paper_in_every_spelling(net, spelled, method):
    """Oracle: the paper's definition, backward pass by hand, float64. Rounding of a few sums: 1e-12 expected."""
    p = weights(spelled.family, CHANNELS)
    expected = oracle.attribution(
        method, spelled.family, spelled.pool, p, images(), torch.tensor(TARGET), **OPTIONS.get(method, {})
    )
    result = registry.method(method).function(net, images(), TARGET, **options(method, spelled))
    scale = float(expected.abs().max())
    assert scale > 0
    torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-9 * scale)
    assert result.target.tolist() == TARGET
    assert result.map.shape == (COUNT, HEIGHT, WIDTH)


@pytest.mark.parametrize("method", METHODS)
def test_every_registered_method_gives_the_same_in_every_spelling(net, spelled, method):
    """Also methods that have their oracle elsewhere; here the plainest spelling of the function is compared with."""
    reference = SPELLINGS[PLAINEST[spelled.family, spelled.pool]]
    expected = registry.method(method).function(network(reference), images(), TARGET, **options(method, reference))
    result = registry.method(method).function(net, images(), TARGET, **options(method, spelled))
    scale = float(expected.values.abs().max())
    assert scale > 0
    torch.testing.assert_close(result.values, expected.values, rtol=0, atol=1e-6 * scale)


@pytest.mark.parametrize("method", ["grad-cam", "guided-grad-cam"])
def test_the_default_layer_is_the_last_map(net, spelled, method):
    """Without a layer the last feature maps are found in every spelling."""
    found = registry.method(method).function(net, images(), TARGET)
    named = registry.method(method).function(net, images(), TARGET, **options(method, spelled))
    torch.testing.assert_close(found.values, named.values, rtol=0, atol=0)


def test_the_rules_differ_from_the_gradient(net, spelled):
    """Guided backpropagation and deconvnet are never silently the gradient, nor each other."""
    run = {name: registry.method(name).function(net, images(), TARGET).values for name in
           ("gradient", "guided-backprop", "deconvnet")}  # fmt: skip
    assert not torch.allclose(run["guided-backprop"], run["gradient"], rtol=1e-3)
    assert not torch.allclose(run["deconvnet"], run["gradient"], rtol=1e-3)
    assert not torch.allclose(run["deconvnet"], run["guided-backprop"], rtol=1e-3)
