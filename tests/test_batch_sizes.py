"""How many images go through at once, where nobody says?"""

from __future__ import annotations

import pytest
import torch
from torch import nn

from microtome import Network, attribution
from microtome.batch_sizes import fitting

MIB = 2**20


def network(channels: int, layers: int = 1, size: int = 512) -> Network:
    """Each convolution gives ``channels`` MiB for an image of 512 x 512."""
    body = [nn.Conv2d(channels if depth else 1, channels, 1) for depth in range(layers)]
    return Network(nn.Sequential(*body, nn.AdaptiveAvgPool2d(1), nn.Flatten()), input_shape=(1, size, size))


@pytest.mark.parametrize(
    ("net", "expected"),
    [
        (network(12), 2),  # the largest value: 2 x 12 MiB stay under 32, 3 do not
        (network(5), 6),
        (network(5, layers=40), 3),  # all values: 3 x 200 MiB stay under 768, 4 do not
        (network(40), 1),
        (network(3, size=8), 64),
    ],
)
def test_the_way_back_keeps_values_under_their_bounds(net: Network, expected: int) -> None:
    assert fitting(net, None, backwards=True) == expected
    assert fitting(net, 7, backwards=True) == 7


def test_values_of_twice_the_digits_count_twice() -> None:
    net = network(5)
    assert fitting(Network(net.model.double(), (1, 512, 512)), None, backwards=True) == 3


def test_methods_run_as_many_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Spy: the sizes of the passes that integrated gradients make."""
    net, seen = network(12), []
    whole = type(net).run

    def spied(self: Network, images: torch.Tensor, *args: object, **kwargs: object) -> object:
        seen.append(len(images))
        return whole(self, images, *args, **kwargs)

    monkeypatch.setattr(Network, "run", spied)
    attribution.integrated_gradients(net, torch.rand(1, 1, 512, 512), 0, steps=5)
    assert max(seen) == 2
