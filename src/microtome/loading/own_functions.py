"""The user's own function from its name: ``path/to/file.py:function`` or ``package.module:function``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

from microtome.errors import InputError, nearest

__all__ = ["is_own", "own_function", "search_here", "source_digest"]


def is_own(name: str) -> bool:
    """Whether a name refers to the user's own function: it has a colon.

    Examples
    --------
    >>> is_own("methods.py:brightness"), is_own("grad-cam")
    (True, False)
    """
    return ":" in name


def own_function(name: str) -> Callable[..., Any]:
    """The function with this name. The file or module is run once.

    Parameters
    ----------
    name : str
        ``path/to/file.py:function``, or ``package.module:function`` found on the current folder and ``PYTHONPATH``.

    Raises
    ------
    InputError
        The name does not have this form, the file or module does not exist or raises, or it has no such function.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise InputError(f'"path/to/file.py:function" or "package.module:function" was expected, got "{name}".')
    module = _from_file(Path(place)) if place.endswith(".py") else _from_module(place)
    found = getattr(module, attribute, None)
    if found is None:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        offered = f" Nearest: {nearest(attribute, known)}." if known else " It defines no function."
        raise InputError(f'"{place}" has no "{attribute}".{offered}')
    if not callable(found):
        raise InputError(f'a function was expected; "{name}" is a {type(found).__name__}.')
    function: Callable[..., Any] = found
    return function


def source_digest(name: str) -> str:
    """A digest of the source file of a function, so that results of an earlier version are not reused.

    Empty if the source is unknown.
    """
    try:
        text = Path(inspect.getsourcefile(own_function(name)) or "").read_bytes()
    except (OSError, TypeError):
        return ""
    return hashlib.blake2b(text, digest_size=8).hexdigest()


def _from_file(path: Path) -> ModuleType:
    if not path.is_file():
        raise InputError(f'there is no file "{path}"; give the path of a Python file, a colon and a function in it.')
    key = hashlib.blake2b(str(path.resolve()).encode(), digest_size=4).hexdigest()
    module_name = f"{path.stem}_{key}"  # files with the same name get different module names
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise InputError(f'"{path}" cannot be read as Python.')
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise InputError(f'running "{path}" raises {type(error).__name__}: {error}.') from error
    return module


def search_here() -> None:
    """Let Python find modules in the current folder, also files written since it looked last."""
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()


def _from_module(name: str) -> ModuleType:
    search_here()
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise InputError(f'the module "{name}" cannot be imported: {type(error).__name__}: {error}.') from error
