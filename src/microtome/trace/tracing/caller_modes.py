"""Torch's modes of the calling code: the library computes without them, and the model runs in its caller's autocast."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from contextvars import ContextVar

import torch

# The autocast of the code that called the library: type of device and precision, the innermost call that has one.
_AUTOCAST: ContextVar[tuple[tuple[str, torch.dtype], ...]] = ContextVar("autocast of the caller", default=())


@contextmanager
def own_modes() -> Iterator[None]:
    """The modes in which the library computes, whatever its caller has set: gradients, no inference mode, no autocast.

    Also a decorator of functions. Under ``torch.no_grad()`` or ``torch.inference_mode()`` no gradient could be taken,
    and under ``torch.autocast`` the sums of the library would be rounded to bfloat16. Passes of the model have the
    caller's autocast all the same, see `callers_autocast`.

    Examples
    --------
    >>> with torch.inference_mode(), own_modes():
    ...     torch.is_grad_enabled(), torch.is_inference_mode_enabled()
    (True, False)
    """
    found = tuple((kind, torch.get_autocast_dtype(kind)) for kind in _kinds() if torch.is_autocast_enabled(kind))
    token = _AUTOCAST.set(found) if found else None
    try:
        with ExitStack() as modes:
            modes.enter_context(torch.inference_mode(False))
            modes.enter_context(torch.enable_grad())
            for kind, _ in found:
                modes.enter_context(torch.autocast(kind, enabled=False))
            yield
    finally:
        if token is not None:
            _AUTOCAST.reset(token)


@contextmanager
def callers_autocast() -> Iterator[None]:
    """For a pass of the model: the autocast that `own_modes` has switched off, unless another one is on."""
    with ExitStack() as modes:
        for kind, dtype in _AUTOCAST.get():
            if not torch.is_autocast_enabled(kind):
                modes.enter_context(torch.autocast(kind, dtype))
        yield


@contextmanager
def precision(kind: str, dtype: torch.dtype | None) -> Iterator[None]:
    """A precision that the user has named for passes on a type of device, in place of the caller's autocast.

    ``None`` is that of the weights.
    """
    token = _AUTOCAST.set(())
    try:
        with torch.autocast(kind, dtype, enabled=dtype is not None):
            yield
    finally:
        _AUTOCAST.reset(token)


def _kinds() -> list[str]:
    """The types of device that have an autocast here: the processor, and an accelerator in use."""
    accelerator = getattr(torch, "accelerator", None)
    found = accelerator.current_accelerator() if accelerator is not None else None
    kind = found.type if found is not None else "cuda" if torch.cuda.is_available() else "cpu"
    return ["cpu"] if kind == "cpu" else ["cpu", kind]
