"""Models that hold containers, compiled parts or weights without content."""

from __future__ import annotations

import copy
import random
import warnings
from collections import OrderedDict, deque

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from microtome import LayerError, ModelError, Network, OpaqueError, attribution, registry, spaces, units

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))


def plain() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 3)).eval()


class Collecting(nn.Module):
    """Keeps values in containers of all kinds, as code for features and caches does."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain()
        self.features: list[Tensor] = []
        self.cache: dict[int, Tensor] = {7: torch.ones(())}
        self.ordered: OrderedDict[int, Tensor] = OrderedDict()
        self.last: deque[Tensor] = deque(maxlen=2)
        self.sizes: set[int] = set()

    def forward(self, x: Tensor) -> Tensor:
        self.features.append(x)
        self.cache[7] = x
        self.ordered[len(self.ordered)] = x
        self.last.append(x)
        self.sizes.add(len(x))
        return self.net(x)


def test_containers_are_left_as_found() -> None:
    model = Collecting().eval()
    held, one = model.features, model.cache[7]
    net = Network(model, (3, 8, 8))
    found = attribution.guided_backprop(net, IMAGES, 1).values
    attribution.occlusion(net, IMAGES, 1, window=4, stride=4)
    assert model.features is held
    assert (len(held), len(model.ordered), len(model.last), len(model.sizes)) == (0, 0, 0, 0)
    assert model.cache.keys() == {7}
    assert model.cache[7] is one
    torch.testing.assert_close(found, attribution.guided_backprop(Network(plain(), (3, 8, 8)), IMAGES, 1).values)


class Counting(nn.Module):
    """Writes into tensors that are not buffers, draws from its own generators, and trains a plain tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.net = plain()
        self.calls, self.shift = torch.zeros(()), torch.full((3,), 0.25, requires_grad=True)
        self.rows, self.table = [torch.ones(3)], {"a": torch.ones(3), "b": nn.Parameter(torch.ones(3))}
        self.generator, self.numbers = torch.Generator().manual_seed(1), np.random.default_rng(1)
        self.python = random.Random(1)

    def forward(self, x: Tensor) -> Tensor:
        self.calls.add_(1)
        self.rows[0].mul_(2)
        self.table["a"].sub_(1)
        drawn = torch.rand((), generator=self.generator).item() + self.numbers.random() + self.python.random()
        return self.net(x) + self.shift * self.table["b"] + 0 * drawn

    def state(self) -> list[object]:
        flags = self.shift.requires_grad, self.table["b"].requires_grad
        tensors = (self.calls, self.rows[0], self.table["a"], self.generator.get_state())
        numbers = str(self.numbers.bit_generator.state), self.python.getstate()
        return [*(tensor.tolist() for tensor in tensors), *numbers, *flags]


def test_tensors_and_generators_of_its_own_are_left_as_found() -> None:
    """A weight that is not a parameter takes relevance as a bias and not as a value: the sum is right."""
    model = Counting().eval()
    before = model.state()
    net = Network(model, (3, 8, 8))
    found = attribution.lrp(net, IMAGES, 1, rules="epsilon")
    attribution.occlusion(net, IMAGES, 1, window=4, stride=4)
    assert model.state() == before
    total = found.values.flatten(1).sum(1) + found.bias_share + found.stabiliser_share
    torch.testing.assert_close(total, found.score, rtol=1e-4, atol=1e-6)


class Own(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.net = plain()

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


@pytest.mark.parametrize("part", ["module", "function"])
def test_compiled_parts_run_as_they_are_written(part: str) -> None:
    """Compiling the hooks that look at a pass takes minutes and fails; a compiler that raises shows that none runs."""

    def compiler(_graph: torch.fx.GraphModule, _inputs: list[Tensor]) -> None:
        raise AssertionError("compiled")

    model = Own()
    if part == "module":
        model.compile(backend=compiler)
    else:
        model.net[1].forward = torch.compile(torch.relu, backend=compiler)
    compiled = model._compiled_call_impl
    net, expected = Network(model, (3, 8, 8)), Network(plain(), (3, 8, 8))
    for method in (attribution.gradient, attribution.guided_backprop, attribution.lrp, attribution.grad_cam):
        torch.testing.assert_close(method(net, IMAGES, 1).values, method(expected, IMAGES, 1).values)
    assert model._compiled_call_impl is compiled
    with pytest.raises(Exception, match="compiled"):
        model(IMAGES)


def test_weights_without_content_or_gradients_are_refused() -> None:
    with pytest.raises(ModelError, match=r'"0\.weight" is on the device "meta"'):
        Network(plain().to("meta"), (3, 8, 8))
    with torch.inference_mode():
        model = plain()
    with pytest.raises(ModelError, match=r"under torch.inference_mode.*copy.deepcopy"):
        Network(model, (3, 8, 8))
    assert attribution.gradient(Network(copy.deepcopy(model), (3, 8, 8)), IMAGES, 1).values.any()


def test_a_scripted_model_is_named_and_has_no_units() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        net = Network(torch.jit.trace(plain(), IMAGES), (3, 8, 8))
    with pytest.raises(OpaqueError, match="the model, which is scripted or traced, hides its own"):
        attribution.guided_backprop(net, IMAGES)
    with pytest.raises(LayerError, match="no layer of this network has units"):
        units.top_patches(net, list(IMAGES))


def test_images_of_a_library_of_its_own_kind() -> None:
    class Labelled(Tensor):
        pass

    net = Network(plain(), (3, 8, 8))
    found = attribution.gradient(net, IMAGES.as_subclass(Labelled), 1).values
    assert type(found) is Tensor
    torch.testing.assert_close(found, attribution.gradient(net, IMAGES, 1).values)


class Beside(nn.Module):
    """Weights that no module holds: parameters of modules in a list, and of a function; or the same as its own."""

    def __init__(self, *, own: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        parts = [nn.Conv2d(6, 6, 3, padding=1), nn.PReLU(6, 0.3), nn.Linear(6, 6), nn.Linear(6, 4)]
        bias, matrix = nn.Parameter(torch.randn(6, 1, 1)), nn.Parameter(torch.randn(6, 6))
        self.parts = nn.ModuleList(parts) if own else parts
        self.held = nn.ParameterList([bias, matrix]) if own else None
        self.add, self.multiply = (lambda y: y + (2 * bias).tanh()), (lambda f: f @ matrix)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        conv, slope, linear, head = self.parts
        y = slope(self.add(conv(torch.relu(self.conv(x)))))
        return head(torch.relu(self.multiply(linear(y.mean((2, 3))))))

    def learning(self) -> list[nn.Parameter]:
        inside = [cell.cell_contents for f in (self.add, self.multiply) for cell in f.__closure__]
        return [*self.parameters(), *(p for part in self.parts for p in part.parameters()), *inside]


@pytest.mark.parametrize("method", ["lrp", "deep-taylor", "guided-backprop", "deconvnet"])
def test_weights_that_no_module_holds_are_constants(method):
    """Oracle: the same model with the same weights as its own; and the account of relevance adds up to the score."""
    outside, own = Beside(own=False), Beside(own=True)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    a, b = (registry.method(method).function(Network(model, (3, 8, 8)), x, 1) for model in (outside, own))
    assert torch.equal(a.values, b.values)
    if "lrp" in method:
        total = a.values.flatten(1).sum(1) + a.bias_share + a.stabiliser_share
        torch.testing.assert_close(total, own(x)[:, 1].detach(), rtol=1e-3, atol=1e-4)
    assert all(weight.requires_grad and weight.grad is None for weight in outside.learning())


class NamedByText(nn.Module):
    """The class scores compare with features that were computed when the model was made, as CLIP's of class names."""

    def __init__(self, *, detached: bool) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv, self.text = nn.Conv2d(3, 6, 3), nn.Embedding(4, 6)
        features = self.text(torch.arange(4)) / 2
        self.features = features.detach() if detached else features

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.conv(x)).mean((2, 3)) @ self.features.T


@pytest.mark.parametrize("method", ["lrp", "guided-backprop", "grad-cam"])
def test_a_tensor_computed_before_the_pass_is_a_constant(method):
    """Oracle: the same model whose tensor has no graph."""
    kept, plain_ = NamedByText(detached=False), NamedByText(detached=True)
    x = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    a, b = (registry.method(method).function(Network(model, (3, 8, 8)), x, 1) for model in (kept, plain_))
    assert torch.equal(a.values, b.values)
    assert kept.features.grad_fn is not None
    assert kept.text.weight.requires_grad
    shares = [spaces.kept_and_lost(Network(model, (3, 8, 8)), x).share for model in (kept, plain_)]
    torch.testing.assert_close(*shares)
