"""Normalisation of images in training: one number for all channels, or one for each."""

from __future__ import annotations

import math
from collections.abc import Iterable

from torch import Tensor

from microtome.errors import InputError

__all__ = ["Numbers", "check_normalisation", "normalised"]

Numbers = float | tuple[float, ...]


def check_normalisation(mean: Numbers, std: Numbers) -> None:
    """Refuse a mean that is not finite, and a standard deviation that is not positive and finite.

    Raises
    ------
    InputError
        With both.
    """
    numbers = [[*value] if isinstance(value, Iterable) else [value] for value in (mean, std)]
    if not all(map(math.isfinite, numbers[0])) or not all(0 < value < math.inf for value in numbers[1]):
        raise InputError(f"a finite mean and a positive std are expected, got {mean} and {std}.")


def normalised(images: Tensor, mean: Numbers, std: Numbers) -> Tensor:
    """(images - mean) / std of images (N, C, H, W).

    Raises
    ------
    InputError
        There is not one number, or one for each channel.
    """
    shape = (1, -1, 1, 1)
    for value in (mean, std):
        if isinstance(value, Iterable) and len([*value]) not in (1, images.shape[1]):
            raise InputError(
                f"mean and std are one number or one for each of {images.shape[1]} channels, got {mean} and {std}."
            )
    return (images - images.new_tensor(mean).view(shape)) / images.new_tensor(std).view(shape)
