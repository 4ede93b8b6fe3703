"""A task: a job with its parameters, named by the hash of everything that determines its result."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from microtome.atlas.store import digest
from microtome.network import Network
from microtome.results import Provenance, Result, versions

__all__ = ["FORMAT", "Job", "Refusal", "Task", "task"]

# Raised when a job's meaning or a method's numbers change, so that old results are not taken for new ones.
FORMAT = 6

# job(subject, *results of the tasks it needs, **parameters) -> its result
Job = Callable[..., Result]


@dataclass(frozen=True)
class Task:
    """A job, its parameters, and the tasks whose results it takes.

    Attributes
    ----------
    job : str
        The name of the job in its topic.
    parameters : mapping
        The keyword arguments of the job, as JSON can hold them.
    needs : tuple of str
        Keys of the tasks that must be done before.
    cost : float
        Expected seconds on one core, for the remaining time; it does not change the key.
    key : str
        The name of the result.
    gathers : bool
        Whether the job takes the needed results as one iterable, which loads one at a time.
    interim : bool
        Whether the result is removed as soon as all tasks that need it are done.
    """

    job: str
    parameters: Mapping[str, Any]
    needs: tuple[str, ...]
    cost: float
    key: str
    gathers: bool = False
    interim: bool = False


def task(
    job: str,
    fingerprint: str,
    data: str,
    *,
    needs: tuple[str, ...] = (),
    cost: float = 1.0,
    gathers: bool = False,
    interim: bool = False,
    **parameters: Any,
) -> Task:
    """Name a task by what determines its result.

    Parameters
    ----------
    job : str
        The job.
    fingerprint, data : str
        Fingerprints of the network and of the images; ``data`` is empty if the result does not depend on images.
    needs : tuple of str
        Keys of tasks that come before.
    cost : float
        Expected seconds.
    gathers, interim : bool
        See ``Task``.
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
    return Task(job, parameters, needs, cost, digest(determined), gathers, interim)


@dataclass(frozen=True, eq=False, kw_only=True)
class Refusal(Result):
    """The reason why a method cannot be used on this network; the page shows it instead of the figure."""

    reason: str

    @classmethod
    def of(cls, net: Network, task: Task, reason: str) -> Refusal:
        """The refusal of a task."""
        made = Provenance(task.job, dict(task.parameters), net.fingerprint, versions=versions())
        return cls(provenance=made, reason=reason)
