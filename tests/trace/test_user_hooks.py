"""Hooks that a user has put on a model: forward ones are part of it, backward ones mean nothing to a rule.

Oracle: the same network with what its hooks do written as layers of its own, in plain PyTorch.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from microtome import Network, attribution, units

IMAGES = torch.rand(3, 3, 8, 8, dtype=torch.double, generator=torch.Generator().manual_seed(1))


class Affine(nn.Module):
    def __init__(self, scale: float, shift: float) -> None:
        super().__init__()
        self.scale, self.shift = scale, shift

    def forward(self, x: Tensor) -> Tensor:
        return x * self.scale + self.shift


def plain(*between: nn.Module) -> nn.Sequential:
    torch.manual_seed(0)
    first, last = nn.Conv2d(3, 6, 3), nn.Linear(6, 4)
    return nn.Sequential(first, *between, nn.AdaptiveAvgPool2d(1), nn.Flatten(), last).double().eval()


def hooked() -> nn.Sequential:
    model = plain(nn.ReLU())
    model[0].register_forward_hook(lambda _module, _args, out: out * 2 - 0.1)
    model[1].register_forward_pre_hook(lambda _module, args: (args[0] - 0.05,))
    return model


def written() -> nn.Sequential:
    return plain(Affine(2, -0.1), Affine(1, -0.05), nn.ReLU())


def test_a_layer_has_the_value_that_the_network_goes_on_with() -> None:
    net, expected = Network(hooked(), (3, 8, 8)), written()
    values = expected[:2](IMAGES)
    torch.testing.assert_close(net.activations(IMAGES, "0")["0"], values, rtol=0, atol=1e-12)
    torch.testing.assert_close(net.activations(IMAGES, "1@input")["1@input"], expected[2](values), rtol=0, atol=1e-12)
    top = units.top_patches(net, list(IMAGES), layers=["0"], k=1)["0"].activation[:, 0]
    torch.testing.assert_close(top, values.amax((0, 2, 3)).to(top), rtol=1e-5, atol=1e-6)


def test_replacing_a_layer_replaces_what_its_hooks_gave() -> None:
    net, expected = Network(hooked(), (3, 8, 8)), written()
    made = net.run(IMAGES, 0, replace={"0": torch.ones_like})
    torch.testing.assert_close(made.logits, expected[2:](torch.ones(3, 6, 6, 6).double()), rtol=0, atol=1e-12)


def test_methods_answer_for_the_hooked_network() -> None:
    net, other = Network(hooked(), (3, 8, 8)), Network(written(), (3, 8, 8))
    for method in (attribution.gradient, attribution.guided_backprop, attribution.lrp):
        a, b = (method(one, IMAGES, target=1).values for one in (net, other))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-9 * float(b.abs().max()))


def test_backward_hooks_take_no_part_in_rules_and_are_left_alone() -> None:
    calls: list[str] = []

    def doubled(_module: nn.Module, sent: tuple[Tensor, ...], _arrived: Any) -> tuple[Tensor, ...]:
        calls.append("ran")
        return (sent[0] * 2,)

    model = plain(nn.ReLU())
    expected = Network(plain(nn.ReLU()), (3, 8, 8))
    model[1].register_full_backward_hook(doubled)
    net = Network(model, (3, 8, 8))
    for method in (attribution.guided_backprop, attribution.deconvnet, attribution.lrp):
        a, b = (method(one, IMAGES, target=1).values for one in (net, expected))
        torch.testing.assert_close(a, b, rtol=0, atol=1e-12)
    assert not calls
    assert len(model[1]._backward_hooks) == 1
    gradient = attribution.gradient(net, IMAGES, target=1)
    torch.testing.assert_close(gradient.values, 2 * attribution.gradient(expected, IMAGES, target=1).values)
    assert calls
    assert any('"1" has backward hooks' in note for note in gradient.provenance.notes)


def test_what_is_written_into_an_empty_tensor_is_seen() -> None:
    class Filled(nn.Module):
        def __init__(self, filled: bool) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.conv, self.head, self.filled = nn.Conv2d(3, 6, 3), nn.Linear(6, 4), filled

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            if not self.filled:
                return self.head(y.relu().mean((2, 3)))
            z = torch.empty_like(y)
            for unit in range(6):
                z[:, unit] = y[:, unit].relu()
            out = y.new_zeros(len(y), 6)
            out[torch.arange(len(y))] = z.mean((2, 3))
            return self.head(out)

    a, b = (Network(Filled(filled).double().eval(), (3, 8, 8)) for filled in (True, False))
    for method in (attribution.guided_backprop, attribution.deconvnet, attribution.lrp):
        found, expected = (method(net, IMAGES, target=1).values for net in (a, b))
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-9 * float(expected.abs().max()))
