"""What does ``--data`` name? A data set by its name, or a folder: of pictures, or of idx files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from microtome.data.digits import digits, mnist_5000
from microtome.data.fashion_mnist import fashion_mnist
from microtome.data.folder import Folder, folder
from microtome.data.images import Images
from microtome.data.mnist import mnist
from microtome.data.parts import PARTS
from microtome.errors import InputError, nearest

__all__ = ["NAMES", "open_data"]

_PARTED: dict[str, Callable[[str], Images]] = {"mnist": mnist, "fashion-mnist": fashion_mnist}
_WHOLE: dict[str, Callable[[], Images]] = {"digits": digits, "mnist-5000": mnist_5000}

NAMES = (*_PARTED, *_WHOLE)


def open_data(
    source: str | Path,
    input_shape: tuple[int, int, int] | None = None,
    *,
    part: str = "test",
    classes: Sequence[str] | None = None,
) -> Images | Folder:
    """Open what a person names on the command line.

    Parameters
    ----------
    source
        One of ``mnist``, ``fashion-mnist``, ``digits``, ``mnist-5000``, a part of it after a colon (``mnist:train``),
        or the path of a folder of pictures. A folder wins over a name only if written as a path (``./mnist``).
    input_shape
        What the network takes; pictures are fitted to it. By default named data sets keep their own shape.
    part
        The part of a named data set that is meant where the name does not say: ``train``, ``validation``, ``test``.
    classes
        The network's classes, see :func:`~microtome.data.folder`.

    Returns
    -------
    Images or Folder

    Raises
    ------
    InputError
        There is neither such a data set nor such a folder.
    """
    name, _, wanted = str(source).partition(":")
    if (name in NAMES and wanted in ("", *PARTS)) or (name in NAMES and "+" in wanted):
        found = _PARTED[name](wanted or part) if name in _PARTED else _WHOLE[name]()
        return found if input_shape is None else found.fit(input_shape)
    path = Path(source)
    if not path.exists():
        raise InputError(
            f'there is neither a data set nor a folder "{source}". Data sets: {", ".join(NAMES)}. '
            f"Nearest: {nearest(name, [*NAMES, *_folders(path.parent)], 2)}."
        )
    if input_shape is None:
        raise InputError(f"the folder {path} needs to know the network's input shape (channels, height, width).")
    return folder(path, input_shape, classes=classes)


def _folders(beside: Path) -> list[str]:
    """Folders that a mistyped one may have meant."""
    try:
        return sorted(str(place) for place in beside.iterdir() if place.is_dir() and not place.name.startswith("."))
    except OSError:
        return []
