"""A folder of picture files as a data set, with labels from the names of folders or files."""

from __future__ import annotations

import os
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from microtome import inputs
from microtome.data.adapters.naming import by_folder, by_prefix, class_level, parts_of_a_data_set
from microtome.data.folder_layout import around_the_classes, check_masks, tell_nested_folders, tell_unread
from microtome.data.images import Images, chosen_places
from microtome.data.picture import decode
from microtome.errors import DataWarning, InputError
from microtome.option_types import checks_types

__all__ = ["SUFFIXES", "Folder", "folder"]

SUFFIXES = frozenset(
    {".bmp", ".gif", ".jfif", ".jpeg", ".jpg", ".pbm", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"}
)

_SHOWN = 8  # names of unreadable files in one error


class Folder:
    """Picture files as a map-style data set; each is decoded when it is read and not cached.

    Made by :func:`folder`; ``load()`` decodes all of it into :class:`~microtome.data.Images`.
    """

    def __init__(
        self,
        files: Sequence[Path],
        input_shape: tuple[int, int, int],
        *,
        root: Path,
        labels: Tensor | None,
        classes: Sequence[str] | None,
        classes_by_name: bool = False,
    ) -> None:
        # Absolute, since files are read later, when another folder may be the current one.
        self.files = tuple(file.absolute() for file in files)
        self.shape = inputs.shape(input_shape)
        self.root = root.absolute()
        self.source = self.root.name
        self.labels = labels
        self.classes = None if classes is None else tuple(classes)
        self.classes_by_name = classes_by_name
        self.names = tuple(file.relative_to(self.root).as_posix() for file in self.files)

    def __len__(self) -> int:
        return len(self.files)

    def __repr__(self) -> str:
        shape = " x ".join(map(str, self.shape))
        return f"Folder({self.source}: {len(self):,} files as {shape}, {'un' if self.labels is None else ''}labelled)"

    def __getitem__(self, index: int) -> tuple[Tensor, int] | Tensor:
        if not -len(self) <= index < len(self):
            raise IndexError(f"image {index} of {len(self)}")
        image = self._pixels(index).to(torch.float32) / 255
        return image if self.labels is None else (image, int(self.labels[index]))

    def name(self, index: int) -> str:
        """The file's path below the folder."""
        return self.names[index]

    def fetch(self, indices: Tensor) -> tuple[Tensor, Tensor | None]:
        """Some pictures as floats in [0, 1], and their labels."""
        return self._bytes(indices).to(torch.float32) / 255, None if self.labels is None else self.labels[indices]

    def load(self) -> Images:
        """Decode every file once and keep the bytes (a 224 x 224 photo takes 0.15 MB)."""
        pixels = self._bytes(torch.arange(len(self), device="cpu"))
        return Images(pixels, self.labels, self.classes, self.names, self.source, self.classes_by_name)

    def subset(self, indices: Tensor | Sequence[int] | range) -> Folder:
        """The files of these indices, in this order, or those where a mask (N,) is True."""
        chosen = chosen_places(indices, len(self)).tolist()
        return Folder(
            [self.files[index] for index in chosen],
            self.shape,
            root=self.root,
            labels=None if self.labels is None else self.labels[chosen],
            classes=self.classes,
            classes_by_name=self.classes_by_name,
        )

    def by_name(self) -> Folder:
        """The same files, whose classes are a network's only where they have its names, never by their place."""
        return Folder(
            self.files, self.shape, root=self.root, labels=self.labels, classes=self.classes, classes_by_name=True
        )

    def _bytes(self, indices: Tensor) -> Tensor:
        if not len(indices):
            return torch.empty((0, *self.shape), dtype=torch.uint8, device="cpu")
        try:
            return torch.stack([self._pixels(index) for index in indices.tolist()])
        except InputError as error:
            # One error names all of them.
            others = [name for index, name in enumerate(self.names) if self._fault(index) not in ("", str(error))]
            if not others:
                raise
            shown = ", ".join(others[:_SHOWN]) + (", ..." if len(others) > _SHOWN else ".")
            raise InputError(f"{error} {len(others)} more cannot be read: {shown}") from error

    def _fault(self, index: int) -> str:
        """Why a file cannot be read; empty if it can."""
        try:
            self._pixels(index)
        except InputError as error:
            return str(error)
        return ""

    def _pixels(self, index: int) -> Tensor:
        return torch.from_numpy(np.asarray(decode(self.files[index], self.shape)))


@checks_types
def folder(path: Path | str, input_shape: tuple[int, int, int], *, classes: Sequence[str] | None = None) -> Folder:
    """Open a folder of picture files, flat or with one folder per class.

    Parameters
    ----------
    path
        The folder. Files with a picture's suffix are read in the order of their names, without hidden ones. Where
        subfolders hold the pictures, each subfolder of the top level is a class; parts of a data set (train, val, test)
        are an error that asks for one of them. A ``DataWarning`` lists pictures in a format that cannot be read, and
        files named as masks of others.
    input_shape
        Channels, height and width of the network; height and width may differ. See :func:`~microtome.data.decode`
        for how a picture is fitted.
    classes
        The network's classes. Class folders are looked up among them, by name or by number, also below other folders,
        as in patient1/benign; without them the folders'
        names are the classes, in the order of their numbers if all begin with a number, otherwise in the order of
        text. A flat folder is labelled from prefixes such as ``207_golden_retriever.jpg``
        where the classes given bear that out (the rest of the name fits class 207 in at least half of the files);
        otherwise, and always without ``classes``, its pictures have no labels, for a number in front may well be a
        running number.

    Returns
    -------
    Folder

    Raises
    ------
    InputError
        If there is no such folder, no picture in it, a class folder that is not among ``classes``, folders that are
        parts of a data set, or folders of masks beside folders of pictures.
    """
    root = Path(path)
    if not root.exists():
        raise InputError(f"there is no folder {root}.")
    if not root.is_dir():
        raise InputError(f"{root} is a file; a folder of images is expected.")
    files = _files(root)
    if not files:
        raise InputError(
            f"the folder {root} holds no images; files ending in {', '.join(sorted(SUFFIXES))} are looked for, "
            "in it and in its subfolders."
        )
    relative = [file.relative_to(root) for file in files]
    if all(len(name.parts) > 1 for name in relative):
        tops = [name.parts[0] for name in relative]
        parts = parts_of_a_data_set(tops, [len(name.parts) - 1 for name in relative], classes)
        if parts:
            raise InputError(
                f"the folder {root} holds {' and '.join(parts)}: parts of a data set, not classes. "
                f"Give one of them: {', '.join(str(root / part) for part in parts)}."
            )
        around = around_the_classes(relative)
        if classes is None and around is not None:
            count = len({name.parts[len(around.parts)] for name in relative})
            warnings.warn(
                f"the folder {root} holds the one folder {around}, with {count} folders in it, so its pictures "
                f"have no labels. Give {root / around} where these are the classes.",
                DataWarning,
                stacklevel=2,
            )
            return Folder(files, input_shape, root=root, labels=None, classes=None)
        check_masks(root, relative)
        if classes is None:
            tell_nested_folders(root, relative)
        level = 0 if classes is None else class_level([name.parts[:-1] for name in relative], classes)
        labels, names = by_folder([name.parts[level] for name in relative], classes)
        return Folder(files, input_shape, root=root, labels=labels, classes=names)
    beside = [name.as_posix() for name in relative if len(name.parts) == 1]
    if len(beside) < len(relative):
        warnings.warn(
            f"the folder {root} holds pictures beside folders of pictures ({', '.join(beside[:3])}), so its pictures "
            "have no labels. Move them away where the folders are classes.",
            DataWarning,
            stacklevel=2,
        )
    return Folder(files, input_shape, root=root, labels=by_prefix([n.stem for n in relative], classes), classes=classes)


def _files(root: Path) -> list[Path]:
    """Picture files below a folder, in an order that does not depend on the file system."""
    found: list[Path] = []
    left_out: list[str] = []
    try:
        for place, inner, names in os.walk(root, followlinks=True, onerror=_refuse):
            here = Path(place)
            inner[:] = [name for name in inner if _opened(here / name)]
            found += [here / name for name in names if _is_picture(name)]
            left_out += [name for name in names if not _is_picture(name) and not name.startswith(".")]
    except OSError as error:
        raise InputError(f"the folder {root} cannot be read: {error.strerror or error}.") from error
    if found:
        tell_unread(root, left_out)
    return sorted(found, key=lambda file: file.relative_to(root).as_posix())


def _refuse(error: OSError) -> None:
    raise error


def _is_picture(name: str) -> bool:
    return Path(name).suffix.lower() in SUFFIXES and not name.startswith(".")


def _opened(folder: Path) -> bool:
    """Whether a folder is searched: hidden folders, and links to a folder above, are not."""
    if folder.name.startswith(".") or folder.name == "__MACOSX":
        return False
    return not folder.is_symlink() or not folder.parent.resolve().is_relative_to(folder.resolve())
