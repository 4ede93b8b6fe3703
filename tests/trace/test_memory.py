"""Is nothing of a pass kept when its result is gone? A circle through torch's graph is invisible to the collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from microtome import Network
from microtome.attribution import deconvnet, deep_taylor, guided_backprop, lrp
from microtome.trace.delta.patched import Patched
from microtome.trace.delta.propagate import Windows
from microtome.trace.rectifiers.value_function import Value


class Watched(nn.Module):
    """A layer whose last value is watched without being held."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(1, 2, 3)
        self.seen: list[weakref.ref[Tensor]] = []

    def forward(self, x: Tensor) -> Tensor:
        value = self.layer(x)
        self.seen.append(weakref.ref(value))
        return value


def test_relevance_lets_go_of_the_values_of_its_pass() -> None:
    watched = Watched()
    model = nn.Sequential(watched, nn.ReLU(), nn.Flatten(), nn.Linear(2 * 36, 3))
    net = Network(model, input_shape=(1, 8, 8))
    for method in (lrp, deep_taylor):
        method(net, torch.rand(2, 1, 8, 8))
    gc.collect()
    assert [reference() is None for reference in watched.seen] == [True] * len(watched.seen)


def test_windows_let_go_without_the_collector() -> None:
    """The values of a pass over 32 photos are hundreds of megabytes: they must not wait for a full collection."""
    gc.collect()
    gc.disable()
    try:
        rules, place = Windows(), torch.zeros(2, 1, dtype=torch.long)
        value = Patched(torch.rand(1, 2, 4, 4), torch.rand(1, 2, 2, 2), place, place, place + 1)
        shell = rules.stand_in(value)
        held = weakref.ref(rules.content(shell))
        del shell, rules
        assert held() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("method", [guided_backprop, deconvnet, lrp])
def test_what_was_followed_is_gone_without_the_collector(method: Callable[..., object]) -> None:
    """Values of a pass refer to each other in cycles; they are taken apart, since they hold the pass's graph."""
    net = Network(nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU6(), nn.Conv2d(2, 2, 3), nn.SiLU(), nn.Flatten(),
                                nn.Linear(50, 2)), (1, 9, 9))  # fmt: skip
    images = torch.rand(1, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    method(net, images, target=0)
    gc.collect()
    gc.disable()
    try:
        before = sum(type(each) is Value for each in gc.get_objects())
        method(net, images, target=0)
        assert sum(type(each) is Value for each in gc.get_objects()) == before
    finally:
        gc.enable()
