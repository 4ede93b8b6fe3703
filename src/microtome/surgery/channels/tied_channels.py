"""Channels that are tied to each other, by union and find, and the reasons why some cannot be removed."""

from __future__ import annotations

import torch
from torch import Tensor


class TiedChannels:
    """Sets of channels that can only be removed together; each set has a root.

    Examples
    --------
    >>> tied = TiedChannels()
    >>> one, two = tied.new(2), tied.new(2, "the model returns them")
    >>> tied.tie(one, two)
    >>> tied.roots(two).tolist(), tied.pins
    ([0, 1], {0: 'the model returns them', 1: 'the model returns them'})
    """

    def __init__(self) -> None:
        self.pins: dict[int, str] = {}
        self._parent: list[int] = []

    def __len__(self) -> int:
        return len(self._parent)

    def root(self, channel: int) -> int:
        """The representative of all channels tied to this one."""
        parent = self._parent
        while parent[channel] != channel:
            parent[channel] = parent[parent[channel]]
            channel = parent[channel]
        return channel

    def roots(self, channels: Tensor) -> Tensor:
        """The root of each channel."""
        return torch.tensor([self.root(channel) for channel in channels.tolist()], dtype=torch.int64, device="cpu")

    def new(self, count: int, why: str = "") -> Tensor:
        """New channels, not tied; pinned if there is a reason."""
        first = len(self._parent)
        self._parent.extend(range(first, first + count))
        numbers = torch.arange(first, first + count, device="cpu")
        if why:
            self.pin(numbers, why)
        return numbers

    def tie(self, one: Tensor, two: Tensor) -> None:
        """Tie channels pairwise: they can only be removed together."""
        for a, b in zip(one.tolist(), two.tolist(), strict=True):
            low, high = sorted((self.root(a), self.root(b)))
            if low != high:
                self._parent[high] = low
                if high in self.pins:
                    self.pins.setdefault(low, self.pins.pop(high))

    def pin(self, channels: Tensor, why: str) -> None:
        """Note why channels cannot be removed; the first reason stays."""
        for channel in channels.tolist():
            self.pins.setdefault(self.root(channel), why)
