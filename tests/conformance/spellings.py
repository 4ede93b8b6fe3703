"""The same network, written in many ways: what no method may notice."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from conformance import spellings_joined  # noqa: F401 - enters its spellings
from conformance.spelling_registry import SPELLINGS, Parts, Spelling, conv, linear, spelling, weights

__all__ = ["SPELLINGS", "Parts", "Spelling", "weights"]


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
