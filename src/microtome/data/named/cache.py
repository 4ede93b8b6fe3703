"""Folder in which data sets are cached between runs; ``MICROTOME_CACHE`` moves it."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from microtome.errors import StoreError

__all__ = ["folder", "writing"]


def folder() -> Path:
    """The cache folder, which may not exist yet."""
    if chosen := os.environ.get("MICROTOME_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "microtome"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", Path.home() / "AppData" / "Local")) / "microtome"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "microtome"


@contextmanager
def writing(path: Path) -> Iterator[Path]:
    """Write a file beside its final name and rename it when it is complete and on disk.

    Yields
    ------
    Path
        Where to write. If the block raises, nothing is left of it.

    Raises
    ------
    StoreError
        The folder cannot be written, or the disk is full.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".part")
        os.close(handle)
    except OSError as error:
        raise _unwritable(path, error) from error
    beside = Path(name)
    try:
        yield beside
        with beside.open("rb+") as file:
            os.fsync(file.fileno())
        beside.chmod(0o644)
        beside.replace(path)
        _sync_folder(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    finally:
        beside.unlink(missing_ok=True)


def _unwritable(path: Path, error: OSError) -> StoreError:
    return StoreError(f"{path} cannot be written: {error.strerror or error}. Choose a writable folder that has room.")


def _sync_folder(path: Path) -> None:
    """Make the rename itself durable, where the platform lets a folder be opened."""
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
