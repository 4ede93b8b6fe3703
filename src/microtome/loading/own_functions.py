"""A function of the user's own from its name: ``path/to/file.py:function`` or ``package.module:function``."""

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

__all__ = ["is_own", "own_function", "source_digest"]


def is_own(name: str) -> bool:
    """Whether a name stands for a function of the user's own: it has a colon.

    Examples
    --------
    >>> is_own("methods.py:brightness"), is_own("grad-cam")
    (True, False)
    """
    return ":" in name


def own_function(name: str) -> Callable[..., Any]:
    """The function that a name stands for. The file or module is run once.

    Parameters
    ----------
    name : str
        ``path/to/file.py:function``, or ``package.module:function`` found on the current folder and ``PYTHONPATH``.

    Raises
    ------
    InputError
        The name has not this form, the file or module does not exist or raises, or it has no such function.
    """
    place, colon, attribute = name.rpartition(":")
    if not colon or not place or not attribute:
        raise InputError(f'a function is named "path/to/file.py:function" or "package.module:function", got "{name}".')
    module = _from_file(Path(place)) if place.endswith(".py") else _from_module(place)
    found = getattr(module, attribute, None)
    if found is None:
        known = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        offered = f" Nearest: {nearest(attribute, known)}." if known else " It defines no function."
        raise InputError(f'"{place}" has no "{attribute}".{offered}')
    if not callable(found):
        raise InputError(f'"{name}" is a {type(found).__name__}; a function is expected.')
    function: Callable[..., Any] = found
    return function


def source_digest(name: str) -> str:
    """A digest of the file in which a function is written, so that results of an earlier state are not taken for new.

    Empty where the source is not known.
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
    module_name = f"{path.stem}_{key}"  # two files of one name stay apart
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
        raise InputError(f'"{path}" raises when it is run: {type(error).__name__}: {error}.') from error
    return module


def _from_module(name: str) -> ModuleType:
    here = os.getcwd()
    if here not in sys.path:
        sys.path.insert(0, here)
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise InputError(f'the module "{name}" cannot be imported: {type(error).__name__}: {error}.') from error
