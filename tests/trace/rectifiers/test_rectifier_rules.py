"""Guided backpropagation and deconvnet act at rectifiers in every spelling, and say what they could not tell."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network, attribution

Function = Callable[[Tensor], Tensor]
IMAGES = torch.rand(2, 3, 7, 6, dtype=torch.double, generator=torch.Generator().manual_seed(1))


class Model(nn.Module):
    """Convolution, the function under test, convolution, head."""

    def __init__(self, act: Function) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(0)
        self.act = act
        self.c, self.d, self.h = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3), nn.Linear(6, 4)
        self.double()
        for parameter in self.parameters():
            parameter.data.copy_(torch.randn(parameter.shape, generator=generator, dtype=torch.double) * 0.4)

    def forward(self, x: Tensor) -> Tensor:
        return self.h(self.d(self.act(4 * self.c(x))).mean((2, 3)))


def by_hand(method: str, function: Function | None, images: Tensor) -> Tensor:
    """The paper's rule at one nonlinearity: an autograd function whose backward is written out."""

    class Rule(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Tensor) -> Tensor:
            ctx.save_for_backward(x)
            return function(x)

        @staticmethod
        def backward(ctx: Any, g: Tensor) -> Tensor:
            (x,) = ctx.saved_tensors
            with torch.enable_grad():
                leaf = x.detach().requires_grad_()
                (slope,) = torch.autograd.grad(function(leaf).sum(), leaf)
            if method == "gradient":
                return g * slope
            return g.clamp(min=0) * slope if method == "guided" else g.clamp(min=0)

    leaf = images.clone().requires_grad_()
    (found,) = torch.autograd.grad(Model(Rule.apply)(leaf)[:, 1].sum(), leaf)
    return found


def ours(method: str, act: Function) -> attribution.Attribution:
    run = {"guided": attribution.guided_backprop, "deconvnet": attribution.deconvnet}[method]
    net = Network(Model(act).eval(), (3, 7, 6))
    found = run(net, IMAGES, target=1)
    again = run(net, IMAGES, target=1)  # may find its rectifiers where the first pass had them
    assert torch.equal(found.values, again.values)
    assert found.unrecognised == again.unrecognised
    return found


def masked(x: Tensor) -> Tensor:
    x[x < 0] = 0
    return x


def masked_inside(x: Tensor) -> Tensor:
    y = x.clone()
    y.masked_fill_(y.lt(0), 0.0)
    return y


def on_a_part(x: Tensor) -> Tensor:
    x[:, :3].relu_()
    x[:, 3:].relu_()
    return x


def shared(x: Tensor) -> Tensor:
    mask = x > 0
    mask = mask.to(x.dtype)
    return mask * x


SLOPE = torch.tensor([0.1, 0.2, 0.3, 0.05, 0.4, 1.0], dtype=torch.double)[:, None, None]
BETA = torch.tensor([0.5, 1.0, 2.0, 1.5, 0.7, 1.1], dtype=torch.double)[:, None, None]

RELU: dict[str, Function] = {
    "F.relu": F.relu,
    "mask.float": lambda x: x * (x > 0).double(),
    "mask.type": lambda x: x * (x > 0).type(x.dtype),
    "mask.to": lambda x: x * (x >= 0).to(x.dtype),
    "mask alone": lambda x: x * (x > 0),
    "mask first": shared,
    "gt": lambda x: x * x.gt(0),
    "turned mask": lambda x: x * (~(x <= 0)),
    "logical_not": lambda x: x * torch.logical_not(x < 0),
    "one minus mask": lambda x: x * (1 - (x < 0).double()),
    "aten": lambda x: torch.ops.aten.relu.default(x),
    "aten packet": lambda x: torch.ops.aten.relu(x),
    "lerp of a constant of x's type": lambda x: torch.zeros(()).to(x).lerp(x, (x > 0).to(x.dtype)),
    "maximum": lambda x: torch.maximum(torch.zeros_like(x), x),
    "maximum of a scalar": lambda x: torch.maximum(x, torch.zeros((), dtype=x.dtype)),
    "max": lambda x: torch.max(x, torch.zeros_like(x)),
    "fmax": lambda x: torch.fmax(x, torch.zeros((), dtype=x.dtype)),
    "clamp_min": lambda x: x.clamp_min(0),
    "clamp": lambda x: x.clamp(min=0.0),
    "clamp to inf": lambda x: x.clamp(0, float("inf")),
    "abs": lambda x: (x + x.abs()) / 2,
    "abs method": lambda x: 0.5 * (torch.abs(x) + x),
    "sign": lambda x: 0.5 * x * (1 + torch.sign(x)),
    "heaviside": lambda x: x * torch.heaviside(x.detach(), x.new_zeros(())),
    "square root": lambda x: (x + (x * x).sqrt()) / 2,
    "where": lambda x: torch.where(x > 0, x, 0.0),
    "where, turned": lambda x: torch.where(x < 0, torch.zeros_like(x), x),
    "where, method": lambda x: x.where(x > 0, torch.zeros(1, dtype=x.dtype)),
    "masked_fill": lambda x: x.masked_fill(x < 0, 0),
    "masked_fill_": masked_inside,
    "masked assignment": masked,
    "on a view": lambda x: torch.relu(x.view(len(x), -1)).view_as(x),
    "in place on parts": on_a_part,
    "minus the negative part": lambda x: x - x.clamp(max=0),
    "twice": lambda x: F.relu(F.relu(x)),
    "threshold": lambda x: F.threshold(x, 0.0, 0.0),
    "leaky with slope 0": lambda x: F.leaky_relu(x, 0.0),
    "scaled up and down": lambda x: F.relu(x * 3) / 3,
    "minus minus": lambda x: torch.neg(-F.relu(x)),
    "integer mask": lambda x: x * (x > 0).int(),
    "zero first": lambda x: x * torch.gt(x, 0),
    "clip": lambda x: torch.clip(x, min=0),
    "in place": lambda x: x.clamp_(min=0),
    "plus the other side": lambda x: x + F.relu(-x),
    "addcmul": lambda x: torch.addcmul(torch.zeros_like(x), x, (x > 0).double()),
    "lerp": lambda x: torch.lerp(torch.zeros_like(x), x, (x > 0).double()),
    "straight through": lambda x: x + (F.relu(x) - x),
    "hardtanh": lambda x: F.hardtanh(x, 0.0, float("inf")),
    "xor": lambda x: x * torch.logical_xor(x < 0, torch.ones((), dtype=torch.bool)),
    "max of minus": lambda x: -torch.minimum(-x, torch.zeros_like(x)),
    "two views": lambda x: (x.flatten(1) * (x.flatten(1) > 0)).view_as(x),
    "two permuted views": lambda x: (x.permute(0, 2, 3, 1) * (x.permute(0, 2, 3, 1) > 0)).permute(0, 3, 1, 2),
    "a view of the same shape": lambda x: (4 * x) * ((4 * x).view(x.shape) > 0) / 4,
    "mask written into a view": lambda x: _masked_view(x.clone()),
    "mask laid out anew": lambda x: x * (x > 0).flatten(1).unflatten(1, x.shape[1:]),
    "mask permuted and back": lambda x: x * (x.permute(0, 2, 3, 1) > 0).permute(0, 3, 1, 2),
    "mask turned and back": lambda x: x * (x > 0).flip(3).flip(3),
    "mask by bucketize": lambda x: x * torch.bucketize(x.detach(), torch.zeros(1, dtype=x.dtype)),
    "mask of a detached value": lambda x: x * (x.detach() > 0),
    "mask without gradient": lambda x: x * _mask_without_gradient(x),
    "stacked": lambda x: torch.stack([x, torch.zeros_like(x)]).amax(0),
    "stacked, values": lambda x: torch.stack([torch.zeros_like(x), x], 1).max(1).values,
    "stacked, first": lambda x: torch.stack((x, x.new_zeros(x.shape)), -1).max(dim=-1)[0],
    "joined": lambda x: torch.cat([x[:, None], torch.zeros_like(x)[:, None]], 1).amax(1),
    "stacked, least": lambda x: -torch.stack([-x, torch.zeros_like(x)]).amin(0),
}


def _masked_view(x: Tensor) -> Tensor:
    x.view(-1)[x.view(-1) < 0] = 0
    return x


def _mask_without_gradient(x: Tensor) -> Tensor:
    with torch.no_grad():
        return (x > 0).to(x.dtype)


NAMED: dict[str, tuple[Function, Function]] = {
    "leaky by where": (lambda x: torch.where(x > 0, x, 0.1 * x), lambda x: F.leaky_relu(x, 0.1)),
    "leaky by max": (lambda x: torch.max(x, 0.1 * x), lambda x: F.leaky_relu(x, 0.1)),
    "leaky by parts": (lambda x: F.relu(x) - 0.1 * F.relu(-x), lambda x: F.leaky_relu(x, 0.1)),
    "leaky by clamps": (lambda x: x.clamp(min=0) + 0.1 * x.clamp(max=0), lambda x: F.leaky_relu(x, 0.1)),
    "prelu by hand": (lambda x: F.relu(x) + SLOPE * torch.minimum(x, torch.zeros_like(x)),
                      lambda x: F.prelu(x, SLOPE.flatten())),
    "gelu, erf": (lambda x: 0.5 * x * (1 + torch.erf(x / 2**0.5)), F.gelu),
    "gelu, erf, one factor": (lambda x: x * 0.5 * (1 + (x / 2**0.5).erf()), F.gelu),
    "gelu, tanh": (lambda x: 0.5 * x * (1 + torch.tanh(0.7978845608028654 * (x + 0.044715 * x**3))),
                   lambda x: F.gelu(x, approximate="tanh")),
    "gelu, normal": (lambda x: x * torch.special.ndtr(x), F.gelu),
    "gelu, distribution": (lambda x: x * torch.distributions.Normal(0.0, 1.0).cdf(x), F.gelu),
    "silu, expit": (lambda x: x * torch.special.expit(x), F.silu),
    "quick gelu": (lambda x: x * torch.sigmoid(1.702 * x), lambda x: x * torch.sigmoid(1.702 * x)),
    "silu": (lambda x: x * torch.sigmoid(x), F.silu),
    "silu, exp": (lambda x: x / (1 + torch.exp(-x)), F.silu),
    "swish, learned beta": (lambda x: x * torch.sigmoid(BETA * x), lambda x: x * torch.sigmoid(BETA * x)),
    "mish": (lambda x: x * torch.tanh(F.softplus(x)), F.mish),
    "mish, all by hand": (lambda x: x * torch.tanh(torch.log(1 + torch.exp(x))), F.mish),
    "softplus": (lambda x: torch.log1p(torch.exp(x)), F.softplus),
    "softplus, logaddexp": (lambda x: torch.logaddexp(x, torch.zeros_like(x)), F.softplus),
    "elu": (lambda x: torch.where(x > 0, x, torch.exp(x) - 1), F.elu),
    "elu, parts": (lambda x: F.relu(x) + torch.expm1(x.clamp(max=0)), F.elu),
    "celu": (lambda x: x.clamp(min=0) + (1.5 * ((x / 1.5).exp() - 1)).clamp(max=0), lambda x: F.celu(x, 1.5)),
    "selu": (lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (x.exp() - 1)), F.selu),
    "hardswish": (lambda x: x * F.relu6(x + 3) / 6, F.hardswish),
    "hardswish, clamp": (lambda x: x * torch.clamp(x / 6 + 0.5, 0, 1), F.hardswish),
    "relu6 by clamps": (lambda x: x.clamp(min=0).clamp(max=6), F.relu6),
    "relu6 by minimum": (lambda x: torch.minimum(F.relu(x), torch.full_like(x, 6.0)), F.relu6),
    "squared relu, one factor twice": (lambda x: (lambda y: y * y)(F.relu(x)), lambda x: F.relu(x) ** 2),
    "squared relu, two factors": (lambda x: F.relu(x) * F.relu(x), lambda x: F.relu(x) ** 2),
    "squared relu": (lambda x: F.relu(x) ** 2, lambda x: F.relu(x) ** 2),
    "silu, two views": (lambda x: (x.flatten(1) * x.flatten(1).sigmoid()).view_as(x), F.silu),
    "silu, view and flatten": (lambda x: (x.view(len(x), -1) * x.flatten(1).sigmoid()).view_as(x), F.silu),
    "silu, gate laid out anew": (lambda x: x * x.flatten(1).sigmoid().view(x.shape), F.silu),
    "silu, gate permuted": (lambda x: x * torch.sigmoid(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), F.silu),
    "silu, gate of one row": (lambda x: torch.sigmoid(x.reshape(-1)).reshape(x.shape) * x, F.silu),
    "hardswish, gate laid out anew": (lambda x: x * (F.relu6(x.flatten(1) + 3) / 6).view_as(x), F.hardswish),
    "leaky, laid out anew": (lambda x: torch.max(x, (0.1 * x.flatten(2) + 0 * x.flatten(2).abs()).view_as(x)),
                             lambda x: F.leaky_relu(x, 0.1)),
    "silu, two copies": (lambda x: (x.mT.flatten(1) * x.mT.flatten(1).sigmoid()).view(*x.shape[:2], 6, 7).mT, F.silu),
    "leaky, stacked": (lambda x: torch.stack([x, 0.1 * x]).amax(0), lambda x: F.leaky_relu(x, 0.1)),
    "softplus, stacked": (lambda x: torch.logsumexp(torch.stack([x, torch.zeros_like(x)]), 0), F.softplus),
    "leaky, two layouts": (lambda x: torch.max(x.flatten(1), 0.1 * x.flatten(1)).view_as(x),
                           lambda x: F.leaky_relu(x, 0.1)),
    "shifted": (lambda x: torch.maximum(x, torch.full_like(x, -1.0)), lambda x: x.clamp(min=-1)),
}  # fmt: skip
GRADIENT: dict[str, Function] = {
    "hard sigmoid": lambda x: F.relu6(x + 3) / 6,
    "hard sigmoid, clamp": lambda x: (x / 6 + 0.5).clamp(0, 1),
    "hard tanh": lambda x: x.clamp(-1, 1),
    "hard tanh, parts": lambda x: F.relu(x + 1) - F.relu(x - 1) - 1,
    "sigmoid": lambda x: 1 / (1 + torch.exp(-x)),
    "tanh": lambda x: 2 * torch.sigmoid(2 * x) - 1,
    "softsign": lambda x: x / (1 + x.abs()),
    "absolute": lambda x: x.abs(),
    "square": lambda x: x * x,
    "square, pow": lambda x: x**2,
    "identity": lambda x: x * 2 - 1,
    "soft shrinkage": lambda x: F.relu(x - 0.5) - F.relu(-x - 0.5),
    "guard": lambda x: x / x.abs().clamp(min=1e-6),
    "guard of a power": lambda x: x.clamp(min=1e-6).pow(3.0),
    "a gate of other places": lambda x: x * x.flatten(1).roll(1, 1).sigmoid().view(x.shape),
    "a gate laid out otherwise": lambda x: x * x.flatten(1).sigmoid().view(len(x), 6, 6, 7).mT,
    "exp of a scaled value": lambda x: torch.exp(x / 8),
    "softmax by hand": lambda x: torch.exp(x / 8) / torch.exp(x / 8).sum(1, keepdim=True),
    "a sigmoid of a scaled value": lambda x: torch.sigmoid(0.1 * x - 1),
    "asinh": lambda x: torch.log(x + torch.sqrt(x * x + 1)),
    "a gate of another half": lambda x: F.glu(torch.cat([x, x.roll(1, 1)], 1), 1),
    "mean of a stack": lambda x: torch.stack([x, x.roll(1, 1)]).mean(0),
}


@pytest.mark.parametrize("method", ["guided", "deconvnet"])
@pytest.mark.parametrize("spelling", RELU)
def test_every_spelling_of_relu(spelling: str, method: str) -> None:
    """Oracle: the rule written out as an autograd function on F.relu, float64; one reduction, 1e-12 expected."""
    expected = by_hand(method, F.relu, IMAGES)
    assert not torch.allclose(expected, by_hand("gradient", F.relu, IMAGES))
    result = ours(method, RELU[spelling])
    torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))
    assert result.notes == []


@pytest.mark.parametrize("spelling", NAMED)
def test_other_rectifiers_written_by_hand(spelling: str) -> None:
    """Oracle: the rule written out on torch's own function."""
    written, named = NAMED[spelling]
    expected = by_hand("guided", named, IMAGES)
    assert not torch.allclose(expected, by_hand("gradient", named, IMAGES))
    result = ours("guided", written)
    torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))
    assert result.notes == []


@pytest.mark.parametrize("spelling", [name for name in NAMED if name.split(",")[0] not in ("selu", "squared relu")])
def test_deconvnet_passes_the_signal_by_whatever_was_written(spelling: str) -> None:
    """Left out: SELU by hand is an ELU and a factor, a squared ReLU a ReLU and a square, whose gradients stand."""
    expected = by_hand("deconvnet", NAMED[spelling][1], IMAGES)
    result = ours("deconvnet", NAMED[spelling][0])
    torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-4 * float(expected.abs().max()))


@pytest.mark.parametrize("spelling", ["squared relu, one factor twice", "squared relu, two factors"])
def test_a_square_by_factors_is_a_square(spelling: str) -> None:
    """Oracle: the square as a power, whose gradient comes after the rectifier."""
    expected, found = (ours("deconvnet", NAMED[name][0]).values for name in ("squared relu", spelling))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))


def test_lerp_with_a_mask_in_single_precision() -> None:
    """The constants of an operation without type conversion are probed in the type of the grid."""
    net = Network(Model(lambda x: torch.lerp(torch.zeros_like(x), x, (x > 0).float())).float().eval(), IMAGES.shape[1:])
    named = Network(Model(F.relu).float().eval(), IMAGES.shape[1:])
    found, expected = (attribution.guided_backprop(one, IMAGES.float(), 1) for one in (net, named))
    torch.testing.assert_close(found.values, expected.values, rtol=1e-5, atol=1e-7)
    assert found.notes == []


@pytest.mark.parametrize("method", ["guided", "deconvnet"])
@pytest.mark.parametrize("spelling", GRADIENT)
def test_what_is_no_rectifier_keeps_its_gradient(spelling: str, method: str) -> None:
    """Oracle: plain autograd on the plain model."""
    leaf = IMAGES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Model(GRADIENT[spelling])(leaf)[:, 1].sum(), leaf)
    result = ours(method, GRADIENT[spelling])
    torch.testing.assert_close(result.values, expected, rtol=0, atol=1e-10 * float(expected.abs().max()))
    assert result.notes == []


def test_a_mask_that_was_made_from_other_values_is_named() -> None:
    class Gated(Model):
        def forward(self, x: Tensor) -> Tensor:
            y = self.c(x)
            return self.h(self.d(y * (y > y.mean((2, 3), keepdim=True))).mean((2, 3)))

    result = attribution.guided_backprop(Network(Gated(F.relu).eval(), (3, 7, 6)), IMAGES, target=1)
    leaf = IMAGES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Gated(F.relu)(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(result.values, expected, rtol=1e-9, atol=1e-12)
    assert len(result.notes) == 1
    assert '"mul" in "Gated.forward"' in result.notes[0]
    assert "test_rectifier_rules.py" in result.notes[0]


SAID: dict[str, tuple[Function, str]] = {
    "a mask turned": (lambda x: x * (x > 0).flip(3), '"mul"'),
    "a softmax beside zeros": (lambda x: x * torch.stack([x, torch.zeros_like(x)]).softmax(0)[0], '"softmax"'),
    "a mask of one part": (lambda x: torch.where((x > 0)[:, :1], x, 0.0), '"where"'),
    "a part scaled": (lambda x: _scaled_in_part(x), '"setitem"'),
    "larger of two layouts": (lambda x: torch.max(x.flatten(1), 0.1 * x.mT.flatten(1)).view_as(x), '"max"'),
    "indices of a mask": (lambda x: x.index_put(tuple((x < 0).nonzero().T), x.new_zeros(())), '"index_put"'),
    "scattered": (lambda x: torch.zeros_like(x).masked_scatter(x > 0, x[x > 0]), '"getitem"'),
    "written where positive": (lambda x: _written_where_positive(x), '"getitem"'),
    "einsum with a mask": (lambda x: torch.einsum("nchw,nchw->nchw", x, (x > 0).to(x.dtype)), '"einsum"'),
    "pooled with zeros": (
        lambda x: F.max_pool3d(torch.stack([x, torch.zeros_like(x)], 2), (2, 1, 1))[:, :, 0],
        '"max_pool3d"',
    ),
    "pooled with zeros, laid out anew": (
        lambda x: F.max_pool1d(torch.stack([x, torch.zeros_like(x)], -1).flatten(0, -2), 2).view_as(x),
        '"max_pool1d"',
    ),
    "a gate of its own half": (lambda x: F.glu(torch.cat([x, x], 1), 1), '"glu"'),
    "a gate of a multiple": (lambda x: F.glu(torch.cat([x, 1.702 * x], 1), 1), '"glu"'),
    "mask by NumPy": (lambda x: x * torch.from_numpy(x.detach().numpy() > 0), '"numpy"'),
    "mask by Python": (lambda x: x * torch.tensor((x > 0).tolist()), '"tolist"'),
    "maxout": (lambda x: torch.maximum(x, x.roll(1, 1)), '"maximum"'),
    "at the mean": (lambda x: x * (x > x.mean()), '"mul"'),
}


def _written_where_positive(x: Tensor) -> Tensor:
    y, mask = torch.zeros_like(x), x > 0
    y[mask] = x[mask]
    return y


def _scaled_in_part(x: Tensor) -> Tensor:
    x[x < 0] *= 0.1
    return x


@pytest.mark.parametrize("place", [(slice(None), 2), (slice(None), slice(1, 3)), (Ellipsis, [0, 2]), 0])
def test_numbers_written_at_chosen_places_are_no_function_of_one_number(place: Any) -> None:
    """Oracle for the values: torch's rectifier under the rule, then the same numbers written."""

    def written(y: Tensor) -> Tensor:
        y = y.clone()
        y[place] = 1.5
        return y

    def by_hook(x: Tensor) -> Tensor:
        y = F.relu(x)
        y.register_hook(lambda signal: signal.clamp(min=0))
        return written(y)

    result = ours("guided", lambda x: written(F.relu(x)))
    leaf = IMAGES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Model(by_hook)(leaf)[:, 1].sum(), leaf)
    torch.testing.assert_close(result.values, expected, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("spelling", SAID)
def test_what_cannot_be_told_is_said(spelling: str) -> None:
    """Oracle for the values: plain autograd."""
    act, operation = SAID[spelling]
    leaf = IMAGES.clone().requires_grad_()
    (expected,) = torch.autograd.grad(Model(act)(leaf)[:, 1].sum(), leaf)
    result = ours("guided", act)
    torch.testing.assert_close(result.values, expected, rtol=1e-9, atol=1e-12)
    assert any(operation in note for note in result.notes)
    told = [note for note in result.notes if note.startswith("guided")]
    assert told
    assert all("it was not recognised as a rectifier" in note for note in told)
