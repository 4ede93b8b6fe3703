"""Does a relevance result say what it is worth, in any precision, and are faults of ours said to be ours?"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import pytest
import torch
from torch import nn

from microtome import Network, OpaqueError, attribution
from microtome.attribution import rules

SHAPE = (3, 16, 16)


def layers() -> nn.Sequential:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(8)
    norm.running_mean.uniform_(-0.1, 0.1)
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), norm, nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(8, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1),
        nn.Flatten(), nn.Linear(8, 4),
    ).eval()  # fmt: skip


def pictures(count: int = 3) -> torch.Tensor:
    return torch.rand(count, *SHAPE, generator=torch.Generator().manual_seed(1))


class Inside(nn.Module):
    """Mixed precision inside forward."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()
        self.inner, self.dtype = layers(), dtype

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.autocast("cpu", dtype=self.dtype):
            return self.inner(x)


@pytest.mark.parametrize(
    "method", ["epsilon", "epsilon-plus", "epsilon-gamma-box", "epsilon-sparing-plus", "deep-taylor"]
)
@pytest.mark.parametrize("where", ["inside", "outside", "half"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype, where: str, method: str) -> None:
    """Oracle: single precision. bfloat16 keeps eight bits, rounded at each layer."""

    def explain(net: Network, x: torch.Tensor) -> attribution.RelevanceAttribution:
        if method == "deep-taylor":
            return attribution.deep_taylor(net, x, 1)
        return attribution.lrp(net, x, 1, rules=method)

    x = pictures()
    right = explain(Network(layers(), SHAPE), x)
    if where == "inside":
        found = explain(Network(Inside(dtype).eval(), SHAPE), x)
    elif where == "outside":
        with torch.autocast("cpu", dtype=dtype):
            found = explain(Network(layers(), SHAPE), x)
    else:
        found = explain(Network(layers().to(dtype), SHAPE), x)
    total = found.values.sum((1, 2, 3)) + found.bias_share + found.stabiliser_share
    torch.testing.assert_close(total, found.score, rtol=1e-2, atol=0)
    assert found.values.dtype == torch.float32
    assert float((found.values - right.values).norm()) < 0.1 * float(right.values.norm())


def test_the_box_is_each_images_own() -> None:
    """Oracle: the image alone. Without a range the z^B rule takes that of the image, not that of its neighbours."""
    net = Network(layers(), SHAPE, pixels=None)
    x = torch.randn(3, *SHAPE, generator=torch.Generator().manual_seed(1))
    x[2] *= 10
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for explain in (
            lambda x: attribution.deep_taylor(net, x, 1),
            lambda x: attribution.lrp(net, x, 1, rules="z-box"),
        ):
            torch.testing.assert_close(explain(x).values[:1], explain(x[:1]).values, rtol=1e-4, atol=1e-9)


def test_relevance_that_explodes_is_said() -> None:
    """A sum of two large terms that cancel: 1000 x - 999.9 x, so relevance is some 20,000 times the score."""
    line = nn.Linear(2, 1, bias=False)
    line.weight.data.copy_(torch.tensor([[1000.0, -999.9]]))
    net = Network(nn.Sequential(nn.Flatten(), line), (1, 1, 2))
    found = attribution.lrp(net, torch.ones(2, 1, 1, 2), 0, rules="epsilon")
    torch.testing.assert_close(found.mass, torch.full((2,), 1999.9 / 0.1), rtol=1e-2, atol=0)
    assert found.explodes.tolist() == [True, True]
    assert any("explodes for 2 of 2 images" in note for note in found.notes)
    calm = attribution.lrp(net, torch.tensor([[[[1.0, 0.0]]]]), 0, rules="epsilon")
    assert calm.explodes.tolist() == [False]
    assert calm.notes == []


def test_a_score_that_biases_take_is_said() -> None:
    line = nn.Linear(2, 1)
    line.weight.data.fill_(1e-4)
    line.bias.data.fill_(1.0)
    net = Network(nn.Sequential(nn.Flatten(), line), (1, 1, 2))
    found = attribution.lrp(net, torch.ones(1, 1, 1, 2), 0, rules="epsilon")
    assert float(found.conservation) == pytest.approx(1, abs=1e-5)
    assert float(found.pixel_share) == pytest.approx(2e-4, rel=1e-2)
    assert any("arrives at the pixels" in note for note in found.notes)


def test_the_sparing_rule_by_hand() -> None:
    """Oracle: two outputs, one that an input speaks for and one that is positive by its bias alone."""
    line = nn.Linear(2, 2)
    line.weight.data.copy_(torch.tensor([[2.0, -1.0], [-1.0, -3.0]]))
    line.bias.data.copy_(torch.tensor([0.5, 9.0]))
    top = nn.Linear(2, 1, bias=False)
    top.weight.data.copy_(torch.tensor([[1.0, 1.0]]))
    net = Network(nn.Sequential(nn.Flatten(), line, nn.ReLU(), top), (1, 1, 2))
    chosen = [("1", rules.SparingZPlus()), ("*", rules.Epsilon())]
    found = attribution.lrp(net, torch.ones(1, 1, 1, 2), 0, rules=chosen)
    spoken, silent = 2 - 1 + 0.5, 9 - 1 - 3  # the hidden values are the relevance that arrives
    expected = torch.tensor([spoken + silent * 1 / 10, silent * 9 / 10])
    torch.testing.assert_close(found.values.flatten(), expected, rtol=1e-5, atol=0)
    assert float(found.bias_share) == 0
    assert float(found.pixel_share) == pytest.approx(1, abs=1e-5)


def test_rules_take_their_own_number_first() -> None:
    assert rules.Epsilon(0.1).epsilon == 0.1
    assert (rules.Gamma(0.1).gamma, rules.Gamma(0.1).epsilon) == (0.1, 1e-6)
    assert (rules.AlphaBeta(3, 2).alpha, rules.AlphaBeta(3, 2).beta) == (3, 2)


@dataclass(frozen=True)
class Broken(rules.Rule):
    def share(self, operator: rules.Linear, arriving: torch.Tensor) -> rules.Shared:
        raise RuntimeError("a fault of the rule")


def test_a_fault_of_a_rule_is_not_blamed_on_the_model() -> None:
    net = Network(layers(), SHAPE)
    with pytest.raises(OpaqueError, match=r'failed at "4/conv2d".*a fault of the rule.*model itself is not at fault'):
        attribution.lrp(net, pictures(1), 0, rules=[("4", Broken()), ("*", "epsilon")])
