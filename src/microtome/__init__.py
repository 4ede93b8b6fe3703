"""Cuts a trained image network open and shows what is inside: any ``torch.nn.Module`` that takes images, unchanged."""

from importlib.metadata import PackageNotFoundError, version

from microtome.errors import InputError, LayerError, MicrotomeError, ModelError, ModelWarning, OpaqueError, StoreError
from microtome.network import Network
from microtome.results import Result, load

try:
    __version__ = version("microtome")
except PackageNotFoundError:  # run from a source tree that was never installed
    __version__ = "0+unknown"

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
