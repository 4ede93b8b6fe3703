"""Writes results to files, as figures or complete, and prints numbers as text or JSON."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from microtome.errors import InputError, StoreError
from microtome.tables import in_lines

if TYPE_CHECKING:
    from microtome.results import Result
    from microtome.tables import Table

__all__ = ["check", "check_place", "columns", "save", "say", "tell", "tell_beside", "tell_table", "writable"]

_FIGURES = (".png", ".svg", ".pdf")
_NARROWEST = 40  # columns of a terminal; narrower ones break the lines themselves


def save(result: Result, path: Path | None, *, as_json: bool = False, **options: object) -> None:
    """Draw a result into a .png, .svg or .pdf file, or save it as .safetensors; without a path nothing is written.

    Raises
    ------
    InputError
        If the file has another ending.
    StoreError
        It cannot be written.
    """
    check(path)
    for note in result.notes:
        tell_beside(f"note: {note}")
    if path is None:
        return
    if path.suffix.lower() == ".safetensors":
        result.save(path)
    else:
        figure = result.plot(**options)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            figure.savefig(path, bbox_inches="tight", dpi=150)
        except OSError as error:
            raise StoreError(f"{path} cannot be written: {error.strerror or error}.") from error
    print(f"wrote {path}", file=sys.stderr if as_json else sys.stdout)


def columns(stream: TextIO) -> int | None:
    """The width of the terminal that a stream is, or that ``COLUMNS`` states; None for a file or pipe.

    In a file a sentence is one line, so that other programs find it.
    """
    if stream.isatty() or os.environ.get("COLUMNS", "").isdecimal():
        return max(shutil.get_terminal_size().columns, _NARROWEST)
    return None


def say(text: str, *, hang: int | None = None) -> None:
    """Print text in lines that fit the terminal."""
    print(in_lines(text, columns(sys.stdout), hang))


def tell_beside(text: str) -> None:
    """Write a note, warning or error to stderr, in lines that fit the terminal."""
    sys.stderr.write(f"{in_lines(text, columns(sys.stderr))}\n")


def tell(
    rows: Iterable[Mapping[str, Any]],
    line: Callable[[Mapping[str, Any]], str],
    *,
    as_json: bool,
    hang: int | None = None,
) -> None:
    """Print rows, each as a line of text, or all as one JSON list.

    Numbers that are not finite are null in JSON. Lines that are longer than the terminal continue indented by ``hang``.
    """
    if as_json:
        print(json.dumps([_plain(dict(row)) for row in rows], ensure_ascii=False, allow_nan=False))
        return
    for row in rows:
        say(line(row), hang=hang)


def tell_table(table: Table, *, as_json: bool) -> None:
    """Print a table as text, or as a JSON list of its rows."""
    if as_json:
        tell(table, str, as_json=True)
    else:
        print(table.text(columns(sys.stdout)))


def writable(folder: Path) -> None:
    """See, before anything is computed, that files can be written into a folder; make it where it is not there.

    Raises
    ------
    StoreError
        If files cannot be written there.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise StoreError(f"{folder} cannot be written: {error.strerror or error}. Choose another folder.") from error


def check(path: Path | None, further: tuple[str, ...] = ()) -> None:
    """Check before any computation that a file has a known ending and can be written.

    Parameters
    ----------
    path
        The file, or None.
    further
        Endings that the command accepts besides those of figures and results.

    Raises
    ------
    InputError
        If the file has another ending.
    StoreError
        If its folder cannot be written or created.
    """
    if path is None:
        return
    if path.suffix.lower() not in (*_FIGURES, ".safetensors", *further):
        pages = f", {', '.join(further)} for a page" if further else ""
        raise InputError(
            f"{path} should end in {', '.join(_FIGURES)} for a figure{pages}, or .safetensors for the result."
        )
    if path.is_dir():
        raise StoreError(f"{path} cannot be written: it is a folder. Choose a file.")
    check_place(path.parent, path)


def check_place(folder: Path, path: Path | None = None) -> None:
    """Check before any computation that files can be written into a folder, which need not exist yet.

    Unlike :func:`writable` it creates nothing.

    Parameters
    ----------
    folder
        The folder.
    path
        The path in the message; by default the folder.

    Raises
    ------
    StoreError
        If files cannot be written there.
    """
    there = next(above for above in (folder, *folder.absolute().parents) if above.exists())
    why = "is a file, not a folder" if not there.is_dir() else "may not be written"
    if not there.is_dir() or not os.access(there, os.W_OK):
        raise StoreError(f"{path or folder} cannot be written: {there} {why}. Choose another place.")


def _plain(value: Any) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if isinstance(value, str | int | bool | type(None)) else str(value)
