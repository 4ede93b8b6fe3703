"""A pass whose graph is known is not watched, and has the same result; any other pass is watched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network, attribution
from microtome.trace.tracing.tracer import Tracer

METHODS = [attribution.guided_backprop, attribution.deconvnet]
IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(3))
Step = Callable[[Any, Tensor], Tensor]


class Model(nn.Module):
    """A convolution, a step that reads the model's mode, a convolution and a head."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.step, self.mode = step, 0
        self.register_buffer("weights", torch.linspace(-1, 1, 6)[:, None, None])
        self.a, self.b, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator) * 0.4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.step(self, self.a(x))).mean((2, 3)))


def made(step: Step) -> tuple[Model, Network]:
    model = Model(step).eval()
    return model, Network(model, (3, 8, 8))


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The calls that were watched since the list was cleared."""
    calls: list[str] = []
    watch = Tracer.__torch_function__

    def noted(self: Tracer, func: Any, *rest: Any) -> Any:
        calls.append(str(func))
        return watch(self, func, *rest)

    monkeypatch.setattr(Tracer, "__torch_function__", noted)
    return calls


STEPS: dict[str, Step] = {
    "relu": lambda _, x: F.relu(x),
    "relu6, in place": lambda _, x: F.relu6(x, inplace=True),
    "gelu": lambda _, x: F.gelu(x),
    "two of them and a sum": lambda _, x: F.relu(F.relu(x) - F.leaky_relu(x.roll(1, 1).contiguous().relu())),
    "saturating": lambda _, x: F.relu(x) * F.relu(x).mean((2, 3), keepdim=True).sigmoid(),
    "pooled": lambda _, x: F.interpolate(F.max_pool2d(F.silu(x), 2), scale_factor=2),
}
KEPT = [name for name in STEPS if name != "two of them and a sum"]  # rolled values are not kept


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", KEPT)
def test_the_second_pass_of_a_graph_is_not_watched_and_gives_the_same_bytes(
    method: Any, name: str, watched: list[str]
) -> None:
    _, net = made(STEPS[name])
    first = method(net, IMAGES, 1).values
    assert watched
    watched.clear()
    assert torch.equal(method(net, IMAGES, 1).values, first)
    assert not watched


# Each makes two passes of one model: its graph, or what the same graph means, changes with the mode.
CHANGES: dict[str, Step] = {
    "another function": lambda model, x: F.relu(x) if model.mode == 0 else F.tanh(x),
    "a rectifier more": lambda model, x: F.relu(x) if model.mode == 0 else F.relu(F.relu(x) - 1),
    "other bounds": lambda model, x: F.hardtanh(x, 0, 6) if model.mode == 0 else F.hardtanh(x, -1, 6),
    "a negative slope": lambda model, x: F.leaky_relu(x, 0.1) if model.mode == 0 else F.leaky_relu(x, -1.0),
    "a sum that is a rectifier": lambda model, x: F.relu(x).add(x, alpha=-1) if model.mode == 0 else F.relu(x).add(x),
    "a mask in place of weights": lambda model, x: x * (model.weights if model.mode == 0 else (x.detach() > 0).float()),
    "a choice in place of a sum": lambda model, x: x + (0 * x if model.mode == 0 else x.abs()),
    "straight through": lambda model, x: x + (model.weights if model.mode == 0 else (F.relu(x) - x).detach()),
    "other parts": lambda model, x: torch.cat(
        [F.relu(x[:, :3]) + x[:, 3 * (1 - model.mode) : 6 - 3 * model.mode], x[:, :3]], 1
    ),
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("change", CHANGES)
def test_a_pass_that_takes_another_path_has_the_result_of_a_model_that_never_took_the_first(
    method: Any, change: str
) -> None:
    model, net = made(CHANGES[change])
    before = [method(net, IMAGES, 1).values for _ in range(2)]
    assert torch.equal(*before)
    model.mode = 1
    found = [method(net, IMAGES, 1).values for _ in range(2)]
    fresh, other = made(CHANGES[change])
    fresh.mode = 1
    expected = method(other, IMAGES, 1).values
    assert all(torch.equal(values, expected) for values in found)
    model.mode = 0
    assert torch.equal(method(net, IMAGES, 1).values, before[0])


def test_a_model_of_several_paths_is_watched_from_then_on(watched: list[str]) -> None:
    model, net = made(CHANGES["another function"])
    for mode in (0, 1, 0, 0):
        model.mode = mode
        watched.clear()
        attribution.guided_backprop(net, IMAGES, 1)
        assert watched, mode


@pytest.mark.parametrize("legacy", [False, True])
def test_backward_hooks_of_the_user_do_not_change_the_second_pass(legacy: bool) -> None:
    model, net = made(STEPS["relu"])
    plain = attribution.guided_backprop(net, IMAGES, 1).values
    register = nn.Module.register_backward_hook if legacy else nn.Module.register_full_backward_hook
    hook = register(model.b, lambda _module, sent, _arrived: tuple(3 * slope for slope in sent if slope is not None))
    assert torch.equal(attribution.guided_backprop(net, IMAGES, 1).values, plain)
    hook.remove()


def test_layers_sizes_and_methods_are_known_apart(watched: list[str]) -> None:
    _, net = made(STEPS["relu"])
    kinds: list[Callable[[], Tensor]] = [
        lambda: attribution.guided_backprop(net, IMAGES, 1).values,
        lambda: attribution.deconvnet(net, IMAGES, 1).values,
        lambda: attribution.guided_backprop(net, IMAGES[:1], 1).values,
        lambda: net.run(IMAGES, record=["a", "input"], gradient=True, rules="guided").gradient["a"],
        lambda: net.run(
            IMAGES, record="input", gradient=True, rules="guided", output_layer="b", grad_output=torch.ones_like
        ).gradient["input"],
    ]
    first = [run() for run in kinds]
    watched.clear()
    assert all(torch.equal(run(), values) for run, values in zip(kinds, first, strict=True))
    assert not watched
