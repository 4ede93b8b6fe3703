"""The same network with a residual sum or a concatenation, written in many ways."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from conformance.spelling_registry import WIDTH, conv, linear, spelling

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
