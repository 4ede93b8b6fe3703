"""The same network, written in many ways: what no method may notice.

Every spelling computes one of three functions, with the same weights:

``plain``     conv 3x3 + b, rectify, pool 2x2, conv 3x3 stride 2 + b, rectify, mean over positions, linear
``residual``  conv + rectify = a; conv + rectify + conv = r; rectify(a + r), mean over positions, linear
``concat``    conv + rectify = a; conv + rectify = b; conv(cat(a, b)), rectify, mean over positions, linear

To test another way of writing, add one class with ``@spelling``: every method is then run through it.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

WIDTH, CLASSES = 6, 4


@dataclass(frozen=True)
class Spelling:
    """One way to write a function; ``layer`` is where it keeps the last feature maps."""

    name: str
    family: str
    pool: str
    build: Callable[[dict[str, Tensor]], nn.Module]
    layer: str


SPELLINGS: dict[str, Spelling] = {}


def weights(family: str, channels: int, dtype: torch.dtype = torch.float64, seed: int = 0) -> dict[str, Tensor]:
    """The weights of a family, drawn once."""
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int, scale: float = 0.35) -> Tensor:
        return (torch.randn(*shape, generator=g, dtype=torch.float64) * scale).to(dtype)

    second = 2 * WIDTH if family == "concat" else WIDTH
    return {
        "w1": draw(WIDTH, channels, 3, 3), "b1": draw(WIDTH, scale=0.2),
        "w2": draw(WIDTH, WIDTH, 3, 3), "b2": draw(WIDTH, scale=0.2),
        "w3": draw(WIDTH, second, 3, 3), "b3": draw(WIDTH, scale=0.2),
        "wf": draw(CLASSES, WIDTH, scale=1.0), "bf": draw(CLASSES, scale=0.2),
    }  # fmt: skip


def spelling(layer: str, *, family: str = "plain", pool: str = "max") -> Callable[[type[nn.Module]], type[nn.Module]]:
    """Enter a class in the registry under its own name."""

    def enter(cls: type[nn.Module]) -> type[nn.Module]:
        SPELLINGS[cls.__name__] = Spelling(cls.__name__, family, pool, cls, layer)
        return cls

    return enter


def conv(w: Tensor, b: Tensor, stride: int = 1) -> nn.Conv2d:
    """A convolution with given weights."""
    module = nn.Conv2d(w.shape[1], w.shape[0], 3, stride, padding=1, dtype=w.dtype)
    module.weight.data.copy_(w)
    module.bias.data.copy_(b)
    return module


def linear(w: Tensor, b: Tensor) -> nn.Linear:
    """A linear layer with given weights."""
    module = nn.Linear(w.shape[1], w.shape[0], dtype=w.dtype)
    module.weight.data.copy_(w)
    module.bias.data.copy_(b)
    return module


class Parts(nn.Module):
    """The modules of the plain function; subclasses write the forward pass."""

    def __init__(self, p: dict[str, Tensor]) -> None:
        super().__init__()
        self.c1, self.c2, self.fc = conv(p["w1"], p["b1"]), conv(p["w2"], p["b2"], 2), linear(p["wf"], p["bf"])
        self.pool, self.gap = nn.MaxPool2d(2), nn.AdaptiveAvgPool2d(1)

    def rectify(self, x: Tensor) -> Tensor:
        raise TypeError("a spelling says how it rectifies")

    def forward(self, x: Tensor) -> Tensor:
        x = self.pool(self.rectify(self.c1(x)))
        x = self.rectify(self.c2(x))
        return self.fc(torch.flatten(self.gap(x), 1))


# -- ways to rectify ---------------------------------------------------------------------------------------------------


@spelling("r2")
class ReluModules(Parts):
    def __init__(self, p):
        super().__init__(p)
        self.r1, self.r2 = nn.ReLU(), nn.ReLU()

    def forward(self, x):
        return self.fc(self.gap(self.r2(self.c2(self.pool(self.r1(self.c1(x)))))).flatten(1))


@spelling("r2")
class InplaceModules(ReluModules):
    def __init__(self, p):
        super().__init__(p)
        self.r1, self.r2 = nn.ReLU(inplace=True), nn.ReLU(inplace=True)


@spelling("act#2")
class OneReluReused(Parts):
    def __init__(self, p):
        super().__init__(p)
        self.act = nn.ReLU()

    def rectify(self, x):
        return self.act(x)


@spelling("act#2")
class OneInplaceReluReused(Parts):
    def __init__(self, p):
        super().__init__(p)
        self.act = nn.ReLU(inplace=True)

    def rectify(self, x):
        return self.act(x)


@spelling("relu.1")
class FRelu(Parts):
    def rectify(self, x):
        return F.relu(x)


@spelling("relu.1")
class FReluInplaceFlag(Parts):
    def rectify(self, x):
        return F.relu(x, inplace=True)


@spelling("relu.1")
class FReluUnderscore(Parts):
    def rectify(self, x):
        return F.relu_(x)


@spelling("relu.1")
class TorchRelu(Parts):
    def rectify(self, x):
        return torch.relu(x)


@spelling("relu.1")
class TensorRelu(Parts):
    def rectify(self, x):
        return x.relu()


@spelling("relu.1")
class TensorReluUnderscore(Parts):
    def rectify(self, x):
        x.relu_()  # the returned value is not used
        return x


@spelling("relu.1")
class Clamp(Parts):
    def rectify(self, x):
        return x.clamp(min=0)


@spelling("relu.1")
class ClampUnderscore(Parts):
    def rectify(self, x):
        return x.clamp_(0)


@spelling("relu.1")
class ClampMin(Parts):
    def rectify(self, x):
        return torch.clamp_min(x, 0)


@spelling("relu.1")
class Threshold(Parts):
    def rectify(self, x):
        return F.threshold(x, 0.0, 0.0)


@spelling("t2")
class ThresholdModules(Parts):
    def __init__(self, p):
        super().__init__(p)
        self.t1, self.t2 = nn.Threshold(0, 0), nn.Threshold(0, 0, inplace=True)

    def forward(self, x):
        return self.fc(self.gap(self.t2(self.c2(self.pool(self.t1(self.c1(x)))))).flatten(1))


@spelling("mul.1")
class TimesMask(Parts):
    def rectify(self, x):
        return x * (x > 0)


@spelling("mul.1")
class TimesFloatMask(Parts):
    def rectify(self, x):
        return (x > 0).to(x.dtype) * x


@spelling("where.1")
class Where(Parts):
    def rectify(self, x):
        return torch.where(x > 0, x, torch.zeros_like(x))


@spelling("where.1")
class WhereNegative(Parts):
    def rectify(self, x):
        return torch.where(x <= 0, 0.0, x)


@spelling("relu.1")
class Maximum(Parts):
    def rectify(self, x):
        return torch.maximum(x, torch.zeros_like(x))


@spelling("relu.1")
class MaximumOfOneZero(Parts):
    def rectify(self, x):
        return torch.max(x, torch.tensor(0.0, dtype=x.dtype))


@spelling("keep2")
class IndexedAssignment(Parts):
    """The rectified value has no call of its own: it is what an identity hands on."""

    def __init__(self, p):
        super().__init__(p)
        self.keep1, self.keep2 = nn.Identity(), nn.Identity()

    def forward(self, x):
        x = self.c1(x)
        x[x < 0] = 0
        x = self.c2(self.pool(self.keep1(x)))
        x[x < 0] = 0
        return self.fc(self.gap(self.keep2(x)).flatten(1))


@spelling("masked_fill.1")
class MaskedFill(Parts):
    def rectify(self, x):
        return x.masked_fill(x < 0, 0.0)


@spelling("relu.1")
class Hardtanh(Parts):
    def rectify(self, x):
        return F.hardtanh(x, 0.0, float("inf"))


# -- ways to put together ----------------------------------------------------------------------------------------------


@spelling("4")
class InSequence(nn.Sequential):
    def __init__(self, p):
        super().__init__(
            conv(p["w1"], p["b1"]), nn.ReLU(), nn.MaxPool2d(2), conv(p["w2"], p["b2"], 2), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), linear(p["wf"], p["bf"]),
        )  # fmt: skip


@spelling("stages.1")
class NestedSequences(nn.Module):
    def __init__(self, p):
        super().__init__()
        first = nn.Sequential(nn.Sequential(conv(p["w1"], p["b1"]), nn.ReLU(inplace=True)), nn.MaxPool2d(2))
        second = nn.Sequential(conv(p["w2"], p["b2"], 2), nn.ReLU(inplace=True))
        self.stages = nn.Sequential(first, second)
        self.head = nn.Sequential(nn.AdaptiveAvgPool2d((1, 1)), nn.Flatten(), linear(p["wf"], p["bf"]))

    def forward(self, x):
        return self.head(self.stages(x))


@spelling("relu.1")
class LoopOverBlocks(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.blocks = nn.ModuleList([conv(p["w1"], p["b1"]), conv(p["w2"], p["b2"], 2)])
        self.fc = linear(p["wf"], p["bf"])

    def forward(self, x):
        for index, block in enumerate(self.blocks):
            x = F.relu(block(x))
            if index == 0:
                x = F.max_pool2d(x, 2)
        return self.fc(x.mean([2, 3]))


@spelling("relu.1")
class PooledByFunctions(Parts):
    def forward(self, x):
        x = F.max_pool2d(self.c1(x).relu_(), (2, 2), stride=(2, 2))
        x = self.c2(x).relu_()
        return self.fc(F.avg_pool2d(x, x.shape[2:]).view(x.size(0), -1))


@spelling("relu.1")
class MeanOverPositions(Parts):
    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.c1(x)), 2)
        return self.fc(torch.relu(self.c2(x)).mean(dim=(-2, -1)))


@spelling("relu.1")
class MeanOfFlattened(Parts):
    def forward(self, x):
        x = F.relu(self.c2(self.pool(F.relu(self.c1(x)))))
        return self.fc(x.reshape(x.shape[0], x.shape[1], -1).mean(-1))


@spelling("relu.1")
class AllFunctional(nn.Module):
    """No module at all: raw tensors."""

    def __init__(self, p):
        super().__init__()
        self.p = nn.ParameterDict({name: nn.Parameter(value.clone()) for name, value in p.items()})

    def forward(self, x):
        p = self.p
        x = F.max_pool2d(F.relu(F.conv2d(x, p["w1"], p["b1"], padding=1)), 2)
        x = F.relu(F.conv2d(x, p["w2"], p["b2"], stride=2, padding=1))
        return F.linear(F.adaptive_avg_pool2d(x, 1).flatten(1), p["wf"], p["bf"])


@spelling("relu.1")
class HeadAsMatrixProduct(Parts):
    def forward(self, x):
        x = F.relu(self.c2(self.pool(F.relu(self.c1(x)))))
        return x.mean((2, 3)) @ self.fc.weight.t() + self.fc.bias


@spelling("r2", pool="average")
class AveragePoolModule(ReluModules):
    def __init__(self, p):
        super().__init__(p)
        self.pool = nn.AvgPool2d(2)


@spelling("relu.1", pool="average")
class AveragePoolFunction(Parts):
    def forward(self, x):
        x = F.avg_pool2d(F.relu(self.c1(x)), 2)
        return self.fc(F.relu(self.c2(x)).mean((2, 3)))


# -- residual sums -----------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.c1, self.c2, self.c3 = (conv(p[f"w{i}"], p[f"b{i}"]) for i in (1, 2, 3))
        self.fc = linear(p["wf"], p["bf"])

    def join(self, a: Tensor, r: Tensor) -> Tensor:
        raise TypeError("a spelling says how it adds")

    def forward(self, x):
        a = F.relu(self.c1(x))
        x = F.relu(self.join(a, self.c3(F.relu(self.c2(a)))))
        return self.fc(x.mean((2, 3)))


@spelling("relu.2", family="residual")
class AddedByPlus(Residual):
    def join(self, a, r):
        return a + r


@spelling("relu.2", family="residual")
class AddedByTorch(Residual):
    def join(self, a, r):
        return torch.add(a, r)


@spelling("relu.2", family="residual")
class AddedInPlace(Residual):
    def join(self, a, r):
        r += a
        return r


class BasicBlock(nn.Module):
    """As torchvision writes it: one in-place ReLU object for both places, ``out += identity``."""

    def __init__(self, p):
        super().__init__()
        self.conv1, self.relu, self.conv2 = conv(p["w2"], p["b2"]), nn.ReLU(inplace=True), conv(p["w3"], p["b3"])

    def forward(self, x):
        identity = x
        out = self.conv1(x)
        out = self.relu(out)
        out = self.conv2(out)
        out += identity
        return self.relu(out)


@spelling("layer1", family="residual")
class TorchvisionStyle(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.conv1, self.relu = conv(p["w1"], p["b1"]), nn.ReLU(inplace=True)
        self.layer1 = nn.Sequential(BasicBlock(p))
        self.avgpool, self.fc = nn.AdaptiveAvgPool2d((1, 1)), linear(p["wf"], p["bf"])

    def forward(self, x):
        x = self.relu(self.conv1(x))
        x = self.avgpool(self.layer1(x))
        return self.fc(torch.flatten(x, 1))


# -- concatenation -----------------------------------------------------------------------------------------------------


class Concatenation(nn.Module):
    def __init__(self, p):
        super().__init__()
        self.c1, self.c2, self.c3 = (conv(p[f"w{i}"], p[f"b{i}"]) for i in (1, 2, 3))
        self.fc = linear(p["wf"], p["bf"])

    def join(self, a: Tensor, b: Tensor) -> Tensor:
        raise TypeError("a spelling says how it concatenates")

    def forward(self, x):
        a = F.relu(self.c1(x))
        b = F.relu(self.c2(a))
        return self.fc(F.relu(self.c3(self.join(a, b))).mean((2, 3)))


@spelling("relu.2", family="concat")
class TorchCat(Concatenation):
    def join(self, a, b):
        return torch.cat([a, b], 1)


@spelling("relu.2", family="concat")
class TorchConcatTuple(Concatenation):
    def join(self, a, b):
        return torch.concat((a, b), dim=1)


@spelling("relu.2", family="concat")
class WrittenIntoSlices(Concatenation):
    def join(self, a, b):
        both = torch.empty(a.shape[0], 2 * WIDTH, *a.shape[2:], dtype=a.dtype)
        both[:, :WIDTH] = a
        both[:, WIDTH:] = b
        return both
