"""Class indices from labels of any type."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from microtome.data.adapters.naming import class_named
from microtome.errors import InputError

__all__ = ["UNLABELLED", "class_index", "fault", "resolved"]

UNLABELLED = -1


def class_index(label: Any, classes: Sequence[str] | None = None) -> int | str:
    """The class index of a label, or the reason why it has none.

    An integer, a bool, a whole number in any type and shape of one element, a class name, and a one-hot vector are
    class indices. None, NaN and negative numbers mean that the item has no label, -1. Everything else (a fraction, a
    vector for several classes, a mask, boxes) is not a class index, and a text gives the reason.

    Parameters
    ----------
    label
        A label of the data set.
    classes
        Names of the classes, for labels that are text.

    Examples
    --------
    >>> class_index(3), class_index(torch.tensor([3.0])), class_index([0, 1, 0]), class_index("dog", ["cat", "dog"])
    (3, 3, 1, 1)
    >>> class_index(None), class_index(0.7), class_index([0, 1, 1])
    (-1, 'label 0.7', 'a label of shape (3,)')
    """
    if label is None:
        return UNLABELLED
    if isinstance(label, bytes):  # text of an HDF5 file
        label = label.decode("utf-8", "replace")
    if isinstance(label, str):
        return _named(label, classes)
    if isinstance(label, Mapping):
        return f"a label of type {type(label).__name__} with {', '.join(map(repr, list(label)[:3]))}"
    try:
        values = np.asarray(label.detach().cpu() if isinstance(label, Tensor) else label)
    except (TypeError, ValueError, RuntimeError):
        return f"a label of type {type(label).__name__}"
    if values.size == 1 and values.dtype.kind == "U":
        return _named(str(values.reshape(())), classes)
    if values.dtype.kind not in "biuf":
        return f"a label of type {type(label).__name__}"
    return _number(values) if values.size == 1 else _one_hot(values)


def resolved(found: Iterable[int | str]) -> Tensor | None:
    """Labels (n,) from the values of :func:`class_index`, -1 for none.

    None if no item has a label, or if one of them is not a class index: then the others are not either, because
    integers among regression values are not classes.

    Examples
    --------
    >>> resolved([2, -1]), resolved([-1, -1]), resolved([1, "label 0.7"])
    (tensor([ 2, -1]), None, None)
    """
    values = list(found)
    if any(isinstance(value, str) for value in values) or all(value == UNLABELLED for value in values):
        return None
    return torch.tensor(values, dtype=torch.int64, device="cpu")


def fault(found: Iterable[tuple[int, int | str]]) -> InputError | None:
    """The error for the first item whose label is not a class index, for methods that need labels."""
    for index, value in found:
        if isinstance(value, str):
            return InputError(
                f"item {index} of the data set has {value}; a class index is expected, from 0. "
                "Give class indices, or None where an item has no class."
            )
    return None


def _named(label: str, classes: Sequence[str] | None) -> int | str:
    if classes is not None and (found := class_named(label, classes)) is not None:
        return found
    if label.strip().isdecimal():
        return int(label)
    return f"label {label!r}" + (", which is none of the class names" if classes is not None else "")


def _number(values: np.ndarray[Any, Any]) -> int | str:
    value = values.reshape(()).item()
    if isinstance(value, float) and value != value:
        return UNLABELLED
    if isinstance(value, float) and not value.is_integer():
        return f"label {value:.6g}"
    return max(int(value), UNLABELLED)


def _one_hot(values: np.ndarray[Any, Any]) -> int | str:
    vector = values.reshape(-1)
    flat = values.ndim <= 2 and values.shape[-1:] == vector.shape  # (K,) or (1, K)
    if flat and int((vector == 1).sum()) == 1 and int((vector == 0).sum()) == len(vector) - 1:
        return int(vector.argmax())
    return f"a label of shape {values.shape}"
