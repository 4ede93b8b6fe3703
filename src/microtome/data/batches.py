"""Batches of float images with their indices and labels, from any data set."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from microtome.data.adapters.adapter import Dataset, Input, adapt
from microtome.data.folder import Folder
from microtome.errors import InputError
from microtome.progress import reported

__all__ = ["batches", "fetch", "labels"]

Fetched = tuple[Tensor, Tensor | None]


def batches(
    dataset: Dataset,
    batch: int = 256,
    *,
    net: Input | None = None,
    labelled: bool = False,
    within: tuple[int, int] | None = None,
) -> Iterator[tuple[Tensor, Tensor, Tensor | None]]:
    """Go once through a data set, or a part of it, in its own order.

    Picture files are decoded one batch ahead, in a separate thread.

    Parameters
    ----------
    dataset
        :class:`~microtome.data.Images`, :class:`~microtome.data.Folder`, or any map-style data set whose items are an
        image, a pair (image, label), or a dict, named tuple or dataclass with an ``image`` (or ``img``,
        ``pixel_values``) and a ``label`` (or ``labels``, ``target``). An image is a float tensor in [0, 1] or bytes,
        (C, H, W) or (H, W); a NumPy array, (H, W) or (H, W, C) as pictures are stored; or a Pillow image. A label is
        whatever :func:`~microtome.data.adapters.class_labels.class_index` takes.
    batch
        Images at a time; the last batch may be smaller.
    net
        The network that the images are for: its range of pixels and its class names hold, and Pillow images are
        scaled and cut to its input.
    labelled
        Whether labels are needed: then a label that is no class index is an error, and no batch has None.
    within
        Index of the first image and one past the last; by default all. Indices count from the start of the data set.

    Yields
    ------
    indices : Tensor, int64, (n,)
    images : Tensor, float32, (n, C, H, W)
    labels : Tensor, int64, (n,), -1 where an item has none, or None if the data set has none

    Raises
    ------
    InputError
        The data set is not map-style, its images differ in shape, or a value is outside the range of pixels.

    Examples
    --------
    >>> import torch
    >>> pairs = [(torch.zeros(1, 2, 2), 7), (torch.ones(1, 2, 2), 3), (torch.ones(1, 2, 2), 5)]
    >>> for indices, images, labels in batches(pairs, 2):
    ...     print(indices.tolist(), tuple(images.shape), labels.tolist())
    [0, 1] (2, 1, 2, 2) [7, 3]
    [2] (1, 1, 2, 2) [5]
    """
    if batch < 1:
        raise InputError(f"a batch must hold at least one image, got batch={batch}.")
    adapted = adapt(dataset, net)
    first, end = (0, len(adapted)) if within is None else within
    parts = (torch.arange(at, min(at + batch, end), device="cpu") for at in range(first, end, batch))
    fetched = functools.partial(adapted.fetch, labelled=labelled)
    # Other data sets are read in the thread of their owner: their files may not be shared between threads.
    read = _ahead(fetched, parts) if isinstance(adapted.dataset, Folder) else ((part, fetched(part)) for part in parts)
    for indices, (images, found) in reported(read, "images", -(-(end - first) // batch)):
        yield indices, images, found


def _ahead(fetched: Callable[[Tensor], Fetched], parts: Iterable[Tensor]) -> Iterator[tuple[Tensor, Fetched]]:
    """Each part with its fetched data, while the next part is being fetched."""
    with ThreadPoolExecutor(1, "decode") as thread:
        waiting: tuple[Tensor, Future[Fetched]] | None = None
        for part in parts:
            coming = part, thread.submit(fetched, part)
            if waiting is not None:
                yield waiting[0], waiting[1].result()
            waiting = coming
        if waiting is not None:
            yield waiting[0], waiting[1].result()


def fetch(
    dataset: Dataset, indices: Tensor, *, net: Input | None = None, labelled: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Some images of any data set, and their labels; see :func:`batches`."""
    return adapt(dataset, net).fetch(indices, labelled=labelled)


def labels(dataset: Any, *, net: Input | None = None) -> Tensor | None:
    """All labels of a data set; images are not decoded where the data set keeps its labels apart."""
    return adapt(dataset, net).labels
