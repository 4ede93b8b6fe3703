"""Features of several layers, in memory if they are small and in files otherwise."""

from __future__ import annotations

import tempfile
from pathlib import Path
from types import TracebackType

import torch
from torch import Tensor

_MEMORY = 2**30  # memory limit in bytes for all layers of a table


class FeatureTable:
    """Rows of features by layer, filled batch by batch; a context that removes its files at the end.

    Parameters
    ----------
    count : int
        Number of images.
    memory : int
        Memory limit in bytes; beyond it, features are mapped from files.
    """

    def __init__(self, count: int, memory: int = _MEMORY) -> None:
        self._count, self._left = count, memory
        self._values: dict[str, Tensor] = {}
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def put(self, layer: str, start: int, rows: Tensor) -> None:
        """Add the rows (n, F) of the images from ``start`` on."""
        if layer not in self._values:
            self._values[layer] = self._room(rows.shape[1], rows.dtype)
        self._values[layer][start : start + len(rows)] = rows

    def __getitem__(self, layer: str) -> Tensor:
        """A layer's features (N, F)."""
        return self._values[layer]

    def _room(self, width: int, dtype: torch.dtype) -> Tensor:
        size = self._count * width * dtype.itemsize
        if size <= self._left:
            self._left -= size
            return torch.empty(self._count, width, dtype=dtype, device="cpu")
        if self._folder is None:
            self._folder = tempfile.TemporaryDirectory(prefix="microtome-", ignore_cleanup_errors=True)
        path = Path(self._folder.name) / f"{len(self._values)}.bin"
        flat = torch.from_file(str(path), shared=True, size=self._count * width, dtype=dtype)
        return flat.view(self._count, width)

    def __enter__(self) -> FeatureTable:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._values.clear()
        if self._folder is not None:
            self._folder.cleanup()
