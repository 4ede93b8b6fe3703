"""The residual networks of the CIFAR experiments, with 20, 56 and 110 layers, with and without skip connections."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome.errors import InputError
from microtome.zoo.models.initial_weights import seeded

__all__ = ["CLASSES", "MEAN", "STD", "CifarResNet", "resnet20", "resnet56", "resnet110"]

# Of CIFAR-10's training images, by channel, and its classes.
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")


class CifarBlock(nn.Module):
    """Two 3 x 3 convolutions with batch norm; with ``skip`` the input is added before the last ReLU.

    If the size changes, the input loses every second row and column and gains channels of zeros, which needs no
    weights (option A of the paper).
    """

    def __init__(self, inputs: int, outputs: int, stride: int, skip: bool) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.more, self.skip = stride, outputs - inputs, skip

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, outputs, h, w)."""
        out = self.bn2(self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        if self.skip:
            identity = x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride]
            out = out + (functional.pad(identity, (0, 0, 0, 0, 0, self.more)) if self.more else identity)
        return torch.relu(out)


class CifarResNet(nn.Module):
    """A 3 x 3 stem, three stages of n blocks with 1, 2 and 4 times ``width`` channels, average pooling, a head."""

    def __init__(self, inputs: int, classes: int, depth: int, *, width: int, skip: bool) -> None:
        super().__init__()
        if depth < 8 or (depth - 2) % 6:
            raise InputError(f"a depth of 6 n + 2 is expected, such as 20, 56 or 110; got {depth}.")
        if width < 1:
            raise InputError(f"a width of at least one channel is expected, got {width}.")
        blocks = (depth - 2) // 6
        self.conv1 = nn.Conv2d(inputs, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, 1, skip)
        self.layer2 = _stage(width, 2 * width, blocks, 2, skip)
        self.layer3 = _stage(2 * width, 4 * width, blocks, 2, skip)
        self.fc = nn.Linear(4 * width, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        x = torch.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: Tensor = self.fc(x.mean((2, 3)))
        return logits


def _stage(inputs: int, outputs: int, blocks: int, stride: int, skip: bool) -> nn.Sequential:
    rest = [CifarBlock(outputs, outputs, 1, skip) for _ in range(blocks - 1)]
    return nn.Sequential(CifarBlock(inputs, outputs, stride, skip), *rest)


_SHAPE = (3, 32, 32)


def resnet20(
    input_shape: tuple[int, int, int] = _SHAPE, classes: int = 10, *, seed: int = 0, width: int = 16, skip: bool = True
) -> CifarResNet:
    """ResNet with 20 layers for small images [1]_; ``skip=False`` is the plain network of the same weights.

    References
    ----------
    .. [1] K. He, X. Zhang, S. Ren, J. Sun. Deep residual learning for image recognition. CVPR 2016, section 4.2.
    """
    with seeded(seed):
        return CifarResNet(input_shape[0], classes, 20, width=width, skip=skip)


def resnet56(
    input_shape: tuple[int, int, int] = _SHAPE, classes: int = 10, *, seed: int = 0, width: int = 16, skip: bool = True
) -> CifarResNet:
    """The same with 56 layers, see :func:`resnet20`."""
    with seeded(seed):
        return CifarResNet(input_shape[0], classes, 56, width=width, skip=skip)


def resnet110(
    input_shape: tuple[int, int, int] = _SHAPE, classes: int = 10, *, seed: int = 0, width: int = 16, skip: bool = True
) -> CifarResNet:
    """The same with 110 layers, see :func:`resnet20`."""
    with seeded(seed):
        return CifarResNet(input_shape[0], classes, 110, width=width, skip=skip)
