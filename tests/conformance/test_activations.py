"""Do guided backpropagation and deconvnet mean what they say behind activations other than ReLU?"""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conformance.spellings import Parts, weights
from microtome import Network, registry
from oracles import attribution_by_hand as oracle

# The functions by their formulas: what the oracle differentiates, by central differences in float64.
FORMULAS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu6": lambda x: torch.minimum(torch.maximum(x, 0 * x), 0 * x + 6),
    "leaky": lambda x: torch.where(x > 0, x, 0.01 * x),
    "silu": lambda x: x / (1 + torch.exp(-x)),
    "gelu": lambda x: 0.5 * x * (1 + torch.special.erf(x / math.sqrt(2))),
    "hardswish": lambda x: x * torch.minimum(torch.maximum(x + 3, 0 * x), 0 * x + 6) / 6,
    "elu": lambda x: torch.where(x > 0, x, torch.exp(x) - 1),
    "selu": lambda x: 1.0507009873554805 * torch.where(x > 0, x, 1.6732632423543772 * (torch.exp(x) - 1)),
    "mish": lambda x: x * torch.tanh(torch.log(1 + torch.exp(x))),
    "softplus": lambda x: torch.log(1 + torch.exp(x)),
}

SPELT: dict[str, tuple[str, Callable[[Tensor], Tensor]]] = {
    "nn.ReLU6": ("relu6", nn.ReLU6()),
    "nn.ReLU6 in place": ("relu6", nn.ReLU6(inplace=True)),
    "F.relu6": ("relu6", F.relu6),
    "clamp(0, 6)": ("relu6", lambda x: x.clamp(0, 6)),
    "F.hardtanh(0, 6)": ("relu6", lambda x: F.hardtanh(x, 0.0, 6.0)),
    "nn.LeakyReLU": ("leaky", nn.LeakyReLU()),
    "F.leaky_relu_": ("leaky", F.leaky_relu_),
    "nn.SiLU": ("silu", nn.SiLU()),
    "nn.SiLU in place": ("silu", nn.SiLU(inplace=True)),
    "F.silu": ("silu", F.silu),
    "x * sigmoid(x)": ("silu", lambda x: x * torch.sigmoid(x)),
    "x.mul(x.sigmoid())": ("silu", lambda x: x.mul(x.sigmoid())),
    "nn.GELU": ("gelu", nn.GELU()),
    "F.gelu": ("gelu", F.gelu),
    "nn.Hardswish": ("hardswish", nn.Hardswish()),
    "x * relu6(x + 3) / 6": ("hardswish", lambda x: x * F.relu6(x + 3) / 6),
    "x * hardsigmoid(x)": ("hardswish", lambda x: x * F.hardsigmoid(x)),
    "nn.ELU": ("elu", nn.ELU()),
    "F.elu_": ("elu", F.elu_),
    "nn.SELU": ("selu", nn.SELU()),
    "torch.selu": ("selu", torch.selu),
    "nn.Mish": ("mish", nn.Mish()),
    "nn.Softplus": ("softplus", nn.Softplus()),
}
# Written with a rectifier of its own inside: the rule acts on that one, which is the gate, not on the product.
KNOWN_COMPOSITES = ("x * relu6(x + 3) / 6",)


class Activated(Parts):
    def __init__(self, p, act):
        super().__init__(p)
        self.act = act

    def rectify(self, x):
        return self.act(x)


def images() -> Tensor:
    return torch.rand(2, 3, 12, 10, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def stretched() -> dict[str, Tensor]:
    """Weights large enough that six and minus three are passed."""
    p = weights("plain", 3)
    return {name: value * (4 if name in ("w1", "w2") else 1) for name, value in p.items()}


def slope(f: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """Central differences; at h = 1e-6 in float64 good to about 1e-9."""
    return (f(x + 1e-6) - f(x - 1e-6)) / 2e-6


def by_definition(name: str, rule: str, p: dict[str, Tensor], x: Tensor, target: Tensor) -> Tensor:
    """The stated rule, backwards by hand."""
    f = FORMULAS[name]

    def back(signal, read):
        if rule == "gradient":
            return signal * slope(f, read)
        return signal.clamp(min=0) * (slope(f, read) if rule == "guided-backprop" else 1)

    z1 = F.conv2d(x, p["w1"], p["b1"], padding=1)
    m1, unpool = oracle.pooled(f(z1), "max")
    z2 = F.conv2d(m1, p["w2"], p["b2"], padding=1, stride=2)
    _, at_f = oracle.head(p, f(z2), target)
    g = oracle.adjoint(m1, p["w2"], back(at_f, z2), stride=2)
    return oracle.adjoint(x, p["w1"], back(unpool(g), z1))


@pytest.mark.parametrize("method", ["gradient", "guided-backprop", "deconvnet"])
@pytest.mark.parametrize("spelt", [name for name in SPELT if name not in KNOWN_COMPOSITES])
def test_the_stated_definition(spelt, method):
    """Oracle: the rule by hand on the formula of the activation, its derivative by central differences."""
    name, act = SPELT[spelt]
    p = stretched()
    net = Network(Activated(p, act), (3, 12, 10))
    expected = by_definition(name, method, p, images(), torch.tensor([1, 1]))
    for _ in range(2):  # the second pass may find its rectifiers where the first one had them
        values = registry.method(method).function(net, images(), 1).values
        torch.testing.assert_close(values, expected, rtol=0, atol=1e-6 * float(expected.abs().max()))


@pytest.mark.parametrize("spelt", sorted(SPELT))
def test_never_silently_the_gradient(spelt):
    """Every activation in every spelling: guided backpropagation and deconvnet differ from the plain gradient."""
    net = Network(Activated(stretched(), SPELT[spelt][1]), (3, 12, 10))
    found = {
        m: registry.method(m).function(net, images(), 1).values for m in ("gradient", "guided-backprop", "deconvnet")
    }
    scale = float(found["gradient"].abs().max())
    assert float((found["guided-backprop"] - found["gradient"]).abs().max()) > 0.01 * scale
    assert float((found["deconvnet"] - found["gradient"]).abs().max()) > 0.01 * scale
