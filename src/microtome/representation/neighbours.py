"""Nearest neighbours of every point, exactly, in blocks: the same for any number of threads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Points: TypeAlias = NDArray[np.float64]
Indices: TypeAlias = NDArray[np.int64]

_BLOCK = 2**23  # distances held at a time, 64 MiB
_AXES, _MANY = 3, 1000  # a tree is faster up to 3 axes and from 1,000 points on


def one_thread() -> Any:
    """A context in which linear algebra runs on one thread, so that sums have one order everywhere."""
    from threadpoolctl import threadpool_limits

    return threadpool_limits(limits=1)


def nearest(points: Points, k: int, queries: Points | None = None) -> tuple[Indices, Points]:
    """Indices (n, k) and Euclidean distances (n, k) of the nearest points, nearest first.

    A point is not its own neighbour unless ``queries`` are given. Equal distances are ordered by index.
    """
    others = points if queries is None else queries
    indices = np.empty((len(others), k), dtype=np.int64)
    distances = np.empty((len(others), k))
    on_map = points.shape[1] <= _AXES and len(points) >= _MANY
    for rows, found in _by_tree(points, k, queries) if on_map else _by_distances(points, k, queries):
        found.sort(axis=1)
        exact = distances_to(points, others[rows], found)
        order = np.argsort(exact, axis=1, kind="stable")
        indices[rows] = np.take_along_axis(found, order, 1)
        distances[rows] = np.take_along_axis(exact, order, 1)
    return indices, distances


def _by_distances(points: Points, k: int, queries: Points | None) -> Iterator[tuple[slice, Indices]]:
    """The nearest points of some rows, unordered, from all distances."""
    for rows, squared in blocks(points, queries):
        yield rows, np.argpartition(squared, k - 1, axis=1)[:, :k]


def _by_tree(points: Points, k: int, queries: Points | None) -> Iterator[tuple[slice, Indices]]:
    """The nearest points by a tree, for few axes."""
    from scipy.spatial import cKDTree

    others = points if queries is None else queries
    found = cKDTree(points).query(others, k + (queries is None), workers=1)[1].reshape(len(others), -1)
    if queries is None:  # without the point itself, or the last one if equal points replace it
        own = found == np.arange(len(found))[:, None]
        own[~own.any(1), -1] = True
        found = found[~own].reshape(len(found), k)
    yield slice(0, len(found)), found.astype(np.int64)


def blocks(points: Points, queries: Points | None = None) -> Iterator[tuple[slice, Points]]:
    """Squared distances of some rows to all points, block by block; infinite from a point to itself."""
    middle = points.mean(0)
    centred = points - middle  # large common parts would cancel
    others = centred if queries is None else queries - middle
    lengths = np.einsum("nf,nf->n", centred, centred)
    step = max(1, _BLOCK // max(len(points), 1))
    for start in range(0, len(others), step):
        rows = slice(start, min(start + step, len(others)))
        squared = others[rows] @ centred.T
        squared *= -2
        squared += lengths
        squared += np.einsum("nf,nf->n", others[rows], others[rows])[:, None]
        if queries is None:
            squared[np.arange(rows.stop - rows.start), np.arange(rows.start, rows.stop)] = np.inf
        yield rows, squared


def distances_to(points: Points, queries: Points, found: Indices) -> Points:
    """Distances (n, k) of queries (n, F) to the found points (n, k): by differences, which do not cancel."""
    result = np.empty(found.shape)
    step = max(1, _BLOCK // max(found.shape[1] * points.shape[1], 1))
    for start in range(0, len(queries), step):
        rows = slice(start, start + step)
        away = points[found[rows]] - queries[rows, None]
        result[rows] = np.sqrt(np.einsum("nkf,nkf->nk", away, away))
    return result
