"""Does each image get its own account, wherever the images lie in a value? A batch against its images one by one."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network, attribution
from microtome.trace.lrp.image_sums import ImageAxis, ImageSums, image_axis

SHAPE = (3, 8, 8)


class Tokens(nn.Module):
    """A convolution and what is done with its places."""

    def __init__(self, use: Callable[[Tokens, Tensor], Tensor]) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.use = use
        self.stem, self.line, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(6, 6), nn.Linear(6, 4)
        self.attention = nn.MultiheadAttention(6, 2)
        self.first = nn.MultiheadAttention(6, 3, batch_first=True, add_bias_kv=True)
        self.encoder = nn.TransformerEncoderLayer(6, 2, 12)
        for parameter in self.parameters():
            if parameter.dim() == 1:
                nn.init.uniform_(parameter, 0.1, 0.6)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.use(self, self.stem(x)))


def tokens_first(y: Tensor) -> Tensor:
    return y.flatten(2).permute(2, 0, 1)


def windows(y: Tensor, order: tuple[int, ...]) -> Tensor:
    return y.view(len(y), 6, 4, 16).permute(*order).reshape(4 * len(y), 16, 6)


LAYOUTS: dict[str, Callable[[Tokens, Tensor], Tensor]] = {
    "tokens first": lambda net, y: net.line(tokens_first(y)).relu().mean(0),
    "windows in the batch": lambda net, y: net.line(windows(y, (0, 2, 3, 1))).relu().view(len(y), -1, 6).mean(1),
    "windows before images": lambda net, y: (
        net.line(windows(y, (2, 0, 3, 1))).relu().view(4, len(y), 16, 6).mean((0, 2))
    ),
    "images inside tokens": lambda net, y: net.line(tokens_first(y).reshape(-1, 6)).view(64, len(y), 6).mean(0),
    "channels last": lambda net, y: net.line(y.permute(0, 2, 3, 1)).relu().mean((1, 2)),
    "images last": lambda net, y: (net.line.weight @ y.flatten(2).mean(2).t() + net.line.bias[:, None]).relu().t(),
    "folded channels": lambda net, y: (
        F.conv2d(y.reshape(-1, 1, 8, 8), net.stem.weight[:1, :1], net.stem.bias[:1]).view(len(y), 6, -1).mean(2)
    ),
    "attention, default layout": lambda net, y: net.attention(*[tokens_first(y)] * 3)[0].mean(0),
    "attention, batch first": lambda net, y: net.first(*[tokens_first(y).transpose(0, 1)] * 3)[0].mean(1),
    "encoder layer": lambda net, y: net.encoder(tokens_first(y)).mean(0),
    "layer norm": lambda net, y: F.layer_norm(tokens_first(y), (6,), net.line.weight[0], net.line.bias).mean(0),
    "a loop over images": lambda net, y: torch.stack([net.line(one.flatten(1).t()).relu().mean(0) for one in y]),
}


@pytest.mark.parametrize("rules", ["epsilon", "epsilon-plus"])
@pytest.mark.parametrize("layout", list(LAYOUTS))
def test_a_batch_has_the_accounts_of_its_images(layout: str, rules: str) -> None:
    """Float64: the same sums in another order."""
    net = Network(Tokens(LAYOUTS[layout]).double(), SHAPE)
    x = torch.rand(4, *SHAPE, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    batch = attribution.lrp(net, x, 0, rules=rules)
    singles = [attribution.lrp(net, x[index : index + 1], 0, rules=rules) for index in range(4)]
    for name in ("bias_share", "stabiliser_share", "conservation"):
        torch.testing.assert_close(
            getattr(batch, name), torch.cat([getattr(one, name) for one in singles]), rtol=1e-9, atol=1e-12
        )
    total = batch.values.sum((1, 2, 3)) + batch.bias_share + batch.stabiliser_share
    torch.testing.assert_close(total, batch.score, rtol=1e-9, atol=1e-12)
    assert batch.mixed == []


def test_images_that_mix_are_said() -> None:
    net = Network(Tokens(lambda net, y: (y - y.mean(0)).mean((2, 3))), SHAPE)
    found = attribution.lrp(net, torch.rand(3, *SHAPE, generator=torch.Generator().manual_seed(1)), 0, rules="epsilon")
    assert found.mixed == ["/mean"]
    assert any("mixes the images" in note for note in found.notes)


def test_where_the_images_lie() -> None:
    """Oracle: the layouts by their construction."""

    def at(layout: str, name: str) -> ImageAxis | None:
        return image_axis(Network(Tokens(LAYOUTS[layout]).eval(), SHAPE).graph.axes, name)

    assert at("tokens first", "line/linear") == ImageAxis(1)
    assert at("windows in the batch", "line/linear") == ImageAxis(0, 4)
    assert at("windows before images", "line/linear") == ImageAxis(0, 1)
    assert at("folded channels", "/conv2d") == ImageAxis(0, 6)
    assert at("images last", "/matmul") == ImageAxis(1)


@pytest.mark.parametrize(
    ("axis", "inner", "shape"), [(0, 1, (4, 3, 2)), (1, 2, (3, 8, 2)), (2, 1, (3, 2, 12)), (0, 3, (12,))]
)
def test_sums_by_image(axis: int, inner: int, shape: tuple[int, ...]) -> None:
    """Oracle: every element added to its image in a loop."""
    a, b = torch.randn(2, *shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = torch.zeros(4, dtype=torch.float64)
    for place in torch.cartesian_prod(*(torch.arange(size) for size in shape)).reshape(-1, len(shape)).tolist():
        expected[place[axis] // inner % 4] += a[tuple(place)] * b[tuple(place)]
    sums = ImageSums(4, ImageAxis(axis, inner))
    torch.testing.assert_close(sums.product(a, b), expected)
    torch.testing.assert_close(sums.total(a * b), expected)
