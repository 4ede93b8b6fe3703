"""Checks what else a folder of pictures holds: masks, files that cannot be read, folders below the class folders."""

from __future__ import annotations

import re
import warnings
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePath

from microtome.errors import DataWarning, InputError

__all__ = ["around_the_classes", "check_masks", "tell_nested_folders", "tell_unread"]

_MASK_FOLDER = re.compile(r"(.*[\W_])?(masks?|segmentations?|annotations?|ground[\W_]?truth)[\W_\d]*", re.IGNORECASE)
_MASK_FILE = re.compile(r"(.+)[\W_]+(masks?|segmentation|seg|annotation|ground[\W_]?truth|gt)[\W_\d]*", re.IGNORECASE)
# Formats of pictures that cannot be read; all other files beside pictures are ignored.
_UNREAD = frozenset(
    ".heic .heif .avif .jxl .jp2 .j2k .jpe .tga .pcx .psd .exr .hdr .svg .raw .dng .cr2 .cr3 .nef .arw .orf .rw2 "
    ".dcm .dicom .nii .mha .mhd .nrrd .svs .ndpi .mrxs .scn .vms .czi .nd2 .lif .npy .npz .mat".split()
)
_SHOWN = 3


def check_masks(root: Path, relative: Sequence[PurePath]) -> None:
    """Raise if there are folders of masks beside folders of pictures; warn if single files are named as masks.

    Raises
    ------
    InputError
        If class folders hold folders of pictures and of masks.
    """
    below = sorted({name.parts[1] for name in relative if len(name.parts) > 2})
    masks = [name for name in below if _MASK_FOLDER.fullmatch(name)]
    if masks and len(masks) < len(below):
        others = [name for name in below if name not in masks]
        raise InputError(
            f"the class folders of {root} hold {_listed(others)} and {_listed(masks)}: masks are not pictures of "
            "their own. Move the folders of masks out."
        )
    stems = {(name.parent, name.stem.casefold()) for name in relative}
    found = [
        name.as_posix()
        for name in relative
        if (match := _MASK_FILE.fullmatch(name.stem)) and (name.parent, match[1].casefold()) in stems
    ]
    if found:
        _warn(
            f"{len(found)} of the {len(relative)} pictures of the folder {root} are named as masks of others "
            f"({_listed(found)}) and are read as pictures of their own. Move the masks out."
        )


def tell_unread(root: Path, left_out: Sequence[str]) -> None:
    """Warn of pictures in formats that cannot be read.

    Parameters
    ----------
    root
        The folder.
    left_out
        The names of the files with other suffixes than those that can be read.
    """
    kinds = Counter(suffix for name in left_out if (suffix := PurePath(name).suffix.lower()) in _UNREAD)
    if kinds:
        counted = ", ".join(f"{count} {suffix}" for suffix, count in sorted(kinds.items()))
        _warn(f"the folder {root} holds files that are not read ({counted}). Convert them to PNG or JPEG.")


def around_the_classes(relative: Sequence[PurePath]) -> PurePath | None:
    """The one folder that holds all pictures, if it holds several folders: then it is not a class.

    Examples
    --------
    >>> around_the_classes([PurePath("photos/cat/1.png"), PurePath("photos/dog/1.png")]).as_posix()
    'photos'
    >>> around_the_classes([PurePath("cat/1.png"), PurePath("cat/2.png")]) is None
    True
    """
    shared = 0
    while all(len(name.parts) - 1 > shared for name in relative):
        if len({name.parts[shared] for name in relative}) > 1:
            return PurePath(*relative[0].parts[:shared]) if shared else None
        shared += 1
    return None


def tell_nested_folders(root: Path, relative: Sequence[PurePath]) -> None:
    """Warn if all class folders hold only folders, which may be the classes."""
    if not all(len(name.parts) > 2 for name in relative):
        return
    inner = sorted({name.parts[1] for name in relative})
    top = sorted({name.parts[0] for name in relative})
    if len(inner) > 1:
        _warn(
            f"the folders of {root} hold folders themselves: {_listed(top)} are taken as the classes, not "
            f"{_listed(inner)}. Give the names of the classes (classes=, or --classes) where the inner folders are "
            "the classes."
        )


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")


def _warn(text: str) -> None:
    warnings.warn(text, DataWarning, stacklevel=4)
