"""Merges sums of shards along a fixed binary tree, so that the order of arrival does not change a bit."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

T = TypeVar("T")
Node = tuple[int, int]  # level, place: the shards from place * 2**level to (place + 1) * 2**level


class MergeTree(Generic[T]):
    """Sums over shards 0, 1, 2, ..., in any order of arrival.

    Sums of floating-point numbers depend on their order. Here two sums are added only if they are neighbours
    in a binary tree over the numbers of the shards, the lower one first. Of n shards in order at most log2(n) + 1
    sums are stored.

    Parameters
    ----------
    combine : function
        Adds the sums over two neighbouring runs of shards, the lower one first.

    Examples
    --------
    >>> one, other = MergeTree(float.__add__), MergeTree(float.__add__)
    >>> for number in (0, 1, 2):
    ...     one.add((0, number), 0.1)
    >>> for number in (2, 0, 1):
    ...     other.add((0, number), 0.1)
    >>> one.total() == other.total(), one.nodes()
    (True, {(0, 2): 0.1, (1, 0): 0.2})
    """

    def __init__(self, combine: Callable[[T, T], T]) -> None:
        self._combine = combine
        self._nodes: dict[Node, T] = {}

    def add(self, node: Node, value: T) -> None:
        """Add the sum over one shard, ``(0, number)``, or over a node of another tree.

        Raises
        ------
        ValueError
            When some of its shards were added before.
        """
        if any(_overlap(node, other) for other in self._nodes):
            raise ValueError(f"shard {node[1] << node[0]} was added twice.")
        level, place = node
        while (beside := (level, place ^ 1)) in self._nodes:
            other = self._nodes.pop(beside)
            value = self._combine(other, value) if place % 2 else self._combine(value, other)
            level, place = level + 1, place // 2
        self._nodes[level, place] = value

    def nodes(self) -> dict[Node, T]:
        """The stored sums, by level and place."""
        return dict(sorted(self._nodes.items()))

    def total(self) -> T:
        """The sum over all shards that were added.

        Raises
        ------
        ValueError
            When there is none.
        """
        if not self._nodes:
            raise ValueError("no shard was added.")
        first, *rest = (value for _, value in sorted(self._nodes.items(), key=lambda item: item[0][1] << item[0][0]))
        for value in rest:
            first = self._combine(first, value)
        return first


def _overlap(one: Node, other: Node) -> bool:
    low, high = sorted((one, other))
    return high[1] == low[1] >> (high[0] - low[0])
