"""Relevance through single operators, against the input times the gradient of a replica with held factors.

With a vanishing stabiliser the epsilon rule is the input times the gradient, once gates, deviations and the slopes of
nonlinearities are held constant. The replica says so with ``detach`` in plain torch and shares no code with ``trace``.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network, OpaqueError, attribution

Step = Callable[["Model", Tensor], Tensor]
EXACT = attribution.rules.Epsilon(1e-13)
IMAGES = torch.rand(3, 3, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1))


class Model(nn.Module):
    """Convolution, the step under test, convolution, rectifier, head."""

    def __init__(self, step: Step) -> None:
        super().__init__()
        self.step = step
        self.c, self.d, self.h = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1), nn.Linear(6, 4)
        self.q = nn.Conv2d(6, 2, 3, padding=1)
        self.tracked = nn.InstanceNorm2d(6, track_running_stats=True)
        self.t, self.u, self.mean = (nn.Parameter(torch.empty(6)) for _ in range(3))
        self.z = nn.Parameter(torch.empty(6, 8, 5, 2))
        self.m = nn.Parameter(torch.empty(8, 8))
        self.double()
        generator = torch.Generator().manual_seed(0)
        for tensor in (*self.parameters(), *self.buffers()):
            if tensor.is_floating_point():
                tensor.data.copy_(torch.randn(tensor.shape, generator=generator, dtype=torch.double) * 0.4)
        self.tracked.running_var.abs_().add_(0.1)

    def forward(self, x: Tensor) -> Tensor:
        return self.h(F.relu(self.d(self.step(self, self.c(x)))).mean((2, 3)))


def straight(function: Callable[[Tensor], Tensor]) -> Step:
    """A nonlinearity that passes all on: x times its held slope from zero."""
    return lambda model, x: x * (function(x) / x).detach()


def per_channel(value: Tensor) -> Tensor:
    return value[:, None, None]


def places(model: Model, x: Tensor) -> Tensor:
    return (0.3 * model.q(x)).tanh().permute(0, 2, 3, 1)


def normed(model: Model, x: Tensor) -> Tensor:
    return (x - x.mean((2, 3), keepdim=True)) / (x.var((2, 3), unbiased=False, keepdim=True) + 0.1).sqrt().detach()


STEPS: dict[str, tuple[Step, Step]] = {
    "sampled at places of its own": (
        lambda model, x: F.grid_sample(x, places(model, x), align_corners=False),
        lambda model, x: F.grid_sample(x, places(model, x).detach(), align_corners=False),
    ),
    "torch.max with a constant": (
        lambda model, x: torch.max(x, per_channel(model.t)),
        lambda model, x: straight(lambda y: torch.maximum(y, per_channel(model.t)))(model, x),
    ),
    "torch.min with a constant": (
        lambda model, x: torch.min(x, per_channel(model.t)),
        lambda model, x: straight(lambda y: torch.minimum(y, per_channel(model.t)))(model, x),
    ),
    "logsigmoid": (lambda model, x: F.logsigmoid(x), straight(F.logsigmoid)),
    "torch.batch_norm": (
        lambda model, x: torch.batch_norm(
            x, model.u, model.t, model.mean.detach(), model.t.detach() ** 2, False, 0.1, 0.1, False
        ),
        lambda model, x: (
            (x - per_channel(model.mean)) * per_channel(model.u / (model.t**2 + 0.1).sqrt()) + per_channel(model.t)
        ),
    ),
    "torch.instance_norm": (
        lambda model, x: torch.instance_norm(x, model.u, model.t, None, None, True, 0.1, 0.1, False),
        lambda model, x: normed(model, x) * per_channel(model.u) + per_channel(model.t),
    ),
    "torch.group_norm": (
        lambda model, x: torch.group_norm(x, 6, model.u, model.t, 0.1, False),
        lambda model, x: normed(model, x) * per_channel(model.u) + per_channel(model.t),
    ),
    "torch.layer_norm": (
        lambda model, x: torch.layer_norm(x, [8, 8], None, None, 0.1, False),
        normed,
    ),
    "instance norm with running statistics": (
        lambda model, x: model.tracked(x),
        lambda model, x: (
            (x - per_channel(model.tracked.running_mean)) / per_channel(model.tracked.running_var + 1e-5).sqrt()
        ),
    ),
    "a bias before a rectifier": (
        lambda model, x: F.relu(x + per_channel(model.t)),
        lambda model, x: F.relu(x + per_channel(model.t)),
    ),
    "a bias between rectifiers": (
        lambda model, x: F.relu(F.relu(x) * per_channel(model.u) + per_channel(model.t)),
        lambda model, x: F.relu(F.relu(x) * per_channel(model.u) + per_channel(model.t)),
    ),
    "a bias behind a nonlinearity": (
        lambda model, x: F.elu(x) + per_channel(model.t),
        lambda model, x: straight(F.elu)(model, x) + per_channel(model.t),
    ),
    "without an axis of images": (
        lambda model, x: torch.stack([F.relu(F.conv2d(one, model.d.weight, model.d.bias)) for one in x]),
        lambda model, x: F.relu(F.conv2d(x, model.d.weight, model.d.bias)),
    ),
    "low frequencies": (
        lambda model, x: torch.fft.ifft2(torch.fft.fft2(x) * model.m).real,
        lambda model, x: torch.fft.ifft2(torch.fft.fft2(x) * model.m).real,
    ),
    "complex filters (GFNet)": (
        lambda model, x: torch.fft.irfft2(torch.fft.rfft2(x) * torch.view_as_complex(model.z), s=(8, 8)),
        lambda model, x: torch.fft.irfft2(torch.fft.rfft2(x) * torch.view_as_complex(model.z), s=(8, 8)),
    ),
    "some modes (FNO)": (lambda model, x: modes(model, x), lambda model, x: modes(model, x)),
    "real and imaginary part (FFC)": (
        lambda model, x: torch.fft.irfft2(torch.view_as_complex(torch.view_as_real(torch.fft.rfft2(x)).relu())),
        lambda model, x: torch.fft.irfft2(torch.view_as_complex(torch.view_as_real(torch.fft.rfft2(x)).relu())),
    ),
    "lengths of complex numbers": (
        lambda model, x: torch.fft.fft2(x).abs(),
        lambda model, x: torch.fft.fft2(x).abs(),
    ),
    "turned by an angle": (
        lambda model, x: (torch.complex(x, 0.5 * x) * torch.polar(x.new_ones(()), x.new_ones(()))).conj().imag,
        lambda model, x: -(x * torch.sin(x.new_ones(())) + 0.5 * x * torch.cos(x.new_ones(()))),
    ),
}


BY_HAND: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "elu by where": (lambda x: torch.where(x > 0, x, x.exp() - 1), F.elu),
    "elu by the smaller": (lambda x: F.relu(x) + torch.min(x.exp() - 1, torch.zeros_like(x)), F.elu),
    "selu": (lambda x: 1.0507009873554805 * torch.where(x < 0, 1.6732632423543772 * (x.exp() - 1), x), F.selu),
    "softplus by log": (lambda x: torch.log(1 + torch.exp(x)), F.softplus),
    "softplus by logaddexp": (lambda x: torch.logaddexp(x, x.new_zeros(())), F.softplus),
    "softplus, stable": (lambda x: x.clamp(min=0) + torch.log(1 + torch.exp(-x.abs())), F.softplus),
    "sigmoid": (lambda x: 1 / (1 + torch.exp(-x)), torch.sigmoid),
    "tanh": (lambda x: (x.exp() - (-x).exp()) / (x.exp() + (-x).exp()), torch.tanh),
    "tanh by one": (lambda x: ((2 * x).exp() - 1) / ((2 * x).exp() + 1), torch.tanh),
    "celu": (lambda x: torch.maximum(x, x * 0) + (1.5 * ((x / 1.5).exp() - 1)).clamp(max=0), lambda x: F.celu(x, 1.5)),
    "square root, shifted": (lambda x: (x + torch.sqrt(x * x + 4)) / 2, lambda x: (x + torch.sqrt(x * x + 4)) / 2),
}
STEPS |= {
    name: (lambda model, x, hand=hand: hand(x), straight(named))  # type: ignore[misc]
    for name, (hand, named) in BY_HAND.items()
}


def modes(model: Model, x: Tensor) -> Tensor:
    found = torch.fft.rfft2(x)
    kept = torch.zeros_like(found)
    kept[:, :, :3, :3] = torch.einsum("ncij,cij->ncij", found[:, :, :3, :3], torch.view_as_complex(model.z)[:, :3, :3])
    return torch.fft.irfft2(kept, s=(8, 8))


@pytest.mark.parametrize("name", STEPS)
def test_relevance_is_that_of_held_factors(name: str) -> None:
    """Oracle: x times the replica's gradient, float64; stabilisers of 1e-13 leave 1e-9 or less."""
    step, replica = STEPS[name]
    model = Model(step).eval()
    found = attribution.lrp(Network(model, (3, 8, 8)), IMAGES, target=1, rules=EXACT)
    pixels = IMAGES.clone().requires_grad_()
    torch.testing.assert_close(Model(replica).eval()(pixels), Model(step).eval()(pixels))
    (slope,) = torch.autograd.grad(Model(replica).eval()(pixels)[:, 1].sum(), pixels)
    torch.testing.assert_close(found.values, IMAGES * slope, rtol=0, atol=1e-7 * float((IMAGES * slope).abs().max()))
    account = found.values.sum((1, 2, 3)) + found.bias_share + found.stabiliser_share
    torch.testing.assert_close(account, found.score, rtol=1e-7, atol=1e-9)


def test_an_operation_without_a_rule_is_refused_as_that() -> None:
    """The rule refuses while torch goes back; neither the model nor this package is said to be at fault."""
    net = Network(Model(lambda model, x: F.lp_pool2d(x, 2, 2)).eval(), (3, 8, 8))
    with pytest.raises(OpaqueError, match=r'^relevance propagation has no rule .* "lp_pool2d"') as told:
        attribution.lrp(net, IMAGES)
    assert "fault" not in str(told.value)


@pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus"])
def test_a_model_that_writes_on_its_input(rules: str) -> None:
    """Oracle: the same function that writes on nothing."""

    class Writing(nn.Module):
        def __init__(self, fresh: bool) -> None:
            super().__init__()
            self.model, self.fresh = Model(lambda model, x: x), fresh

        def forward(self, x: Tensor) -> Tensor:
            return self.model(x * 2 - 1 if self.fresh else x.mul_(2).sub_(1))

    found, right = (
        attribution.lrp(Network(Writing(fresh).eval(), (3, 8, 8)), IMAGES, target=1, rules=rules).values
        for fresh in (False, True)
    )
    torch.testing.assert_close(found, right, rtol=1e-9, atol=1e-12)
