"""Data sets, folders and single pictures, opened by the names that a user types."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor

from microtome.data.folder import Folder, folder
from microtome.data.images import Images
from microtome.data.named.digits import digits, mnist_5000
from microtome.data.named.fashion_mnist import fashion_mnist
from microtome.data.named.mnist import mnist
from microtome.data.named.parts import PARTS
from microtome.data.picture import decode
from microtome.errors import InputError, nearest
from microtome.option_types import checks_types

__all__ = ["NAMES", "open_data", "open_picture"]

_PARTED: dict[str, Callable[[str], Images]] = {"mnist": mnist, "fashion-mnist": fashion_mnist}
_WHOLE: dict[str, Callable[[], Images]] = {"digits": digits, "mnist-5000": mnist_5000}

NAMES = (*_PARTED, *_WHOLE)


@checks_types
def open_data(
    source: str | Path,
    input_shape: tuple[int, int, int] | None = None,
    *,
    part: str = "test",
    classes: Sequence[str] | None = None,
) -> Images | Folder:
    """Open a data set, folder or picture by its name on the command line.

    Parameters
    ----------
    source
        One of ``mnist``, ``fashion-mnist``, ``digits``, ``mnist-5000``, a part of it after a colon (``mnist:train``),
        or the path of a folder of pictures. A folder wins over a name only if written as a path (``./mnist``).
    input_shape
        Input shape of the network, to which pictures are fitted. By default named data sets keep their own shape.
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
    found = _named(str(source), part)
    if found is not None:
        return found if input_shape is None else found.fit(input_shape)
    path = Path(source)
    if not path.exists():
        raise InputError(
            f'there is neither a data set nor a folder "{source}". Data sets: {", ".join(NAMES)}. '
            f"Nearest: {nearest(str(source).partition(':')[0], [*NAMES, *_folders(path.parent)], 2)}."
        )
    if input_shape is None:
        raise InputError(f"the folder {path} needs to know the network's input shape (channels, height, width).")
    return folder(path, input_shape, classes=classes)


@checks_types
def open_picture(source: str | Path, input_shape: tuple[int, int, int]) -> Tensor:
    """One picture for a network: a file, see :func:`decode`, or a data set's by its number.

    Parameters
    ----------
    source
        The path of a picture file, or a data set that :func:`open_data` knows by name with a number from 0, as in
        ``mnist:17``, ``mnist:train:17``, ``digits:3``. A file wins over a name only if written as a path.
    input_shape
        Input shape of the network, to which the picture is fitted.

    Returns
    -------
    Tensor, (C, H, W), in [0, 1]

    Raises
    ------
    InputError
        The file cannot be read as a picture, or the data set has none of that number.

    Examples
    --------
    >>> open_picture("digits:3", (1, 8, 8)).shape
    torch.Size([1, 8, 8])
    """
    named, _, number = str(source).rpartition(":")
    found = _named(named, "test") if number.isdecimal() else None
    if found is None:
        if str(source).partition(":")[0] in NAMES and ":" in str(source) and not Path(source).exists():
            raise InputError(
                "a picture of a data set is named by its number from 0, as in mnist:17 or mnist:train:17; got "
                f'"{source}".'
            )
        return torch.from_numpy(decode(source, input_shape)).to(torch.float32) / 255
    if int(number) >= len(found):
        raise InputError(f"{named} holds {len(found):,} pictures, counted from 0; there is none of number {number}.")
    return found.subset([int(number)]).fit(input_shape).images[0]


def _named(source: str, part: str) -> Images | None:
    """The data set that a name with or without a part means; None if it is no name."""
    name, _, wanted = source.partition(":")
    if name not in NAMES or not (wanted in ("", *PARTS) or "+" in wanted):
        return None
    return _PARTED[name](wanted or part) if name in _PARTED else _WHOLE[name]()


def _folders(beside: Path) -> list[str]:
    """Folders that a mistyped one may have meant."""
    try:
        return sorted(str(place) for place in beside.iterdir() if place.is_dir() and not place.name.startswith("."))
    except OSError:
        return []
