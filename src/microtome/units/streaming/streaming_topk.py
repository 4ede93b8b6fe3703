"""Streaming top-k: tables of the k highest or lowest values per unit, updated batch by batch."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Array = NDArray[Any]

_PENDING = 48  # number of candidates per unit that triggers a merge


class TopK:
    """The k highest (or lowest) values of every unit so far, with image and position.

    Equal values stay in order of arrival, so that the result does not depend on the batch size.

    Parameters
    ----------
    units, k : int
        Number of units, number of values per unit.
    lowest : bool
        Collect the lowest values.

    Examples
    --------
    >>> table = TopK(units=1, k=2)
    >>> table.add(torch.tensor([[1.0, 5.0, 3.0]]), torch.tensor([0, 1, 2]), torch.zeros(1, 3, dtype=torch.long))
    >>> table.add(torch.tensor([[4.0]]), torch.tensor([3]), torch.zeros(1, 1, dtype=torch.long))
    >>> table.value.tolist(), table.image.tolist()
    ([[5.0, 4.0]], [[1, 3]])
    """

    def __init__(self, units: int, k: int, *, lowest: bool = False, dtype: torch.dtype = torch.float32) -> None:
        self._sign = 1.0 if lowest else -1.0
        self._key = np.full((units, k), np.inf, dtype=np.float64 if dtype == torch.float64 else np.float32)
        self._image = np.full((units, k), -1, dtype=np.int64)
        self._at = np.zeros((units, k), dtype=np.int64)
        self._pending: list[tuple[Array, Array, Array]] = []

    def add(self, value: Tensor, image: Tensor, at: Tensor) -> None:
        """Add candidates.

        Parameters
        ----------
        value : Tensor
            (units, m) activations.
        image : Tensor
            (m,) index of the image of each column.
        at : Tensor
            (units, m) position of each activation.
        """
        wide = value.double() if self._key.dtype == np.float64 else value.float()  # NumPy has no bfloat16
        key = wide.cpu().numpy() * self._sign
        self._pending.append((key, np.broadcast_to(image.cpu().numpy(), key.shape), at.cpu().numpy()))
        if sum(part[0].shape[1] for part in self._pending) >= _PENDING:
            self._merge()

    def _merge(self) -> None:
        """Merge pending candidates of many batches at once, only for units whose table changes."""
        if not self._pending:
            return
        key, image, at = (np.concatenate(parts, axis=1) for parts in zip(*self._pending, strict=True))
        self._pending.clear()
        rows = np.flatnonzero(key.min(axis=1) < self._key[:, -1])
        keys = np.concatenate([self._key[rows], key[rows]], axis=1)
        order = np.argsort(keys, axis=1, kind="stable")[:, : self._key.shape[1]]
        pick = (np.arange(len(rows))[:, None], order)
        self._key[rows] = keys[pick]
        self._image[rows] = np.concatenate([self._image[rows], image[rows]], axis=1)[pick]
        self._at[rows] = np.concatenate([self._at[rows], at[rows]], axis=1)[pick]

    def entries(self) -> tuple[Tensor, Tensor, Tensor]:
        """The stored table, for merging: (units, k) keys, lowest first, with images and positions."""
        self._merge()
        return torch.from_numpy(self._key.copy()), self.image, self.at

    def absorb(self, key: Tensor, image: Tensor, at: Tensor) -> None:
        """Merge the ``entries`` of a table over other images.

        Equal values are ordered by image, then by position, so that tables may be merged in any order.
        """
        self._merge()
        parts = ((self._key, key), (self._image, image), (self._at, at))
        keys, images, places = (np.concatenate([mine, other.numpy()], axis=1) for mine, other in parts)
        order = np.lexsort((places, images, keys), axis=1)[:, : self._key.shape[1]]
        self._key, self._image, self._at = (np.take_along_axis(one, order, 1) for one in (keys, images, places))

    @property
    def value(self) -> Tensor:
        """(units, k), best first; NaN if there are fewer than k values."""
        self._merge()
        return torch.from_numpy(np.where(self._image < 0, np.nan, self._key * self._sign).astype(self._key.dtype))

    @property
    def image(self) -> Tensor:
        """(units, k) indices into the data set; -1 if there are fewer than k values."""
        self._merge()
        return torch.from_numpy(self._image.copy())

    @property
    def at(self) -> Tensor:
        """(units, k) positions as indices into rows times columns."""
        self._merge()
        return torch.from_numpy(self._at.copy())
