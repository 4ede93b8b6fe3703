"""What do models do that no textbook shows? Outputs, wrappers and tricks that every method must survive or refuse."""

from __future__ import annotations

from collections import OrderedDict
from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from torch.utils.checkpoint import checkpoint

from conformance.spellings import Parts, weights
from microtome import InputError, LayerError, ModelError, Network, OpaqueError, attribution

SHAPE = (3, 12, 10)
RULED = [attribution.guided_backprop, attribution.deconvnet]


class Plain(Parts):
    def rectify(self, x):
        return F.relu(x)

    def body(self, x):
        return Parts.forward(self, x)


def images(n: int = 2) -> torch.Tensor:
    return torch.rand(n, *SHAPE, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def plain() -> Plain:
    return Plain(weights("plain", 3))


def subclass(forward) -> nn.Module:
    return type("Made", (Plain,), {"forward": forward})(weights("plain", 3))


OUTPUTS = {
    "softmax": lambda self, x: self.body(x).softmax(1),
    "log_softmax": lambda self, x: F.log_softmax(self.body(x), dim=-1),
    "dict": lambda self, x: {"features": x, "logits": self.body(x)},
    "tuple": lambda self, x: (self.body(x), x),
    "namespace": lambda self, x: SimpleNamespace(logits=self.body(x), hidden=x),
    "ordered dict": lambda self, x: OrderedDict(out=self.body(x), aux=x),
    "checkpoint": lambda self, x: checkpoint(self.body, x, use_reentrant=False),
    "re-entrant checkpoint": lambda self, x: checkpoint(self.body, x, use_reentrant=True),
    "no batch norm, scalar gain": lambda self, x: self.body(x) * torch.tensor(1.0, dtype=x.dtype),
}


@pytest.mark.parametrize("kind", sorted(OUTPUTS))
@pytest.mark.parametrize("method", ["gradient", "guided_backprop", "deconvnet", "grad_cam", "occlusion", "cam"])
def test_outputs_and_wrappers(kind, method):
    """The class score is the same, so every map is; the logit, not the probability, is explained."""
    options = {"window": 4, "stride": 4} if method == "occlusion" else {}
    function = getattr(attribution, method)
    expected = function(Network(plain(), SHAPE), images(), 1, **options)
    result = function(Network(subclass(OUTPUTS[kind]), SHAPE), images(), 1, **options)
    torch.testing.assert_close(result.values, expected.values, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(result.score, expected.score, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda model: torch.compile(model, backend="eager")])
@pytest.mark.parametrize("function", [attribution.gradient, *RULED])
def test_wrapped_models(wrap, function):
    expected = function(Network(plain(), SHAPE), images(), 1).values
    torch.testing.assert_close(function(Network(wrap(plain()), SHAPE), images(), 1).values, expected)


@pytest.mark.parametrize("norm", [parametrizations.weight_norm, parametrizations.spectral_norm])
def test_parametrised_weights(norm):
    """Weights made on the fly from others; spectral norm also iterates a buffer in training."""
    model = plain()
    norm(model.c1)
    with torch.no_grad():
        model(images())
    bare = plain()
    model.eval()
    bare.c1.weight.data.copy_(model.c1.weight.detach())
    model.train()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    for function in (attribution.gradient, attribution.grad_cam, *RULED):
        a, b = (function(Network(m, SHAPE), images(), 1).values for m in (model, bare))
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.filterwarnings("ignore:.torch.jit")
@pytest.mark.parametrize("make", [torch.jit.script, lambda m: torch.jit.trace(m, torch.zeros(1, 6, 6, 5).double())])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_scripted_parts(make):
    """Gradients pass through; rules cannot, and say which part it is."""
    model, expected = plain(), attribution.gradient(Network(plain(), SHAPE), images(), 1).values
    tail = nn.Sequential(model.c2, nn.ReLU())
    head = nn.Sequential(model.c1, nn.ReLU(), model.pool)
    mixed = nn.Sequential(OrderedDict(head=head, tail=make(tail), gap=model.gap, flat=nn.Flatten(), fc=model.fc))
    net = Network(mixed, SHAPE)
    torch.testing.assert_close(attribution.gradient(net, images(), 1).values, expected)
    regions = attribution.grad_cam(Network(plain(), SHAPE), images(), 1).values
    torch.testing.assert_close(attribution.grad_cam(net, images(), 1, layer="tail").values, regions)
    for function in RULED:
        with pytest.raises(OpaqueError, match="tail"):
            function(net, images(), 1)


class Swish(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x):
        ctx.save_for_backward(x)
        return x * torch.sigmoid(x)

    @staticmethod
    def backward(ctx, signal):
        (x,) = ctx.saved_tensors
        s = torch.sigmoid(x)
        return signal * (s + x * s * (1 - s))


def test_autograd_functions_are_named_where_a_rule_is_needed():
    model = subclass(lambda self, x: self.fc(Swish.apply(self.c1(x)).mean((2, 3))))
    other = subclass(lambda self, x: self.fc(F.silu(self.c1(x)).mean((2, 3))))
    a, b = (attribution.gradient(Network(m, SHAPE), images(), 1).values for m in (model, other))
    torch.testing.assert_close(a, b)
    for function in RULED:
        with pytest.raises(OpaqueError, match="Swish"):
            function(Network(model, SHAPE), images(), 1)


def test_a_value_is_the_one_before_it_is_overwritten():
    """Grad-CAM at a convolution whose output an in-place ReLU overwrites reads the convolution, not the ReLU."""
    quiet, loud = (
        plain(),
        subclass(lambda self, x: self.fc(self.c2(self.pool(self.c1(x).relu_())).relu_().mean((2, 3)))),
    )
    kept = [Network(m, SHAPE).activations(images(), ["c1", "c2", "input"]) for m in (quiet, loud)]
    for layer in ("c1", "c2"):
        assert torch.equal(kept[0][layer], kept[1][layer])
        assert bool((kept[1][layer] < 0).any())
        a, b = (attribution.grad_cam(Network(m, SHAPE), images(), 1, layer=layer).values for m in (quiet, loud))
        torch.testing.assert_close(a, b, rtol=1e-12, atol=0)


def test_overwriting_what_the_gradient_needs_is_said():
    model = subclass(lambda self, x: self.fc(self.c1(x).sigmoid().square().add_(0).mean((2, 3))))
    attribution.gradient(Network(model, SHAPE), images(), 1)  # harmless in-place: fine

    def broken(self, x):
        a = self.c1(x).sigmoid()
        b = self.c2(a)
        a.mul_(2)
        return self.fc(b.mean((2, 3)) + a.mean((2, 3)))

    with pytest.raises(ModelError, match="cannot be differentiated"):
        attribution.gradient(Network(subclass(broken), SHAPE), images(), 1)


def test_a_detached_score_is_said():
    model = subclass(lambda self, x: self.body(x).detach())
    with pytest.raises(OpaqueError, match="does not depend on"):
        attribution.saliency(Network(model, SHAPE), images(), 1)


def test_raw_tensors_without_any_parameter():
    """A model of float32 tensors that no module knows."""
    p = weights("plain", 3, torch.float32)

    class Raw(nn.Module):
        def forward(self, x):
            return F.linear(F.relu(F.conv2d(x, p["w1"], p["b1"])).mean((2, 3)), p["wf"], p["bf"])

    net = Network(Raw(), SHAPE)
    guided, slope = (f(net, images().float(), 1).values for f in (attribution.guided_backprop, attribution.gradient))
    assert not torch.allclose(guided, slope)


NAN = subclass(lambda self, x: self.fc((self.c1(x) * 0).sqrt().mean((2, 3))))


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda net: attribution.saliency(net, images(), 9), InputError, "4 classes"),
        (lambda net: attribution.saliency(net, images(), [1]), InputError, "2 targets"),
        (lambda net: attribution.saliency(net, images(), "cat"), InputError, "class"),
        (lambda net: attribution.saliency(net, images() * 3, 1), InputError, "lie in"),
        (lambda net: attribution.saliency(net, images(), 1, batch=0), InputError, "batch"),
        (lambda net: attribution.grad_cam(net, images(), layer="fc"), LayerError, "height and width"),
        (lambda net: attribution.grad_cam(net, images(), layer="c9"), LayerError, "Nearest"),
        (lambda net: attribution.occlusion(net, images(), window=20, stride=1), InputError, "larger than the image"),
        (lambda net: attribution.occlusion(net, images(), window=3, stride=0), InputError, "stride"),
        (lambda net: attribution.occlusion(net, images(), window=3, stride=3, fill="grey"), InputError, "fill"),
        (lambda net: attribution.integrated_gradients(net, images(), rule="simpson"), InputError, "midpoint"),
        (lambda net: attribution.smooth_grad(net, images(), noise=-1), InputError, "negative"),
        (lambda net: attribution.compare(net, images(), methods=["salience"]), InputError, "Nearest: saliency"),
        (lambda net: attribution.saliency(Network(NAN, SHAPE), images(), 1), ModelError, "not finite"),
    ],
)
def test_bad_input_is_one_clear_error(call, error, words):
    with pytest.raises(error, match=words):
        call(Network(plain(), SHAPE))


def test_cam_asks_for_its_architecture():
    flat = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU(), nn.Flatten(), nn.Linear(2 * 10 * 8, 3))
    deep = nn.Sequential(
        nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 5), nn.Tanh(), nn.Linear(5, 3)
    )
    peak = nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(2, 3))
    for model, words in ((flat, "no layer averages"), (deep, "not linear"), (peak, "no mean")):
        with pytest.raises(LayerError, match=words) as caught:
            attribution.cam(Network(model, SHAPE), images().float(), 1)
        assert "convert" in str(caught.value)
