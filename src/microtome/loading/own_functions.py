"""The user's own function or model from its name: ``path/to/file.py:function`` or ``package.module:function``."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import inspect
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from microtome.errors import InputError, MicrotomeError, nearest

__all__ = ["in_a_file", "is_own", "own_function", "own_module", "raised", "source_digest"]


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
    module = own_module(place, name)
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


def in_a_file(place: str) -> bool:
    """Whether the part of a name before the colon is the path of a file, not the name of a module."""
    return place.endswith(".py") or "/" in place or os.sep in place


def own_module(
    place: str, name: str, *, error: type[MicrotomeError] = InputError, others: Sequence[str] = ()
) -> ModuleType:
    """The module of a file or with a name, run once.

    Parameters
    ----------
    place : str
        ``path/to/file.py``, or ``package.module`` found on the current folder and ``PYTHONPATH``. A file may import
        modules from its own folder.
    name : str
        The whole name that the user gave, for messages.
    error : class
        The error to raise.
    others : sequence of str
        Further names that the user may have meant.

    Raises
    ------
    MicrotomeError
        Of the class ``error``: the file or module does not exist, cannot be read, or raises.
    """
    if in_a_file(place):
        return _from_file(Path(place), name, error)
    _search(Path.cwd(), first=True)
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as missing:
        absent = missing.name or place
        if place == absent or place.startswith(f"{absent}."):
            raise error(
                f'there is no Python module "{absent}" for "{name}" in the current folder or on PYTHONPATH. '
                f"Nearest: {nearest(absent, [*others, *_modules_here()])}."
            ) from missing
        raise error(f'the module "{place}" needs "{absent}", which is not installed.') from missing
    except (Exception, SystemExit) as cause:  # a script may end itself
        raise error(f'the module "{place}" raises on import: {raised(cause)}.') from cause


def raised(cause: BaseException) -> str:
    """What was raised, and in which line of the user's code."""
    frames = traceback.extract_tb(cause.__traceback__)
    ours = (str(Path(__file__).parent), "<frozen")
    last = next((one for one in reversed(frames) if not one.filename.startswith(ours)), None)
    place = f" (line {last.lineno} of {Path(last.filename).name})" if last and "importlib" not in last.filename else ""
    return f"{type(cause).__name__}: {' '.join(str(cause).split())[:300]}{place}"


def _from_file(path: Path, name: str, error: type[MicrotomeError]) -> ModuleType:
    if not path.is_file():
        known = [str(one) for one in path.parent.glob("*.py")] if path.parent.is_dir() else []
        offered = f" Nearest: {nearest(str(path), known)}." if known else ""
        raise error(
            f'there is no file "{path}" for "{name}"; give the path of a Python file, a colon and a function in it.'
            f"{offered}"
        )
    key = hashlib.blake2b(str(path.resolve()).encode(), digest_size=4).hexdigest()
    module_name = f"{path.stem}_{key}"  # files with the same name get different module names
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise error(f'"{path}" is no Python file; its name must end in .py.')
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    _search(path.parent.resolve(), first=False)
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as cause:  # a script may end itself
        del sys.modules[module_name]
        if isinstance(cause, ModuleNotFoundError):
            raise error(f'"{path}" needs "{cause.name}", which is neither beside it nor installed.') from cause
        raise error(f'running "{path}" raises {raised(cause)}.') from cause
    return module


def _search(folder: Path, *, first: bool) -> None:
    """Let Python find modules in a folder, also files written since it looked last."""
    if str(folder) not in sys.path:
        sys.path.insert(0 if first else len(sys.path), str(folder))
    importlib.invalidate_caches()


def _modules_here() -> list[str]:
    """The modules of the current folder."""
    here = Path()
    return [*(file.stem for file in here.glob("*.py")), *(file.parent.name for file in here.glob("*/__init__.py"))]
