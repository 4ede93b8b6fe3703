"""Where does a result go? A figure, or the result itself, into the file that was named."""

from __future__ import annotations

import tempfile
from pathlib import Path

from microtome.errors import InputError, StoreError
from microtome.results import Result

__all__ = ["check", "save", "writable"]

_FIGURES = (".png", ".svg", ".pdf")


def save(result: Result, path: Path, **options: object) -> None:
    """Draw a result into a .png, .svg or .pdf file, or keep it whole as .safetensors.

    Raises
    ------
    InputError
        The file's ending is another one.
    StoreError
        It cannot be written.
    """
    check(path)
    if path.suffix.lower() == ".safetensors":
        result.save(path)
    else:
        figure = result.plot(**options)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, bbox_inches="tight", dpi=150)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror or error}.") from error
    print(f"wrote {path}")


def writable(folder: Path) -> None:
    """See, before anything is computed, that files can be written into a folder; make it where it is not there.

    Raises
    ------
    StoreError
        They cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror or error}. Choose another folder.") from error


def check(path: Path) -> None:
    """See, before anything is computed, that the file's ending is a known one."""
    if path.suffix.lower() not in (*_FIGURES, ".safetensors"):
        raise InputError(f"{path} should end in {', '.join(_FIGURES)} for a figure, or .safetensors for the result.")
