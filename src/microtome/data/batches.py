"""How does a method read any data set? In batches of float images in [0, 1], with their indices and labels."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from torch import Tensor

from microtome.errors import InputError, MicrotomeError

__all__ = ["Dataset", "Fetching", "batches", "labels"]


class Dataset(Protocol):
    """Any map-style data set: a length, and items that are an image or a pair of image and label."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int, /) -> Any: ...


@runtime_checkable
class Fetching(Protocol):
    """A data set that hands out many images at once."""

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Images (n, C, H, W) in [0, 1] and labels (n,) of these indices."""


def batches(dataset: Dataset, batch_size: int = 256) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Go once through a data set in its own order.

    Parameters
    ----------
    dataset
        :class:`~microtome.data.Images`, :class:`~microtome.data.Folder`, or any map-style data set whose items are an
        image or a pair (image, label). An image is a float tensor in [0, 1] or bytes, (C, H, W) or (H, W); a NumPy
        array, (H, W) or (H, W, C) as pictures are stored; or a Pillow image.
    batch_size
        Images at a time; the last batch may be smaller.

    Yields
    ------
    indices : Tensor, int64, (n,)
    images : Tensor, float32, (n, C, H, W)
    labels : Tensor, int64, (n,), or None where the data set has none

    Raises
    ------
    InputError
        The data set has no length, its images differ in shape, or a value is outside [0, 1].

    Examples
    --------
    >>> import torch
    >>> pairs = [(torch.zeros(1, 2, 2), 7), (torch.ones(1, 2, 2), 3), (torch.ones(1, 2, 2), 5)]
    >>> for indices, images, labels in batches(pairs, 2):
    ...     print(indices.tolist(), tuple(images.shape), labels.tolist())
    [0, 1] (2, 1, 2, 2) [7, 3]
    [2] (1, 1, 2, 2) [5]
    """
    if batch_size < 1:
        raise InputError(f"a batch holds at least one image, got batch_size={batch_size}.")
    if not hasattr(dataset, "__len__") or not hasattr(dataset, "__getitem__"):
        raise InputError(
            f"a map-style data set with a length is expected, got {type(dataset).__name__}. "
            "Collect a stream into a list first."
        )
    for start in range(0, len(dataset), batch_size):
        indices = torch.arange(start, min(start + batch_size, len(dataset)))
        images, found = fetch(dataset, indices)
        yield indices, images, found


def fetch(dataset: Dataset, indices: Tensor) -> tuple[Tensor, Tensor | None]:
    """Some images of any data set, and their labels."""
    if isinstance(dataset, Fetching):
        return dataset.fetch(indices)
    pairs = [_item(dataset, index) for index in indices.tolist()]
    images = [image for image, _ in pairs]
    shapes = {tuple(image.shape) for image in images}
    if len(shapes) > 1:
        raise InputError(
            f"the data set's images differ in shape: {', '.join(map(str, sorted(shapes)))}. "
            "Resize them in the data set; a folder given by its path is resized by microtome.data.folder."
        )
    if any(label is None for _, label in pairs):
        return torch.stack(images), None
    return torch.stack(images), torch.tensor([label for _, label in pairs], dtype=torch.int64)


def labels(dataset: Dataset) -> Tensor | None:
    """All labels of a data set; images are not decoded where the data set keeps its labels apart."""
    known = getattr(dataset, "labels", None)
    if isinstance(dataset, Fetching):
        return known if isinstance(known, Tensor) else None
    found = [_item(dataset, index)[1] for index in range(len(dataset))]
    return None if not found or any(label is None for label in found) else torch.tensor(found, dtype=torch.int64)


def _item(dataset: Dataset, index: int) -> tuple[Tensor, int | None]:
    try:
        item = dataset[index]
    except MicrotomeError:
        raise
    except Exception as error:  # a stranger's code: say which item it was
        raise InputError(f"item {index} of the data set cannot be read: {type(error).__name__}: {error}") from error
    image, label = (item[0], item[1]) if isinstance(item, tuple | list) and len(item) > 1 else (item, None)
    if isinstance(image, tuple | list):
        image = image[0]
    return as_image(image, f"item {index} of the data set"), None if label is None else _label(label, index)


def _label(label: Any, index: int) -> int:
    values = np.asarray(label)
    if values.size != 1:
        raise InputError(f"item {index} of the data set has a label of shape {values.shape}; one index is expected.")
    try:
        return int(values.reshape(()))
    except (TypeError, ValueError):
        raise InputError(f"item {index} of the data set has label {label!r}; a class index is expected.") from None


def as_image(image: Any, what: str = "the image") -> Tensor:
    """One image of any common kind as float32 (C, H, W) in [0, 1]."""
    if isinstance(image, Tensor):
        tensor = image if image.ndim == 3 else image[None]
    elif hasattr(image, "convert") and hasattr(image, "getbands"):  # a Pillow image, without importing Pillow
        from microtome.data import picture

        channels = 1 if image.mode in picture.GRAY else 3
        tensor = torch.from_numpy(picture.to_bytes(image, channels, what)).permute(2, 0, 1)
    else:
        array = np.asarray(image)
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        tensor = tensor.permute(2, 0, 1) if tensor.ndim == 3 else tensor[None]
    if tensor.ndim != 3:
        raise InputError(f"{what} has shape {tuple(tensor.shape)}; (C, H, W) is expected.")
    return _scaled(tensor, what)


def _scaled(tensor: Tensor, what: str) -> Tensor:
    if tensor.dtype == torch.uint8:
        return tensor.to(torch.float32) / 255
    if tensor.dtype == torch.bool:
        return tensor.to(torch.float32)
    if not tensor.is_floating_point():
        raise InputError(f"{what} holds {tensor.dtype}; bytes or floats in [0, 1] are expected.")
    low, high = (float(value) for value in torch.aminmax(tensor)) if tensor.numel() else (0.0, 0.0)
    if not (low >= 0 and high <= 1):
        raise InputError(
            f"{what} has values from {low:.3g} to {high:.3g}; [0, 1] is expected. "
            "Take normalisation out of the data set and give mean and std to Network."
        )
    return tensor.to(torch.float32)
