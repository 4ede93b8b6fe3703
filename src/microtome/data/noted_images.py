"""The images that a run has seen, noted by checksums, so that a resumed run notices others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from microtome.data.adapters.adapter import Dataset
from microtome.data.adapters.image_values import checksum
from microtome.data.batches import batches, fetch

__all__ = ["NotedImages"]

_PREFIX = "images."
_READ_AGAIN, _TIMES = 8, 4  # differing images that are read again, and how often


class NotedImages:
    """Checksum and label of each image of a data set.

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

    def differences(self, dataset: Dataset, batch: int) -> str:
        """How the images and labels of a data set, which is read once, differ from these; empty if they do not.

        Images that differ at each read, as under random augmentation, are compared by their labels alone.
        """
        with torch.random.fork_rng(devices=[]):  # augmentation may draw from it
            now = NotedImages.read(dataset, batch)
            other = (now.checksums != self.checksums).nonzero()[:, 0]
            pictures = 0 if _vary(dataset, other[:_READ_AGAIN], now.checksums) else len(other)
        if pictures:
            return f"{pictures:,} of {len(self.checksums):,} differ"
        labels = int((now.labels != self.labels).sum())
        return f"{labels:,} of {len(self.labels):,} have another label" if labels else ""


def _vary(dataset: Dataset, places: Tensor, known: Tensor) -> bool:
    """Whether one of some images differs when it is read again."""
    return any(
        bool((_checksums(fetch(dataset, places)[0]) != known[places]).any())
        for _ in range(_TIMES if len(places) else 0)
    )


def _checksums(images: Tensor) -> Tensor:
    return torch.tensor([checksum(image) for image in images.cpu()], dtype=torch.int64, device="cpu")
