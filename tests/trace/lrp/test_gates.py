"""Does a gate stay a gate on its way to the product? Every spelling against the plain product ``y * g``."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network, attribution

SHAPE = (3, 8, 8)
EXACT = attribution.rules.Epsilon(1e-13)  # so that stabilisers take nothing that could be seen


class Gated(nn.Module):
    """Squeeze and excitation, or another gate, joined to the signal in a way of its own."""

    def __init__(
        self, way: Callable[[Tensor, Tensor], Tensor], make: Callable[[Tensor], Tensor] = torch.sigmoid
    ) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.way, self.make = way, make
        self.stem, self.squeeze, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 1), nn.Linear(6, 4)

    def forward(self, x: Tensor) -> Tensor:
        y = self.stem(x)
        gate = self.make(self.squeeze(y.mean((2, 3), keepdim=True)))
        return self.head(self.way(y, gate).mean((2, 3)))


def maps(way: Callable[[Tensor, Tensor], Tensor], make: Callable[[Tensor], Tensor] = torch.sigmoid) -> Tensor:
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    return attribution.lrp(Network(Gated(way, make).double(), SHAPE), x, 0, rules=EXACT).values


def whole(g: Tensor) -> Tensor:
    return g.expand(-1, -1, 8, 8)


WAYS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "expand_as": lambda y, g: y * g.expand_as(y),
    "gate first": lambda y, g: g.expand_as(y) * y,
    "mul_": lambda y, g: y.clone().mul_(g.expand_as(y)),
    "view_as": lambda y, g: y * whole(g).contiguous().view_as(y),
    "interpolate": lambda y, g: y * F.interpolate(g, size=y.shape[2:]),
    "bilinear": lambda y, g: y * F.interpolate(g, size=y.shape[2:], mode="bilinear"),
    "nn.Upsample": lambda y, g: y * nn.Upsample(scale_factor=8)(g),
    "repeat": lambda y, g: y * g.repeat(1, 1, 8, 8),
    "tile": lambda y, g: y * g.tile(1, 1, 8, 8),
    "repeat_interleave": lambda y, g: y * g.repeat_interleave(8, 2).repeat_interleave(8, 3),
    "broadcast_to": lambda y, g: y * torch.broadcast_to(g, y.shape),
    "broadcast_tensors": lambda y, g: torch.mul(*torch.broadcast_tensors(y, g)),
    "cat": lambda y, g: y * torch.cat([whole(g[:, :3]), whole(g[:, 3:])], 1),
    "stack": lambda y, g: y * torch.stack([g[:, k].expand(-1, 8, 8) for k in range(6)], 1),
    "pad": lambda y, g: y * F.pad(g.expand(-1, -1, 6, 6), (1, 1, 1, 1), mode="replicate"),
    "average pool": lambda y, g: y * F.avg_pool2d(g.expand(-1, -1, 16, 16), 2),
    "max pool": lambda y, g: y * F.max_pool2d(whole(g), 3, 1, 1),
    "roll and flip": lambda y, g: y * whole(g).roll(1, 2).flip(3).rot90(1, (2, 3)),
    "split": lambda y, g: torch.cat([a * b for a, b in zip(y.chunk(2, 1), whole(g).split(3, 1), strict=True)], 1),
    "gather": lambda y, g: y * whole(g).gather(3, torch.zeros(len(y), 6, 8, 8, dtype=torch.long)),
    "where": lambda y, g: y * torch.where(torch.ones(8, 8, dtype=torch.bool), whole(g), 0.0),
    "written": lambda y, g: y * torch.zeros_like(y).copy_(whole(g)),
    "unfold": lambda y, g: y * F.fold(F.unfold(whole(g), 1), (8, 8), 1),
    "maximum": lambda y, g: y * torch.maximum(whole(g), torch.zeros(())),
    "half and back": lambda y, g: y * (whole(g) * 0.5 + whole(g) * 0.5),
    "division": lambda y, g: y / (1 / whole(g)),
    "einsum": lambda y, g: torch.einsum("nchw,nc->nchw", y, g[:, :, 0, 0]),
}


@pytest.mark.parametrize("way", list(WAYS))
def test_a_gate_stays_a_gate(way: str) -> None:
    """Oracle: the same function spelled ``y * g``. The same sums in another order."""
    right = maps(lambda y, g: y * g)
    assert float((maps(WAYS[way]) - right).norm()) < 1e-7 * float(right.norm())


MAKERS: dict[str, Callable[[Tensor], Tensor]] = {
    "hardsigmoid": F.hardsigmoid,
    "clamp": lambda z: (z / 6 + 0.5).clamp(0, 1),
    "1 + tanh": lambda z: 1 + z.tanh(),
    "by hand": lambda z: 1 / (1 + torch.exp(-z)),
    "softmax of two": lambda z: torch.stack([z, -z]).softmax(0)[0],
    "exp": torch.exp,
}


@pytest.mark.parametrize("maker", list(MAKERS))
def test_what_makes_a_gate(maker: str) -> None:
    """Oracle: x times the gradient with the gate detached, as the rest is linear (no bias at the pixels' layer)."""
    model = Gated(lambda y, g: y * g.expand_as(y), MAKERS[maker]).double()
    x = torch.rand(2, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    found = attribution.lrp(Network(model, SHAPE), x, 0, rules=EXACT).values
    pixels = x.clone().requires_grad_()
    model.way = lambda y, g: y * g.detach()
    expected = x * torch.autograd.grad(model(pixels)[:, 0].sum(), pixels)[0]
    assert float((found - expected).norm()) < 1e-7 * float(expected.norm())


def test_a_sigmoid_between_layers_is_no_gate() -> None:
    """Its value goes through a layer with weights, so both factors are signals. Oracle: one half of each path alone."""
    weight = torch.linspace(-1, 1, 36, dtype=torch.float64).reshape(6, 6, 1, 1)

    def layer(g: Tensor) -> Tensor:
        return F.conv2d(g, weight)

    both = maps(lambda y, g: y * layer(whole(g)))
    first, second = maps(lambda y, g: y * layer(whole(g)).detach()), maps(lambda y, g: y.detach() * layer(whole(g)))
    torch.testing.assert_close(both, (first + second) / 2)
    assert float(second.norm()) > 0.01 * float(first.norm())


@pytest.mark.parametrize("hard", [lambda z: F.relu6(z + 3) / 6, lambda z: (z + 3).clamp_(0, 6).div_(6)], ids=["a", "b"])
def test_a_hard_sigmoid_by_hand(hard: Callable[[Tensor], Tensor]) -> None:
    """Of the signal's own size, so that only its form tells. Oracle: torch's hard sigmoid."""
    right = maps(lambda y, g: y * F.hardsigmoid(y.flip(1)))
    torch.testing.assert_close(maps(lambda y, g: y * hard(y.flip(1))), right)


def test_the_factor_of_fewer_numbers_weighs() -> None:
    """A gate that no sigmoid made (energies, a ReLU) is known by its size, also when it has been repeated."""
    for make in (torch.relu, torch.abs, F.softplus):
        right = maps(lambda y, g: y * g, make)
        assert float((maps(lambda y, g: y * g.expand_as(y), make) - right).norm()) < 1e-7 * float(right.norm())


def test_a_response_of_one_place_weighs() -> None:
    """ConvNeXt V2's response where a map has shrunk to one place, so that sizes do not tell. Oracle: it is held."""

    def answered(y: Tensor, held: Callable[[Tensor], Tensor]) -> Tensor:
        y = y.mean((2, 3), keepdim=True)
        return y * held(y.norm(p=2, dim=(2, 3), keepdim=True) / 3) + y * held(
            torch.linalg.vector_norm(y, dim=(2, 3), keepdim=True)
        )

    found, right = maps(lambda y, g: answered(y, lambda n: n)), maps(lambda y, g: answered(y, Tensor.detach))
    torch.testing.assert_close(found, right)
    assert float(right.norm()) > 0


def test_a_candidate_and_its_gate() -> None:
    """LSTM's product sigmoid * tanh: the sigmoid is the gate in either order (Arras et al. 2017)."""
    one = maps(lambda y, g: y.sigmoid() * y.tanh())
    other = maps(lambda y, g: y.tanh() * y.sigmoid())
    torch.testing.assert_close(one, other)
