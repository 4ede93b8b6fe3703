"""Switches gradient checkpointing off: checkpointed parts of a model run once, as written.

Checkpointing trades time for memory in training: torch forgets what a part computed and runs it again in the
backward pass, by then outside of the tracer and without its rules. Here a pass is short and its memory bounded, so
checkpointed parts simply run.

Models hold ``torch.utils.checkpoint.checkpoint`` by many names, so the function itself stays and its code is exchanged.
This needs nothing of torch but the function's public signature.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from torch.utils.checkpoint import checkpoint

_FUNCTION: Any = inspect.unwrap(checkpoint)
# Keywords of checkpointing itself; all others are for the part.
_SETTINGS = {"preserve_rng_state"} | {
    name
    for name, parameter in inspect.signature(_FUNCTION).parameters.items()
    if parameter.kind is inspect.Parameter.KEYWORD_ONLY
}


def run_part(part: Callable[..., Any] | None, args: tuple[Any, ...], keywords: dict[str, Any]) -> Any:
    """Run a part given to ``checkpoint``; without a part it acts as a decorator that changes nothing."""
    if part is None:
        return lambda decorated: decorated
    return part(*args, **{name: value for name, value in keywords.items() if name not in _SETTINGS})


def _in_place_of_checkpoint(function: Any = None, *args: Any, **keywords: Any) -> Any:
    from microtome.trace.no_checkpointing import run_part  # this code runs among the names of torch's module

    return run_part(function, args, keywords)


def _decorator() -> Any:
    """The class of functions decorated by ``checkpoint``; None if torch has no such decorator."""
    try:
        made = _FUNCTION(use_reentrant=False)(len)  # since torch 2.14; by its wrapper it would import torch._dynamo
    except TypeError:
        return None
    return type(made) if hasattr(made, "__wrapped__") and not inspect.isfunction(made) else None


def _run_wrapped(self: Any, *args: Any, **keywords: Any) -> Any:
    return self.__wrapped__(*args, **keywords)


_DECORATOR = _decorator()


@contextmanager
def plainly() -> Iterator[None]:
    """Run checkpointed parts as if they were not; to be entered under the lock of ``as_found``."""
    code = _FUNCTION.__code__
    call = None if _DECORATOR is None else _DECORATOR.__call__
    try:
        _FUNCTION.__code__ = _in_place_of_checkpoint.__code__
        if _DECORATOR is not None:
            _DECORATOR.__call__ = _run_wrapped
        yield
    finally:
        _FUNCTION.__code__ = code
        if _DECORATOR is not None:
            _DECORATOR.__call__ = call
