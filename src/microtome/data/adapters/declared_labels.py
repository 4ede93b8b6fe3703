"""Labels that a data set stores separately, so that no image is decoded for its label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor
from torch.utils.data import ConcatDataset, Subset, TensorDataset

__all__ = ["declared"]

_ATTRIBUTES = ("targets", "labels", "_labels")  # torchvision's data sets


def declared(dataset: Any) -> Sequence[Any] | None:
    """One raw label for each item, or None if the data set does not store them separately.

    Looks through ``Subset`` and ``ConcatDataset``, and into the label column of a Hugging Face table.

    Examples
    --------
    >>> import torch
    >>> pairs = TensorDataset(torch.zeros(3, 1), torch.tensor([5, 6, 7]))
    >>> [int(label) for label in declared(Subset(pairs, [2, 0]))]
    [7, 5]
    """
    if isinstance(dataset, Subset):
        inner = declared(dataset.dataset)
        return None if inner is None else [inner[index] for index in dataset.indices]
    if isinstance(dataset, ConcatDataset):
        parts = [declared(part) for part in dataset.datasets]
        return None if any(part is None for part in parts) else [label for part in parts if part for label in part]
    if isinstance(dataset, TensorDataset):
        return list(dataset.tensors[1]) if len(dataset.tensors) > 1 else None
    found = next((value for name in _ATTRIBUTES if (value := getattr(dataset, name, None)) is not None), None)
    if found is None or not hasattr(found, "__len__") or len(found) != len(dataset) or isinstance(found, str):
        return None
    return found.tolist() if isinstance(found, Tensor) and found.ndim == 1 else list(found)
