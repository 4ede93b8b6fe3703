"""The network and the images that a run works on, opened."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from microtome import data as datasets
from microtome.errors import StoreError
from microtome.network import Network

__all__ = ["Subject"]


@dataclass(frozen=True, eq=False)
class Subject:
    """An opened recipe: the network and the images of a run.

    Attributes
    ----------
    net : Network
        What is looked into.
    images : Images, Folder or any map-style data set
        The pictures, fitted to the network.
    run : str or None
        The folder of the training that the network comes from, see :class:`microtome.training.Run`.
    """

    net: Network
    images: Any
    run: str | None = None

    @functools.cached_property
    def _read(self) -> datasets.Adapter:
        return datasets.adapt(self.images, self.net)

    @functools.cached_property
    def labels(self) -> Tensor | None:
        """Class index of each image, where they are known."""
        return self._read.labels

    @functools.cached_property
    def fingerprint(self) -> str:
        """A digest of the images' pixels, labels and names."""
        found = hashlib.sha256()
        if isinstance(self.images, datasets.Images):
            found.update(self.images.pixels.contiguous().numpy().tobytes())
        elif isinstance(self.images, datasets.Folder):
            for file in self.images.files:
                found.update(hashlib.sha256(Path(file).read_bytes()).digest())
        else:
            for _, images, _ in datasets.batches(self._read):
                found.update(images.contiguous().numpy().tobytes())
        labels = None if self.labels is None else self.labels.tolist()
        about = [len(self.images), labels, [self.name(i) for i in range(len(self.images))]]
        text = json.dumps(about, separators=(",", ":"))
        found.update(hashlib.sha256(text.encode()).hexdigest()[:24].encode())
        return found.hexdigest()[:16]

    @functools.cached_property
    def run_fingerprint(self) -> str:
        """A digest of the training's record and of its stored weights; empty without a training.

        Raises
        ------
        StoreError
            The folder holds no training.
        """
        if self.run is None:
            return ""
        folder = Path(self.run)
        log = folder / "log.safetensors"
        if not log.is_file():
            raise StoreError(f"the folder {folder} holds no training run (log.safetensors is missing).")
        found = hashlib.sha256(log.read_bytes())
        for file in sorted(folder.glob("epoch-*.safetensors")):
            found.update(f"{file.name} {file.stat().st_size}".encode())
        return found.hexdigest()[:16]

    def name(self, index: int) -> str:
        """An image's name."""
        return str(self.images.name(index)) if hasattr(self.images, "name") else f"{index:05d}"

    def pictures(self, indices: Sequence[int]) -> Tensor:
        """Some images (n, C, H, W) in the network's range of pixels."""
        return self._read.fetch(torch.as_tensor(list(indices), dtype=torch.int64, device="cpu"))[0]

    def commonest(self, count: int) -> Any:
        """The labelled images of the classes that have most of them, as a data set."""
        labels = torch.empty(0, dtype=torch.float32, device="cpu") if self.labels is None else self.labels
        known = labels[labels >= 0]
        often = (-torch.bincount(known)).argsort(stable=True)[:count] if len(known) else known
        return self.subset(torch.isin(labels, often).nonzero()[:, 0].tolist())

    def subset(self, indices: Sequence[int]) -> Any:
        """Some images as a data set."""
        if hasattr(self.images, "subset"):
            return self.images.subset(list(indices))
        return [self.images[index] for index in indices]
