"""SimpleConvNet from 32-64-64 to 8-16-16 channels in seven rounds of pruning and retraining, on all of MNIST."""

from __future__ import annotations

import pytest

from microtome import Network, data, surgery
from microtome.training import train_network


@pytest.mark.slow
def test_seven_rounds_lose_at_most_three_tenths_of_a_point(tmp_path):
    done = train_network("simple-convnet", "mnist", out=tmp_path / "run")
    net = Network(done.model, (1, 28, 28), 0.1307, 0.3081)
    asked = {"conv1": 8, "conv2": 16, "conv3": 16}
    found = surgery.prune(
        net, data.mnist("train+validation"), test=data.mnist("test"), rounds=7, channels=asked, tolerance=0.003,
        folder=tmp_path / "rounds",
    )  # fmt: skip
    assert len(found.rounds) == 7
    assert {layer: found.rounds[-1].channels[layer] for layer in asked} == asked
    assert found.rounds[-1].retrained >= found.accuracy - 0.003
