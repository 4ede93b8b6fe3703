"""Is nothing of a pass kept when its result is gone? A circle through torch's graph is invisible to the collector."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from microtome import Network
from microtome.attribution import deconvnet, deep_taylor, guided_backprop, lrp, saliency
from microtome.trace.delta.patched import Patched
from microtome.trace.delta.propagate import Windows


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


@pytest.mark.parametrize("method", [saliency, guided_backprop, deconvnet, lrp])
def test_nothing_is_left_for_the_collector(method: Callable[..., object]) -> None:
    """What is noted of a pass refers to itself in cycles. They are taken apart, since they hold the pass's graph."""
    body = [nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU6(inplace=True)) for _ in range(20)]
    model = nn.Sequential(nn.Conv2d(1, 4, 3), *body, nn.SiLU(), nn.Flatten(), nn.Linear(196, 2))
    net = Network(model, (1, 9, 9))
    images = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(0))
    method(net, images[:1], target=0)
    gc.collect()
    gc.disable()
    try:
        method(net, images[:1], target=0)  # a graph that is known
        method(net, images, target=0)  # another one
        gc.set_debug(gc.DEBUG_SAVEALL)  # what is unreachable is listed; other threads may leave something, too
        gc.collect()
        left = {type(thing).__module__.partition(".")[0] for thing in gc.garbage}
    finally:
        gc.set_debug(0)
        gc.garbage.clear()
        gc.enable()
    assert not left & {"microtome", "torch"}
