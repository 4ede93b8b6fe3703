"""Receptive fields against the network itself: which pixels change a position, and which do not."""

from __future__ import annotations

import copy
import random

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from microtome import Network

SIDE = (79, 83)
MARGIN = 14  # pixels from the border beyond which no padding is read: strides here reach 12


class SamePad(nn.Module):
    """TensorFlow's "same": the odd pixel of padding goes below and to the right, in a module of its own."""

    def __init__(self, kernel: int, stride: int, dilation: int, size: tuple[int, int]) -> None:
        super().__init__()
        reach = dilation * (kernel - 1) + 1
        total = [max((-(-length // stride) - 1) * stride + reach - length, 0) for length in size]
        self.pad = (total[1] // 2, total[1] - total[1] // 2, total[0] // 2, total[0] - total[0] // 2)

    def forward(self, x: Tensor) -> Tensor:
        return F.pad(x, self.pad)


class Branches(nn.Module):
    """Parts of equal stride that meet: added, or one after the other along the channels."""

    def __init__(self, parts: list[nn.Module], *, joined: str) -> None:
        super().__init__()
        self.parts, self.joined = nn.ModuleList(parts), joined

    def forward(self, x: Tensor) -> Tensor:
        values = [part(x) for part in self.parts]
        height, width = min(v.shape[2] for v in values), min(v.shape[3] for v in values)
        values = [v[:, :, :height, :width] for v in values]
        return torch.cat(values, 1) if self.joined == "cat" else torch.stack(values).sum(0) * 1.0


class Added(nn.Module):
    def __init__(self, part: nn.Module) -> None:
        super().__init__()
        self.part = part

    def forward(self, x: Tensor) -> Tensor:
        return x + self.part(x)


class Sliced(nn.Module):
    def __init__(self, row: int, step: int) -> None:
        super().__init__()
        self.row, self.step = row, step

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :, self.row :: self.step, ::2]


def positive(model: nn.Module) -> nn.Module:
    """All weights positive: no pixel's influence cancels, and with maxima made means none is lost."""
    for parameter in model.parameters():
        parameter.data = torch.rand_like(parameter) + 0.1
    return model.double()


def block(rng: random.Random, size: tuple[int, int]) -> nn.Module:
    """One random part on four channels."""
    kernel, stride, dilation = rng.choice((1, 2, 3, 5)), rng.choice((1, 1, 2, 3)), rng.choice((1, 1, 2))
    kind = rng.choice(("conv", "same", "asymmetric", "pool", "lopsided", "added", "cat", "slice", "same-torch", "ceil"))
    if kind == "conv":
        return nn.Conv2d(4, 4, kernel, stride, rng.randint(0, kernel), dilation, groups=rng.choice((1, 2, 4)))
    if kind == "same":
        return nn.Sequential(SamePad(kernel, stride, dilation, size), nn.Conv2d(4, 4, kernel, stride, 0, dilation))
    if kind == "asymmetric":
        pad = tuple(rng.randint(0, 3) for _ in range(4))
        return nn.Sequential(nn.ZeroPad2d(pad), nn.Conv2d(4, 4, (kernel, 1), (stride, 1), 0, dilation))
    if kind == "pool":
        return nn.AvgPool2d(kernel, stride, kernel // 2 if rng.random() < 0.5 else 0)
    if kind == "ceil":
        return nn.AvgPool2d(3, 2, 1, ceil_mode=True, count_include_pad=False)
    if kind == "lopsided":
        return nn.Conv2d(4, 4, (kernel, 3), (1, stride), (rng.randint(0, 1), 2), (1, dilation))
    if kind == "added":
        return Added(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 4, 5, padding=2)))
    if kind == "cat":
        parts = [nn.Conv2d(4, 2, 1, stride), nn.Conv2d(4, 2, 3, stride, rng.randint(0, 1))]
        return Branches(parts, joined="cat")
    if kind == "same-torch":
        return nn.Conv2d(4, 4, rng.choice((2, 3, 4)), padding="same", dilation=dilation)
    return Sliced(rng.randint(0, 2), rng.choice((1, 2)))


class Random(nn.Module):
    """A stem and a few random parts, ending in class scores."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        rng = random.Random(seed)
        self.parts = nn.ModuleList([nn.Conv2d(1, 4, rng.choice((1, 3)), padding=rng.randint(0, 1))])
        x = torch.zeros(1, 1, *SIDE)
        with torch.no_grad():
            x = self.parts[0](x)
            while len(self.parts) < rng.randint(3, 6):
                part = block(rng, (x.shape[2], x.shape[3]))
                reach = 11
                if min(x.shape[2:]) < reach:
                    break
                y = part(x)
                self.parts.append(part)
                x = y

    def forward(self, x: Tensor) -> Tensor:
        for part in self.parts:
            x = part(x)
        return x.mean((2, 3))


def support(net: Network, layer: str, row: int, column: int) -> tuple[int, int, int, int]:
    """The rectangle of pixels with a gradient at one position. Independent: autograd, no interval arithmetic."""

    def seed(value: Tensor) -> Tensor:
        found = torch.zeros_like(value)
        found[:, :, row, column] = 1
        return found

    image = torch.full((1, *net.input_shape), 0.5, dtype=torch.float64)
    record = net.run(image, record="input", gradient=True, output_layer=layer, grad_output=seed)
    gradient = record.gradient["input"][0].abs().sum(0)
    rows, columns = gradient.sum(1).nonzero()[:, 0], gradient.sum(0).nonzero()[:, 0]
    if not len(rows):
        return (0, 0, 0, 0)
    return int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1


def clipped(box: tuple[int, int, int, int]) -> tuple[int, int, int, int]:
    top, left, bottom, right = (
        min(max(value, 0), limit) for value, limit in zip(box, (SIDE[0], SIDE[1], SIDE[0], SIDE[1]), strict=True)
    )
    return (top, left, bottom, right) if top < bottom and left < right else (0, 0, 0, 0)


@pytest.mark.parametrize("seed", range(60))
def test_boxes_are_exactly_the_pixels_with_influence(seed: int) -> None:
    """Equal where no padding is read; at the border padding stands in for pixels, and the box is the nominal one."""
    torch.manual_seed(seed)
    net = Network(positive(Random(seed)), (1, *SIDE))
    layers = [layer for layer in net.layers.values() if layer.spatial]
    compared = 0
    for layer in layers:
        assert layer.field is not None, layer.name
        height, width = layer.shape[1:]
        for row, column in {(0, 0), (height - 1, width - 1), (height // 2, width // 2), (height // 3, 2 * width // 3)}:
            box, real = layer.field.box(row, column), support(net, layer.name, row, column)
            if box[0] >= MARGIN and box[1] >= MARGIN and box[2] <= SIDE[0] - MARGIN and box[3] <= SIDE[1] - MARGIN:
                assert box == real, (layer.name, layer.kind, row, column)
                compared += 1
            elif real != (0, 0, 0, 0):
                nominal = clipped(box)
                assert nominal[0] <= real[0], (layer.name, layer.kind, row, column)
                assert nominal[1] <= real[1], (layer.name, layer.kind, row, column)
                assert nominal[2] >= real[2], (layer.name, layer.kind, row, column)
                assert nominal[3] >= real[3], (layer.name, layer.kind, row, column)
    assert compared >= 2


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.squeeze, self.after = nn.Conv2d(1, 4, 5, 2, 1), nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        x = x * torch.sigmoid(self.squeeze(x.mean((2, 3), keepdim=True)))
        return self.after(x).mean((2, 3))


def test_a_global_gate_is_reported_and_left_out_of_the_box() -> None:
    net = Network(positive(Gated()), (1, *SIDE))
    conv, after = net.layer("conv"), net.layer("after")
    assert (conv.gated, after.gated) == (False, True)
    assert after.field is not None
    assert (after.field.size, after.field.stride, after.field.offset) == ((9, 9), (2, 2), (-1, -1))
    assert support(net, "after", 3, 3) == (0, 0, *SIDE)  # through the gate it sees everything


UNEVEN = {
    "transposed": nn.ConvTranspose2d(4, 4, 3, 2, 1),
    "transposed, even kernel": nn.ConvTranspose2d(4, 4, 4, 3, 1),
    "nearest": nn.Upsample(scale_factor=3, mode="nearest"),
    "nearest, odd ratio": nn.Upsample(size=(61, 50), mode="nearest"),
    "nearest-exact": nn.Upsample(size=(61, 50), mode="nearest-exact"),
    "bilinear": nn.Upsample(size=(61, 50), mode="bilinear"),
    "bilinear, corners": nn.Upsample(size=(61, 50), mode="bilinear", align_corners=True),
    "bilinear, smaller": nn.Upsample(size=(17, 29), mode="bilinear"),
    "bicubic": nn.Upsample(size=(61, 50), mode="bicubic"),
    "unequal bins": nn.AdaptiveAvgPool2d(7),
}


@pytest.mark.parametrize("part", UNEVEN.values(), ids=list(UNEVEN))
def test_where_fields_differ_between_positions_the_box_holds_every_one(part: nn.Module) -> None:
    """Upsampling and unequal bins: neighbours read different widths; the box holds the widest, and little more."""
    model = nn.Sequential(nn.Conv2d(1, 4, 3, 2), copy.deepcopy(part), nn.Conv2d(4, 2, 1), nn.Flatten())
    net = Network(positive(model), (1, *SIDE))
    layer = net.layer("2")
    assert layer.field is not None
    height, width = layer.shape[1:]
    for row in range(0, height, 4):
        for column in range(row % 9, width, 9):
            box, real = clipped(layer.field.box(row, column)), support(net, layer.name, row, column)
            assert box[0] <= real[0], (row, column)
            assert box[1] <= real[1], (row, column)
            assert box[2] >= real[2], (row, column)
            assert box[3] >= real[3], (row, column)
            assert max(a - b for a, b in zip(box, real, strict=True)) <= 12
            assert min(a - b for a, b in zip(box, real, strict=True)) >= -12


MOVED = {
    "rows and columns exchanged": lambda y: y.transpose(2, 3),
    "permuted": lambda y: y.permute(0, 1, 3, 2),
    "halves exchanged": lambda y: torch.cat([y[..., 20:], y[..., :20]], 3),
    "the second half": lambda y: y.chunk(2, 3)[1],
    "the second part": lambda y: y.split(15, dim=2)[1],
    "flipped": lambda y: y.flip(3),
    "rolled": lambda y: y.roll(7, 2),
    "gated halves": lambda y: F.glu(y, 3),
    "sides of channels": lambda y: torch.cat(y.chunk(2, 1)[::-1], 1),
}


class Moved(nn.Module):
    """A convolution, an operation that moves positions, and another convolution."""

    def __init__(self, move: str) -> None:
        super().__init__()
        self.move, self.first, self.second = move, nn.Conv2d(1, 4, 3), nn.Conv2d(4, 2, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.second(MOVED[self.move](self.first(x))).flatten(1)


@pytest.mark.parametrize("move", MOVED)
def test_a_box_holds_all_pixels_with_influence_where_positions_move(move: str) -> None:
    net = Network(positive(Moved(move)), (1, 40, 40))
    layer = net.layer("second")
    assert layer.field is not None
    _, height, width = layer.shape
    for row, column in ((0, 0), (0, width - 1), (height - 1, 0), (height // 2, width // 3)):
        box, real = layer.field.box(row, column), support(net, "second", row, column)
        assert box[0] <= real[0] and box[1] <= real[1], (row, column)  # noqa: PT018 - one corner
        assert box[2] >= real[2] and box[3] >= real[3], (row, column)  # noqa: PT018 - the other


def test_efficientnet_lite0() -> None:
    """Sizes known from the linearised network, and the rows of block 7's centre unit."""
    pytest.importorskip("efficientnet_lite_pytorch")
    from microtome.zoo import efficientnet_lite0

    net = Network(efficientnet_lite0().eval(), (3, 224, 224))
    sizes = {0: 7, 2: 19, 4: 67, 7: 147, 10: 339}
    prefix = next(name for name in net.layers if name.endswith("blocks.0._depthwise_conv")).split("blocks")[0]
    for block, size in sizes.items():
        field = net.layer(f"{prefix}blocks.{block}").field
        assert field is not None
        assert field.size == (size, size)
    seventh = net.layer(f"{prefix}blocks.7")
    assert seventh.field is not None
    assert seventh.field.box(7, 7)[::2] == (54, 201)
