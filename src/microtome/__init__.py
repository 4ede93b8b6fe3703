"""Cuts a trained image network open and shows what is inside: any ``torch.nn.Module`` that takes images, unchanged."""

from microtome.errors import InputError, LayerError, MicrotomeError, ModelError, ModelWarning, OpaqueError, StoreError
from microtome.network import Network
from microtome.results import Result, load
from microtome.version import __version__

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
