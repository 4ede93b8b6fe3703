"""What is one piece of a run's work? A job with its parameters, named by the hash of all that determines its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from microtome.atlas.store import digest

__all__ = ["FORMAT", "Task", "task"]

# Raised when a job's meaning or a method's numbers change, so that old results are not taken for new ones.
FORMAT = 2


@dataclass(frozen=True)
class Task:
    """A job, what it is given, and the tasks whose results it reads.

    Attributes
    ----------
    job : str
        Which function of ``microtome.atlas.jobs`` does it.
    parameters : mapping
        Its options, as JSON can hold them.
    needs : tuple of str
        Keys of the tasks that must be done before.
    cost : float
        Expected seconds on one core, for the remaining time; no part of the name.
    key : str
        Name of the result.
    """

    job: str
    parameters: Mapping[str, Any]
    needs: tuple[str, ...]
    cost: float
    key: str


def task(
    job: str, fingerprint: str, data: str, *, needs: tuple[str, ...] = (), cost: float = 1.0, **parameters: Any
) -> Task:
    """Name a piece of work.

    Parameters
    ----------
    job : str
        The job.
    fingerprint, data : str
        Of the network and of the images; ``data`` is empty for what does not look at images.
    needs : tuple of str
        Keys of tasks that come before.
    cost : float
        Expected seconds.
    **parameters
        The job's options.

    Examples
    --------
    >>> one = task("tuning", "a1", "", layer="conv1")
    >>> one.key == task("tuning", "a1", "", layer="conv1", cost=9.0).key
    True
    >>> one.key == task("tuning", "a2", "", layer="conv1").key
    False
    """
    from microtome import __version__

    determined = [FORMAT, __version__, job, parameters, fingerprint, data, list(needs)]
    return Task(job, parameters, needs, cost, digest(determined))
