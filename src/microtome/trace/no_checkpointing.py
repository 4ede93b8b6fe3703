"""How is a checkpointed part of a model seen once, as written, and not run a second time on the way back?

Checkpointing trades time for memory in training: torch forgets what a part computed and runs it again in the
backward pass, by then outside the watch and without its rules. Here a pass is short and its memory bounded, so
that checkpointed parts are simply run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch.utils.checkpoint as torch_checkpoint

# What torch.utils.checkpoint.checkpoint looks up when it is called, in both of its kinds.
_WITHOUT_REENTRY, _WITH_REENTRY = "_checkpoint_without_reentrant_generator", "CheckpointFunction"


class _Plain:
    """Stands where torch's checkpointing function is: runs the part."""

    @staticmethod
    def apply(function: Callable[..., Any], preserve: bool, *args: Any) -> Any:
        """Run the part."""
        return function(*args)


def _nothing_kept(*args: Any, **kwargs: Any) -> Iterator[None]:
    """Stands where torch sets up its hooks before the part runs and takes them down after."""
    yield


@contextmanager
def plainly() -> Iterator[None]:
    """Run checkpointed parts as if they were not; to be entered under the lock of ``as_found``."""
    found = {name: getattr(torch_checkpoint, name) for name in (_WITHOUT_REENTRY, _WITH_REENTRY)
             if hasattr(torch_checkpoint, name)}  # fmt: skip
    stands = {_WITHOUT_REENTRY: _nothing_kept, _WITH_REENTRY: _Plain}
    try:
        for name in found:
            setattr(torch_checkpoint, name, stands[name])
        yield
    finally:
        for name, value in found.items():
            setattr(torch_checkpoint, name, value)
