"""Which class is a picture of? What the names of its file or folder say, where the network's classes bear them out."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from microtome.errors import InputError, nearest

__all__ = ["by_folder", "by_prefix"]

_PREFIX = re.compile(r"(\d+)(?:[_\-. ](.*))?", re.DOTALL)


def by_folder(folders: Sequence[str], classes: Sequence[str] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Labels from the name of each picture's class folder.

    Examples
    --------
    >>> by_folder(["dog", "cat", "dog"], None)
    (tensor([1, 0, 1]), ('cat', 'dog'))
    >>> by_folder(["dog", "2", "001_cat"], ["fish", "cat, house cat", "dog"])
    (tensor([2, 2, 1]), ('fish', 'cat, house cat', 'dog'))
    """
    distinct = sorted(set(folders))
    if classes is None:
        index = {name: label for label, name in enumerate(distinct)}
        return torch.tensor([index[name] for name in folders]), tuple(distinct)
    index = {name: _look_up(name, classes) for name in distinct}
    return torch.tensor([index[name] for name in folders]), tuple(classes)


def by_prefix(stems: Sequence[str], classes: Sequence[str] | None) -> Tensor | None:
    """Labels from numbers in front of the file names, or None where the names do not bear them out.

    Examples
    --------
    >>> by_prefix(["000_tench", "001_my_pet"], ["tench, Tinca tinca", "goldfish"])
    tensor([0, 1])
    >>> by_prefix(["000_beach", "001_hotel"], ["tench, Tinca tinca", "goldfish"]) is None
    True
    """
    matches = [_PREFIX.fullmatch(stem) for stem in stems]
    if classes is None or not stems or any(match is None for match in matches):
        return None
    numbers = [int(match[1]) for match in matches if match]
    if max(numbers) >= len(classes):
        return None
    agreeing = sum(
        _fits(match[2], classes[number]) or classes[number] == match[1] or classes[number] == str(number)
        for match, number in zip(matches, numbers, strict=True)
        if match
    )
    return torch.tensor(numbers) if 2 * agreeing >= len(stems) else None


def _look_up(name: str, classes: Sequence[str]) -> int:
    """The class that a folder is named after: its name, one of its synonyms, or its number."""
    for label, known in enumerate(classes):
        if name == known or _fits(name, known):
            return label
    match = _PREFIX.fullmatch(name)
    if match and int(match[1]) < len(classes) and (match[2] is None or _fits(match[2], classes[int(match[1])])):
        return int(match[1])
    raise InputError(
        f'the class folder "{name}" is none of the network\'s {len(classes)} classes. '
        f"Nearest: {nearest(name, classes)}. Rename the folder, or name it after the class's number."
    )


def _fits(name: str | None, known: str) -> bool:
    """Tell whether a name is that of a class or one of its comma-separated synonyms; case and separators apart."""
    return name is not None and _plain(name) in {_plain(part) for part in (known, *known.split(","))}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().casefold()
