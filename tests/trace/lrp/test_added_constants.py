"""A constant that is added to each channel behind a layer is its bias, however often it is repeated."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from microtome import Network, attribution


class Added(nn.Module):
    """One token, or a map, whose layer has no bias of its own; a constant is added after it."""

    def __init__(self, layer: nn.Module, repeat: bool, constant: Tensor) -> None:
        super().__init__()
        self.layer, self.repeat, self.head = layer, repeat, nn.Linear(4, 3)
        self.constant = nn.Parameter(constant)

    def forward(self, x: Tensor) -> Tensor:
        x = x.flatten(1)[:, None] if isinstance(self.layer, nn.Linear) else x
        value = self.layer(x)
        shape = [len(x), *value.shape[1:]]
        added = self.constant.expand(shape) if self.repeat else self.constant
        added = added.clone() if self.repeat else added
        value = torch.relu(value + added)
        return self.head(value.flatten(2).mean(2) if value.dim() == 4 else value.mean(1))


def built(convolves: bool, repeat: bool) -> nn.Module:
    torch.manual_seed(0)
    layer = nn.Conv2d(1, 4, 2, bias=False) if convolves else nn.Linear(9, 4, bias=False)
    return Added(layer, repeat, torch.randn(1, 4, 1, 1) if convolves else torch.randn(1, 1, 4)).double().eval()


@pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus", "epsilon-sparing-plus"])
@pytest.mark.parametrize("convolves", [False, True])
def test_repeats_for_images_and_places_change_nothing(convolves: bool, rules: str) -> None:
    images = torch.rand(3, 1, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    once, repeated = (Network(built(convolves, repeat), (1, 3, 3)) for repeat in (False, True))
    expected = attribution.lrp(once, images, 0, rules=rules).values
    assert torch.allclose(attribution.lrp(repeated, images, 0, rules=rules).values, expected, rtol=1e-9, atol=1e-15)
    apart = [attribution.lrp(repeated, images[i : i + 1], 0, rules=rules).values for i in range(3)]
    assert torch.allclose(torch.cat(apart), expected, rtol=1e-9, atol=1e-15)


def test_also_where_a_product_has_its_weights_on_the_left() -> None:
    images = torch.rand(3, 1, 3, 3, generator=torch.Generator().manual_seed(1)).double()

    class Left(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(0)
            self.weight, self.constant = nn.Parameter(torch.randn(4, 3)), nn.Parameter(torch.randn(1, 4, 1))
            self.head = nn.Linear(4, 3)

        def forward(self, x: Tensor) -> Tensor:
            value = self.weight @ x.flatten(1, 2) + self.constant.expand(len(x), -1, -1).clone()
            return self.head(value.relu().mean(2))

    net = Network(Left().double().eval(), (1, 3, 3))
    together = attribution.lrp(net, images, 0).values
    apart = torch.cat([attribution.lrp(net, images[i : i + 1], 0).values for i in range(3)])
    assert torch.allclose(apart, together, rtol=1e-9, atol=1e-15)


def test_as_the_bias_of_the_layer() -> None:
    images = torch.rand(2, 1, 3, 3, generator=torch.Generator().manual_seed(1)).double()
    model = built(False, True)
    biased = built(False, False)
    layer = nn.Linear(9, 4).double()
    with torch.no_grad():
        layer.weight.copy_(biased.layer.weight)  # type: ignore[operator, union-attr, arg-type]
        layer.bias.copy_(biased.constant.flatten())  # type: ignore[operator]
        biased.layer, biased.constant[:] = layer, 0.0  # type: ignore[index, operator]
    one, other = (attribution.lrp(Network(m, (1, 3, 3)), images, 0).values for m in (model, biased))
    assert torch.allclose(one, other, rtol=1e-9, atol=1e-15)
