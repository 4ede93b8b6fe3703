"""Allocation: how many channels each layer keeps within a budget of multiply-adds, at the smallest cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from microtome.errors import InputError
from microtome.surgery.channels.channel_families import Channels, Family

_CHUNKS = (1, 2, 4, 8)  # number of steps that are evaluated ahead in a family


class Work:
    """Multiply-adds of a network as a function of the number of channels that each family keeps."""

    def __init__(self, channels: Channels, families: Sequence[Family]) -> None:
        operations = list(channels.operations.values())
        index = {channel: number for number, family in enumerate(families) for channel in family.channels}
        self._made = np.zeros((len(operations), len(families)))
        self._read = np.zeros((len(operations), len(families)))
        self._fixed = np.zeros((len(operations), 2))
        self._scale = np.array([float(o.positions * o.area) / o.groups for o in operations])
        for row, operation in enumerate(operations):
            depthwise = operation.groups == len(operation.read) > 1
            for side, (table, entries) in enumerate(((self._made, operation.made), (self._read, operation.read))):
                if side and depthwise:
                    self._fixed[row, 1] = operation.groups
                    continue
                for channel in entries.tolist():
                    if channel in index:
                        table[row, index[channel]] += 1 / len(families[index[channel]].channels)
                    else:
                        self._fixed[row, side] += 1
        self.sizes = np.array([len(family.channels) for family in families])

    def of(self, kept: NDArray[np.int64]) -> float:
        """Multiply-adds when each family keeps this number of channels."""
        made = self._made @ kept + self._fixed[:, 0]
        read = self._read @ kept + self._fixed[:, 1]
        return float((self._scale * made * read).sum())


def allocate(
    work: Work,
    costs: Sequence[Sequence[float]],
    budget: float,
    *,
    floor: int = 1,
    fixed: Mapping[int, int] | None = None,
) -> list[int]:
    """Number of channels to remove from each family: greedily the smallest cost per saved multiply-add.

    A step takes several channels at once and may save more than is needed. At the end no family can have another
    channel back within the budget.

    Parameters
    ----------
    work : Work
    costs : sequence of sequence of float
        For each family the cost of removing 1, 2, ... channels.
    budget : float
        Largest number of multiply-adds.
    floor : int
        Smallest number of channels in each family.

    Raises
    ------
    InputError
        When the budget cannot be met without emptying a layer.
    """
    gone = np.zeros(len(costs), dtype=np.int64)
    steps = [max(1, len(cost) // 32) for cost in costs]
    now = work.of(work.sizes - gone)
    whole = now
    while now > budget:
        best: tuple[float, int, int] | None = None
        for family, cost in enumerate(costs):
            if fixed is not None and family in fixed:
                continue
            paid = cost[gone[family] - 1] if gone[family] else 0.0
            room = min(len(cost), int(work.sizes[family]) - floor) - int(gone[family])
            for many in dict.fromkeys(min(chunk * steps[family], room) for chunk in _CHUNKS):
                if many < 1:
                    continue
                after = gone.copy()
                after[family] += many
                saved = min(now - work.of(work.sizes - after), now - budget)  # what goes beyond the budget is no gain
                ratio = (cost[gone[family] + many - 1] - paid) / max(saved, 1e-9)
                if best is None or ratio < best[0]:
                    best = ratio, family, many
        if best is None:
            least = now / whole
            raise InputError(
                f"{100 * budget / whole:.1f} % of the multiply-adds cannot be reached without emptying a layer; "
                f"the minimum is {100 * least:.1f} %."
            )
        gone[best[1]] += best[2]
        now = work.of(work.sizes - gone)
    _give_back(work, costs, budget, gone)
    return [int(count) for count in gone]


def _give_back(work: Work, costs: Sequence[Sequence[float]], budget: float, gone: NDArray[np.int64]) -> None:
    """Keep channels that need not go, one at a time: first the one with the largest cost per multiply-add."""
    while True:
        now = work.of(work.sizes - gone)
        best: tuple[float, int] | None = None
        for family in gone.nonzero()[0].tolist():
            count = int(gone[family])
            gone[family] -= 1
            then = work.of(work.sizes - gone)
            gone[family] += 1
            if then > budget:
                continue
            cost = costs[family][count - 1] - (costs[family][count - 2] if count > 1 else 0.0)
            ratio = cost / max(then - now, 1e-9)
            if best is None or ratio > best[0]:
                best = ratio, family
        if best is None:
            return
        gone[best[1]] -= 1
