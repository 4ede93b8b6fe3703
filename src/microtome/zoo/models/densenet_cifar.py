"""The densely connected networks of the CIFAR experiments: each layer reads the values of all layers before it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from microtome.errors import InputError
from microtome.zoo.models.initial_weights import seeded

__all__ = ["CifarDenseNet", "densenet40"]

_STEM = 16  # channels of the first convolution


class _Layer(nn.Module):
    """Batch norm, ReLU and a 3 x 3 convolution, whose channels are added to those of the input."""

    def __init__(self, inputs: int, growth: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(inputs)
        self.conv = nn.Conv2d(inputs, growth, 3, padding=1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.conv(torch.relu(self.bn(x)))], 1)


class _Transition(nn.Module):
    """Batch norm, ReLU, a 1 x 1 convolution and an average of 2 x 2 pixels."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.bn = nn.BatchNorm2d(channels)
        self.conv = nn.Conv2d(channels, channels, 1, bias=False)
        self.pool = nn.AvgPool2d(2)

    def forward(self, x: Tensor) -> Tensor:
        pooled: Tensor = self.pool(self.conv(torch.relu(self.bn(x))))
        return pooled


class CifarDenseNet(nn.Module):
    """A 3 x 3 stem, three dense blocks with transitions between them, average pooling, a head."""

    def __init__(self, inputs: int, classes: int, depth: int, *, growth: int) -> None:
        super().__init__()
        if depth < 7 or (depth - 4) % 3:
            raise InputError(f"a depth of 3 n + 4 is expected, such as 22, 40 or 100; got {depth}.")
        if growth < 1:
            raise InputError(f"a growth of at least one channel a layer is expected, got {growth}.")
        layers, channels = (depth - 4) // 3, _STEM
        self.conv1 = nn.Conv2d(inputs, channels, 3, padding=1, bias=False)
        self.block1 = _block(channels, layers, growth)
        self.transition1 = _Transition(channels := channels + layers * growth)
        self.block2 = _block(channels, layers, growth)
        self.transition2 = _Transition(channels := channels + layers * growth)
        self.block3 = _block(channels, layers, growth)
        channels += layers * growth
        self.bn = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, C, H, W)."""
        x = self.transition1(self.block1(self.conv1(x)))
        x = self.block3(self.transition2(self.block2(x)))
        logits: Tensor = self.fc(torch.relu(self.bn(x)).mean((2, 3)))
        return logits


def _block(inputs: int, layers: int, growth: int) -> nn.Sequential:
    return nn.Sequential(*(_Layer(inputs + place * growth, growth) for place in range(layers)))


def densenet40(
    input_shape: tuple[int, int, int] = (3, 32, 32), classes: int = 10, *, seed: int = 0, growth: int = 12
) -> CifarDenseNet:
    """DenseNet with 40 layers for small images [1]_, without bottlenecks; ``growth`` channels are added by each layer.

    References
    ----------
    .. [1] G. Huang, Z. Liu, L. van der Maaten, K. Q. Weinberger. Densely connected convolutional networks. CVPR 2017.
    """
    with seeded(seed):
        return CifarDenseNet(input_shape[0], classes, 40, growth=growth)
