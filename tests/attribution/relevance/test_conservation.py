"""Is the whole score accounted for, on networks that people use? Pixels, biases and stabilisers add up to it."""

from __future__ import annotations

from functools import cache

import pytest
from benchmarks import conservation

from microtome import Network, zoo


@cache
def network(name: str) -> Network:
    return conservation.network(name)


@pytest.mark.slow
@pytest.mark.parametrize("rules", conservation.RULES)
@pytest.mark.parametrize("name", conservation.NETWORKS)
def test_the_shares_add_up_to_the_score(name: str, rules: str) -> None:
    """To 1e-3 of the score in float32; 3e-6 was the largest measured."""
    net = network(name)
    found = conservation.account(net, conservation.pictures(net), rules)
    assert found["missing"] < 1e-3
    assert found["pixels"] + found["biases"] + found["stabilisers"] == pytest.approx(1, abs=1e-3)


@pytest.mark.slow
def test_what_does_not_reach_the_pixels_is_shown() -> None:
    """Deep Taylor gives biases nothing: on trained depthwise networks units without positive input keep nearly all."""
    if zoo.architecture("efficientnet-lite0").pretrained is None:
        pytest.skip("the package of weights is not there")
    net = network("efficientnet-lite0")
    images = conservation.pictures(net)
    deep = conservation.account(net, images, "deep-taylor")
    assert deep["biases"] == 0
    assert deep["stabilisers"] > 0.9 > 0.1 > deep["pixels"] > 0
    plus = conservation.account(net, images, "epsilon-plus")  # biases may take, so nothing is stuck
    assert plus["biases"] > 0.9
    assert abs(plus["stabilisers"]) < 1e-3
