"""Cuts a trained image network open and shows what is inside: any ``torch.nn.Module`` that takes images, unchanged."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from microtome.errors import InputError, LayerError, MicrotomeError, ModelError, ModelWarning, OpaqueError, StoreError

if TYPE_CHECKING:
    from microtome.network import Network
    from microtome.results import Result, load

    __version__: str

__all__ = [
    "InputError",
    "LayerError",
    "MicrotomeError",
    "ModelError",
    "ModelWarning",
    "Network",
    "OpaqueError",
    "Result",
    "StoreError",
    "__version__",
    "load",
]

# Imported on first use: they need torch, and the help of a command does not.
_LAZY = {"Network": "microtome.network", "Result": "microtome.results", "load": "microtome.results"}


def __getattr__(name: str) -> Any:
    """Import what needs torch, or the version, at its first use."""
    if name == "__version__":
        found: Any = _version()
    elif name in _LAZY:
        found = getattr(importlib.import_module(_LAZY[name]), name)
    else:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("microtome")
    except PackageNotFoundError:  # run from a source tree that was never installed
        return "0+unknown"
