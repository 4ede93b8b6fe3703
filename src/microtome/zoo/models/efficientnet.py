"""EfficientNet-Lite0 through the package that defines it, and the weights that a second package brings."""

from __future__ import annotations

import importlib.metadata
from pathlib import Path

from torch import nn

from microtome.errors import ModelError
from microtome.zoo.models.initial_weights import seeded

__all__ = ["MEAN", "STD", "efficientnet_lite0"]

MEAN, STD = 127 / 255, 128 / 255  # 0.498 and 0.502


def efficientnet_lite0(
    input_shape: tuple[int, int, int] = (3, 224, 224), classes: int = 1000, *, seed: int = 0
) -> nn.Module:
    """EfficientNet-Lite0 [1]_: inverted residuals with ReLU6 and no squeeze-excite; "same" padding, fixed for the size.

    Raises
    ------
    ModelError
        The package ``efficientnet-lite-pytorch`` is not installed.

    References
    ----------
    .. [1] M. Tan, Q. V. Le. EfficientNet: rethinking model scaling for convolutional neural networks. ICML 2019.
    """
    try:
        from efficientnet_lite_pytorch import EfficientNet
    except ImportError as error:
        raise ModelError(
            "EfficientNet-Lite0 is defined in a package that is not installed: pip install 'microtome[pretrained]'."
        ) from error
    channels, height, width = input_shape
    size = height if height == width else (height, width)
    with seeded(seed):
        model: nn.Module = EfficientNet.from_name(
            "efficientnet-lite0", in_channels=channels, num_classes=classes, image_size=size
        )
    return model


def in_package(distribution: str, member: str) -> Path | None:
    """A file that an installed package brings, found without importing the package."""
    try:
        path = Path(str(importlib.metadata.distribution(distribution).locate_file(member)))
    except importlib.metadata.PackageNotFoundError:
        return None
    return path if path.is_file() else None
