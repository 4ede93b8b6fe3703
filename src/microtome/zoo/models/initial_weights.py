"""Initial weights that depend on the seed alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

__all__ = ["seeded"]


@contextmanager
def seeded(seed: int) -> Iterator[None]:
    """Inside the context, random numbers come from ``seed`` on the CPU; the outer random state does not change.

    Examples
    --------
    >>> import torch
    >>> before = torch.get_rng_state()
    >>> with seeded(1):
    ...     first = torch.nn.Linear(2, 2).weight
    >>> with seeded(1):
    ...     second = torch.nn.Linear(2, 2).weight
    >>> torch.equal(first, second), torch.equal(before, torch.get_rng_state())
    (True, True)
    """
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield
