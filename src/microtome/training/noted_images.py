"""The images that a training run has seen, noted by checksums, so that a resumed run notices others."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from microtome.data import Dataset, batches, fetch
from microtome.data.adapters.image_values import checksum
from microtome.errors import StoreError

__all__ = ["NotedImages"]

_PREFIX = "images."
_READ_AGAIN, _TIMES = 8, 4  # differing images that are read again, and how often


class NotedImages:
    """Checksum and label of each training image.

    Parameters
    ----------
    count
        Number of images.
    """

    def __init__(self, count: int) -> None:
        self.checksums = torch.zeros(count, dtype=torch.int64, device="cpu")
        self.labels = torch.full((count,), -1, dtype=torch.int64, device="cpu")

    def note(self, indices: Tensor, images: Tensor, labels: Tensor | None) -> None:
        """Note some images (n, C, H, W) with their labels (n,)."""
        self.checksums[indices] = _checksums(images)
        if labels is not None:
            self.labels[indices] = labels.cpu()

    @property
    def tensors(self) -> dict[str, Tensor]:
        """What a checkpoint keeps."""
        return {f"{_PREFIX}checksums": self.checksums, f"{_PREFIX}labels": self.labels}

    @classmethod
    def of(cls, tensors: Mapping[str, Tensor]) -> NotedImages | None:
        """From a checkpoint; None if an earlier version wrote it."""
        if f"{_PREFIX}checksums" not in tensors:
            return None
        found = cls(0)
        found.checksums, found.labels = tensors[f"{_PREFIX}checksums"], tensors[f"{_PREFIX}labels"]
        return found

    @classmethod
    def read(cls, dataset: Dataset, batch: int = 256) -> NotedImages:
        """Those of a data set, which is read once."""
        found = cls(len(dataset))
        for indices, images, labels in batches(dataset, batch):
            found.note(indices, images, labels)
        return found

    def check(self, dataset: Dataset, batch: int, folder: Path) -> None:
        """Raise if a data set has other images or labels; it is read once.

        Images that differ at each read, as under random augmentation, are compared by their labels alone.

        Raises
        ------
        StoreError
            An image or a label differs.
        """
        with torch.random.fork_rng(devices=[]):  # augmentation may draw from it
            now = NotedImages.read(dataset, batch)
            other = (now.checksums != self.checksums).nonzero()[:, 0]
            pictures = 0 if _vary(dataset, other[:_READ_AGAIN], now.checksums) else len(other)
        labels_differ = int((now.labels != self.labels).sum())
        if pictures or labels_differ:
            what = f"{pictures:,} of them differ" if pictures else f"{labels_differ:,} of them have another label"
            raise StoreError(
                f"the run in {folder} was made with other training images: {what} ({len(self.checksums):,} in all). "
                "Give the same ones in the same order, delete the folder or choose another."
            )


def _vary(dataset: Dataset, places: Tensor, known: Tensor) -> bool:
    """Whether one of some images differs when it is read again."""
    return any(
        bool((_checksums(fetch(dataset, places)[0]) != known[places]).any())
        for _ in range(_TIMES if len(places) else 0)
    )


def _checksums(images: Tensor) -> Tensor:
    return torch.tensor([checksum(image) for image in images.cpu()], dtype=torch.int64, device="cpu")
