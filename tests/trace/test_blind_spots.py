"""What the tracer cannot see is refused by name where rules are needed, and costs nothing but time elsewhere."""

from __future__ import annotations

import importlib
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from microtome import ModelError, Network, OpaqueError, attribution, units
from microtome.errors import InputError
from microtome.trace.tracing.tracer import Tracer

IMAGES = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(1))


def fused(a: Tensor, b: Tensor) -> Tensor:
    return torch.relu(a + b)


class Own(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, a: Tensor, b: Tensor) -> Tensor:
        ctx.save_for_backward(a + b)
        return fused(a, b)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, Tensor]:
        (total,) = ctx.saved_tensors
        return g * (total > 0), g * (total > 0)


def batched(a: Tensor, b: Tensor) -> Tensor:
    return torch.vmap(fused)(a, b)


def scripted() -> Callable[..., Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        made: Callable[..., Tensor] = torch.jit.script(fused)
    return made


HIDDEN: dict[str, tuple[Callable[[], Callable[..., Tensor]], str]] = {
    "scripted": (scripted, 'the scripted or traced function "fused" in "Model.forward"'),
    "vmap": (lambda: batched, 'that does not run in Python, in "Model.forward"'),
    "autograd function": (lambda: Own.apply, 'the autograd function "Own"'),
}


class Model(nn.Module):
    def __init__(self, function: Callable[..., Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.function = function
        self.c, self.d = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.h = nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.relu(self.c(x))
        x = self.function(x, self.d(x))
        return self.h(x.mean((2, 3)))


@pytest.fixture(params=HIDDEN)
def hidden(request: pytest.FixtureRequest) -> tuple[Network, str]:
    make, text = HIDDEN[request.param]
    return Network(Model(make()).eval(), (3, 16, 16)), text


@pytest.fixture(scope="module")
def plain() -> Network:
    return Network(Model(fused).eval(), (3, 16, 16))


class Transformed(nn.Module):
    """A head that is run inside a function transform."""

    def __init__(self, transform: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.transform = transform
        self.c, self.h = nn.Conv2d(3, 8, 3, padding=1), nn.Sequential(nn.Linear(8, 6), nn.ReLU(), nn.Linear(6, 4))

    def forward(self, x: Tensor) -> Tensor:
        return self.transform(self.h, torch.relu(self.c(x)).mean((2, 3)))


TRANSFORMS: dict[str, Callable[[nn.Module, Tensor], Tensor]] = {
    "vmap": lambda head, v: torch.vmap(head)(v),
    "vmap of vmap": lambda head, v: torch.vmap(torch.vmap(head))(v[:, None])[:, 0],
    "jvp": lambda head, v: torch.func.jvp(head, (v,), (v,))[1],
}


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")  # torch 2.14, in its own forward mode too
@pytest.mark.parametrize("transform", TRANSFORMS)
def test_modules_inside_a_function_transform(transform: str) -> None:
    """Nothing is looked at there: all batches are read, and gradients are those of plain autograd."""
    model = Transformed(TRANSFORMS[transform]).eval()
    net = Network(model, (3, 16, 16))
    leaf = IMAGES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    result = attribution.gradient(net, IMAGES, target=1)
    torch.testing.assert_close(result.values, expected)
    assert not result.notes
    assert "c" in units.top_patches(net, [(image, 0) for image in IMAGES], k=1).layers
    with pytest.raises(OpaqueError, match="hides its own"):
        attribution.lrp(net, IMAGES)


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet", "lrp", "deep_taylor"])
def test_rules_refuse_by_name_what_they_cannot_see(hidden: tuple[Network, str], method: str) -> None:
    net, text = hidden
    with pytest.raises(OpaqueError) as raised:
        getattr(attribution, method)(net, IMAGES, target=1)
    assert text in str(raised.value)


def test_gradients_and_windows_are_those_of_the_plain_model(hidden: tuple[Network, str], plain: Network) -> None:
    """Oracle: the same function written in Python, its occlusion by whole covered images."""
    net, _ = hidden
    torch.testing.assert_close(
        attribution.gradient(net, IMAGES, target=1).values, attribution.gradient(plain, IMAGES, target=1).values
    )
    found = attribution.occlusion(net, IMAGES, 1, window=4, stride=4, fill=0.0).logit
    for row in range(4):
        for column in range(4):
            covered = IMAGES.clone()
            covered[:, :, 4 * row : 4 * row + 4, 4 * column : 4 * column + 4] = 0
            torch.testing.assert_close(found[:, row, column], plain.logits(covered)[:, 1], rtol=1e-5, atol=1e-6)


def test_fields_behind_a_hidden_function_are_the_whole_image(hidden: tuple[Network, str]) -> None:
    net, _ = hidden
    # Without a gradient somebody's own autograd function runs in Python and is seen.
    seen = getattr(net.model.function, "__self__", None) is Own
    field = net.layers["h"].field
    assert (field is not None and field.size == (20, 20)) if seen else field is None
    found = net.layers["d"].field
    assert found is not None
    assert found.size == (5, 5)


def test_patches_behind_a_scripted_function_are_whole_images() -> None:
    top = units.top_patches(Network(Model(scripted()).eval(), (3, 16, 16)), [(image, 0) for image in IMAGES], k=1)
    assert top["h"].box(0, 0) == (0, 0, 16, 16)


def test_a_mixture_of_seen_and_hidden_values_has_no_small_field() -> None:
    class Mixed(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = self.c(x)
            return self.h(self.d(y + self.function(y, y.flip(2))).mean((2, 3)))

    layers = Network(Mixed(scripted()).eval(), (3, 16, 16)).layers
    assert layers["/add"].field is None
    assert layers["d"].field is None
    assert layers["c"].field is not None


def test_a_scripted_activation_of_an_idiom_is_named_by_its_variable() -> None:
    act = scripted()

    class Local(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = self.c(x)
            return self.h(act(y, self.d(y)).mean((2, 3)))

    with pytest.raises(OpaqueError, match="fused"):
        attribution.guided_backprop(Network(Local(fused).eval(), (3, 16, 16)), IMAGES)


class Energy(Model):
    """Takes a gradient itself."""

    def forward(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            y = self.c(x)
            y = y if y.requires_grad else y.detach().requires_grad_()
            (slope,) = torch.autograd.grad(y.tanh().sum(), y, create_graph=True)
        return self.h((y + slope).mean((2, 3)))


def test_a_model_that_takes_gradients_itself() -> None:
    """Oracles: plain autograd, and the function written with the derivative of tanh."""
    model = Energy(fused).eval()
    net = Network(model, (3, 16, 16))
    leaf = IMAGES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(model(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(attribution.gradient(net, IMAGES, target=1).values, expected)
    with torch.no_grad():
        y = model.c(IMAGES)
        value = (y + 1 - y.tanh() ** 2).mean((2, 3))
    top = units.top_patches(net, [(image, 0) for image in IMAGES], layers=["/mean"], k=1)["/mean"]
    torch.testing.assert_close(top.activation[:, 0], value.amax(0))
    for method in (attribution.guided_backprop, attribution.lrp):
        with pytest.raises(OpaqueError, match=r'a gradient that the model takes itself in "Energy\.forward"'):
            method(net, IMAGES, target=1)


def test_a_gradient_that_does_not_exist_is_an_error() -> None:
    """As behind an int8 layer: here the values go through NumPy, which torch calls no gradient of."""

    class Int8(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = self.c(x).mean((2, 3))
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                q = torch.quantize_per_tensor(y.detach(), 0.01, 0, torch.qint8).dequantize()
            return self.h(torch.where(torch.ones_like(q, dtype=torch.bool), q, 0 * self.p) + 0 * self.p)

    model = Int8(fused).eval()
    model.p = nn.Parameter(torch.zeros(1))
    with pytest.raises(OpaqueError, match="differentiable operations"):
        attribution.gradient(Network(model, (3, 16, 16)), IMAGES)


def test_a_detached_layer_has_no_gradient_beside_one_that_has() -> None:
    class Detached(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = self.c(x)
            return self.h((self.d(y).detach() * y).mean((2, 3)))

    net = Network(Detached(fused).eval(), (3, 16, 16))
    assert bool(net.run(IMAGES, 0, record="c", gradient=True).gradient["c"].any())
    with pytest.raises(OpaqueError, match='the score depends on "d"'):
        net.run(IMAGES, 0, record=("c", "d"), gradient=True)


def test_a_layer_that_leads_nowhere_has_gradient_zero() -> None:
    class Aside(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = self.c(x)
            self.d(y)
            return self.h(y.mean((2, 3)))

    record = Network(Aside(fused).eval(), (3, 16, 16)).run(IMAGES, 0, record=("c", "d"), gradient=True)
    assert not bool(record.gradient["d"].any())
    assert bool(record.gradient["c"].any())


class Broken:
    """An observer with a fault."""

    name = "a broken reader"

    def enter(self, name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        """Nothing."""

    def operation(self, call: Any, output: Any) -> None:
        """Nothing."""

    def leave(self, name: str, module: nn.Module, output: Any) -> None:
        """Nothing."""


def test_faults_of_our_own_readers_are_not_the_models(monkeypatch: pytest.MonkeyPatch) -> None:
    module = importlib.import_module("microtome.trace.fingerprint")
    net = Network(Model(fused).eval(), (3, 16, 16))
    monkeypatch.setattr(module._Digest, "_bytes", ().__getitem__)  # raises TypeError when it is given a tensor
    with pytest.raises(OpaqueError, match=r"fingerprint failed with TypeError.*The fault is in microtome"):
        module.fingerprint(net.model, IMAGES[:1])


def test_what_only_breaks_under_rules_is_not_the_models() -> None:
    from microtome.trace.backward_rules import RuleSet

    class Views(RuleSet):
        name = "views"

        def run(self, call: Any) -> Any:
            output = call.run()
            return output.flatten(1) if call.kind == "relu" else output

    net = Network(Model(fused).eval(), (3, 16, 16))
    with pytest.raises(OpaqueError, match="views failed"):
        net.run(IMAGES, 0, record="input", gradient=True, rules=Views())


def test_a_users_replacement_that_raises_is_the_users() -> None:
    net = Network(Model(fused).eval(), (3, 16, 16))
    with pytest.raises(InputError, match='the replacement for layer "d" raised ZeroDivisionError'):
        net.run(IMAGES, record="h", replace={"d": lambda value: 1 / 0})


class Unfinished(torch.autograd.Function):
    """A user's function whose backward pass raises."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, signal: Tensor) -> Tensor:
        raise TypeError("to be written")


def test_a_backward_of_the_models_own_that_raises_is_the_models() -> None:
    class Forward(Model):
        def forward(self, x: Tensor) -> Tensor:
            scores: Tensor = Unfinished.apply(super().forward(x))
            return scores

    net = Network(Forward(fused).eval(), (3, 16, 16))
    with pytest.raises(ModelError, match="cannot be differentiated: TypeError: to be written"):
        attribution.gradient(net, IMAGES, 1)


def test_a_model_that_raises_is_blamed() -> None:
    class Raises(Model):
        def forward(self, x: Tensor) -> Tensor:
            if len(x) == 2:
                raise KeyError("two")
            return super().forward(x)

    net = Network(Raises(fused).eval(), (3, 16, 16))
    with pytest.raises(ModelError, match="the model raised KeyError"):
        Tracer(net.model, observer=Broken())(IMAGES)
