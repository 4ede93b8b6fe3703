"""SimpleConvNet: the small convolutional network that is dissected unit by unit."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

from microtome.errors import InputError
from microtome.zoo.models.initial_weights import seeded

__all__ = ["SimpleConvNet", "simple_conv_net"]


class SimpleConvNet(nn.Module):
    """(convolution 5 x 5, ReLU, max-pooling) three times, flatten, two linear layers, log-softmax.

    Layers are named ``conv1``, ``conv2``, ``conv3``, ``fc4``, ``fc5``. The convolutions keep the size (padding 2) and
    each pooling halves it, so that of 28 x 28 pixels conv2 sees 14 x 14 and conv3 7 x 7. No nonlinearity stands
    between ``fc4`` and ``fc5``.

    Parameters
    ----------
    input_shape
        Channels, height and width; at least 8 x 8 pixels.
    classes
        How many.
    channels
        Output channels of the three convolutions.
    hidden
        Units of ``fc4``.
    """

    def __init__(
        self,
        input_shape: tuple[int, int, int] = (1, 28, 28),
        classes: int = 10,
        channels: tuple[int, int, int] = (32, 64, 64),
        hidden: int = 128,
    ) -> None:
        super().__init__()
        inputs, height, width = input_shape
        if min(height, width) < 8:
            raise InputError(f"SimpleConvNet pools three times and needs 8 x 8 pixels, got {height} x {width}.")
        first, second, third = channels
        self.conv1 = nn.Conv2d(inputs, first, 5, padding=2)
        self.conv2 = nn.Conv2d(first, second, 5, padding=2)
        self.conv3 = nn.Conv2d(second, third, 5, padding=2)
        self.fc4 = nn.Linear(third * (height // 8) * (width // 8), hidden)
        self.fc5 = nn.Linear(hidden, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Log-probabilities (N, classes) of images (N, C, H, W)."""
        x = functional.max_pool2d(functional.relu(self.conv1(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv2(x)), 2)
        x = functional.max_pool2d(functional.relu(self.conv3(x)), 2)
        x = self.fc4(torch.flatten(x, 1))
        return functional.log_softmax(self.fc5(x), dim=1)


def simple_conv_net(
    input_shape: tuple[int, int, int] = (1, 28, 28), classes: int = 10, *, seed: int = 0
) -> SimpleConvNet:
    """SimpleConvNet with its usual widths and first weights drawn from ``seed``.

    Examples
    --------
    >>> net = simple_conv_net()
    >>> net.conv1.weight.shape, net.conv2.weight.shape
    (torch.Size([32, 1, 5, 5]), torch.Size([64, 32, 5, 5]))
    """
    with seeded(seed):
        return SimpleConvNet(input_shape, classes)
