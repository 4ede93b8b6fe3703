"""A function of tensors that is called many times, recorded once as a CUDA graph and replayed.

On a GPU a pass through a small network takes as long as Python needs to launch its kernels. A recorded graph launches
them in one call. What a recording cannot contain (a number that the model reads, a branch that depends on it) raises or
gives other numbers: the first replay is compared with the plain call; if they differ, every call is plain.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

Function = Callable[..., tuple[Tensor, ...]]

_PLAIN_CALLS = 2  # warm-up before the recording: kernels are loaded and chosen, caches are filled
_CLOSE = 1e-3  # of the largest number: kernels that add in no fixed order differ from call to call


class Recorder(Protocol):
    """Records one call of a function and replays it on other numbers in the same tensors."""

    def record(self, function: Function, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Record; returns the tensors that hold the outputs after each replay."""

    def replay(self) -> None:
        """Run the recorded kernels once."""


class CudaRecorder:
    """A CUDA graph."""

    def __init__(self) -> None:
        self._graph = torch.cuda.CUDAGraph()

    def record(self, function: Function, given: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Record one call; on a stream of its own, as a recording has to be."""
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            function(*given)
        torch.cuda.current_stream().wait_stream(beside)
        with torch.cuda.graph(self._graph):
            return function(*given)

    def replay(self) -> None:
        """Run the recorded kernels once."""
        self._graph.replay()


class Repeated:
    """A function that is called with tensors of the same shapes again and again.

    Parameters
    ----------
    function : callable
        From tensors to a tuple of tensors. Everything that changes between calls must be in the given tensors, or in
        tensors that it reads and that stay at the same address.
    recorder : function returning a Recorder, optional
        How to record; default a CUDA graph for tensors on a CUDA device, and plain calls otherwise.

    Attributes
    ----------
    plain : str
        Why calls are plain; empty if they are replayed.

    Examples
    --------
    >>> twice = Repeated(lambda x: (2 * x,))
    >>> twice(torch.tensor([1.0])), twice.plain
    ((tensor([2.]),), 'it was called too few times')
    """

    def __init__(self, function: Function, recorder: Callable[[], Recorder] | None = None) -> None:
        self._function, self._make = function, recorder
        self._calls = 0
        self._recorder: Recorder | None = None
        self._given: tuple[Tensor, ...] = ()
        self._made: tuple[Tensor, ...] = ()
        self.plain = "it was called too few times"

    def __call__(self, *given: Tensor) -> tuple[Tensor, ...]:
        """The outputs of the function; the next call overwrites these tensors."""
        if self._recorder is not None and _alike(given, self._given):
            for held, new in zip(self._given, given, strict=True):
                held.copy_(new)
            self._recorder.replay()
            return self._made
        self._calls += 1
        made = self._function(*given)
        if self._calls == _PLAIN_CALLS:
            self._record(given, made)
        return made

    def _record(self, given: tuple[Tensor, ...], plain: tuple[Tensor, ...]) -> None:
        """Record the function and compare its replay with the plain call."""
        make = self._make
        if make is None and given[0].is_cuda:
            make = CudaRecorder
        if make is None:
            self.plain = f"the tensors are on {given[0].device.type}"
            return
        kept = tuple(value.detach().clone() for value in plain)
        self._given = tuple(value.detach().clone() for value in given)
        recorder = make()
        try:
            self._made = recorder.record(self._function, self._given)
            recorder.replay()
            if given[0].is_cuda:
                torch.cuda.synchronize(given[0].device)
        except Exception as error:  # anything that cannot be recorded: the plain call is always right
            self.plain = f"it cannot be recorded: {type(error).__name__}: {error}".splitlines()[0]
            self._given = self._made = ()
            return
        away = max(_distance(*pair) for pair in zip(kept, self._made, strict=True))
        if away <= _CLOSE:
            self._recorder, self.plain = recorder, ""
        else:
            self.plain = f"a replay differs from the plain call by {away:.1e} of the largest number"
            self._given = self._made = ()


def _alike(given: tuple[Tensor, ...], held: tuple[Tensor, ...]) -> bool:
    return len(given) == len(held) and all(
        a.shape == b.shape and a.dtype == b.dtype and a.device == b.device for a, b in zip(given, held, strict=True)
    )


def _distance(first: Tensor, second: Tensor) -> float:
    """The largest difference, as a share of the largest number; infinite if it is not finite."""
    scale = float(first.abs().max()) or 1.0
    away: Any = float((first - second).abs().max()) / scale
    return away if away == away else float("inf")
