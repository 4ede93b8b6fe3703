"""Class indices from the names of files and folders, checked against the names of the network's classes."""

from __future__ import annotations

import re
from collections.abc import Sequence

import torch
from torch import Tensor

from microtome.errors import ClassNameError, InputError, nearest

__all__ = ["by_folder", "by_prefix", "class_level", "class_named", "fits", "parts_of_a_data_set"]

# train, Validation, test_set, val2017, training-images, images_train; fold1, split_2; images beside masks
_PART = re.compile(
    r"((images?|imgs?|data|set|photos?|pictures?)[\W_]*)?"
    r"(train|training|val|valid|validation|test|testing|dev|eval|evaluation|hold[\W_]?out)"
    r"([\W_]|\d|set|data|images?|imgs?|split)*"
    r"|(fold|split|part)[\W_]?\d+"
    r"|images?|imgs?|masks?|labels?|annotations?",
    re.IGNORECASE,
)
_PREFIX = re.compile(r"(\d+)(?:[_\-. ](.*))?", re.DOTALL)


def by_folder(folders: Sequence[str], classes: Sequence[str] | None) -> tuple[Tensor, tuple[str, ...]]:
    """Labels from the name of each picture's class folder.

    Without ``classes`` the folders' names are the classes, in the order of their numbers if all begin with a number
    (2 before 10), otherwise in the order of text.

    Examples
    --------
    >>> by_folder(["dog", "cat", "dog"], None)
    (tensor([1, 0, 1]), ('cat', 'dog'))
    >>> by_folder(["10", "2", "0"], None)
    (tensor([2, 1, 0]), ('0', '2', '10'))
    >>> by_folder(["dog", "2", "001_cat"], ["fish", "cat, house cat", "dog"])
    (tensor([2, 2, 1]), ('fish', 'cat, house cat', 'dog'))
    """
    distinct = sorted(set(folders))
    if classes is None:
        numbers = {name: int(match[1]) for name in distinct if (match := _PREFIX.fullmatch(name)) is not None}
        if len(numbers) == len(distinct):
            distinct.sort(key=numbers.__getitem__)
        index = {name: label for label, name in enumerate(distinct)}
        return torch.tensor([index[name] for name in folders], device="cpu"), tuple(distinct)
    index = {name: _look_up(name, classes) for name in distinct}
    return torch.tensor([index[name] for name in folders], device="cpu"), tuple(classes)


def class_level(paths: Sequence[Sequence[str]], classes: Sequence[str]) -> int:
    """Depth of the folders with the names of the network's classes: 0 for those right below the root.

    Folders of patients or sources often contain the class folders. A level whose names are all class names takes
    precedence over one whose names are all numbers; if no level fits, the depth is 0.

    Parameters
    ----------
    paths
        The folders above each picture, from the root down.
    classes
        The network's classes.

    Examples
    --------
    >>> class_level([("patient1", "benign"), ("patient2", "malignant", "left")], ["benign", "malignant"])
    1
    >>> class_level([("benign", "0"), ("malignant", "1")], ["benign", "malignant"])
    0
    """
    levels = range(min(map(len, paths)))
    distinct = [sorted({path[level] for path in paths}) for level in levels]
    for known in (_names_a_class, _looked_up):
        found = [level for level in levels if all(known(name, classes) for name in distinct[level])]
        if found:
            return found[0]
    return 0


def _names_a_class(name: str, classes: Sequence[str]) -> bool:
    return any(name == known or fits(name, known) for known in classes)


def _looked_up(name: str, classes: Sequence[str]) -> bool:
    try:
        return _look_up(name, classes) >= 0
    except InputError:
        return False


def parts_of_a_data_set(folders: Sequence[str], depths: Sequence[int], classes: Sequence[str] | None) -> list[str]:
    """The names of top folders that are parts of a data set (train, validation, test), not classes; empty if none are.

    Parameters
    ----------
    folders, depths
        The top folder of each picture, and how many folders deep the picture lies.
    classes
        The network's classes; a folder that is named after one of them is no part.

    Examples
    --------
    >>> parts_of_a_data_set(["train", "val"], [2, 2], None), parts_of_a_data_set(["train", "bus"], [1, 1], None)
    (['train', 'val'], [])
    >>> parts_of_a_data_set(["fold1", "fold2"], [2, 2], None), parts_of_a_data_set(["images", "masks"], [1, 1], None)
    (['fold1', 'fold2'], ['images', 'masks'])
    """
    distinct = sorted(set(folders))
    known = [name for name in distinct if classes is not None and class_named(name, classes) is not None]
    parts = [name for name in distinct if _PART.fullmatch(name) and name not in known]
    # One folder named train may be the class of trains, if pictures lie right in it.
    alone = len(parts) == len(distinct) and min(depths) > 1
    return parts if len(parts) > 1 or alone else []


def by_prefix(stems: Sequence[str], classes: Sequence[str] | None) -> Tensor | None:
    """Labels from numbers in front of the file names, or None if the names do not bear them out.

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
        fits(match[2], classes[number]) or classes[number] == match[1] or classes[number] == str(number)
        for match, number in zip(matches, numbers, strict=True)
        if match
    )
    return torch.tensor(numbers, device="cpu") if 2 * agreeing >= len(stems) else None


def class_named(name: str, classes: Sequence[str]) -> int | None:
    """The index of the class with this name or synonym; None if there is none.

    Examples
    --------
    >>> class_named("House_Cat", ["fish", "cat, house cat"]), class_named("dog", ["fish"])
    (1, None)

    Raises
    ------
    ClassNameError
        Several classes have the name, as two of ImageNet's are called crane.
    """
    for agrees in (str.__eq__, fits):
        found = [label for label, known in enumerate(classes) if agrees(name, known)]
        if len(found) > 1:
            raise ClassNameError(
                f'"{name}" is the name of {len(found)} of the network\'s classes, numbers '
                f"{', '.join(map(str, found[:4]))}. Give the number in its place."
            )
        if found:
            return found[0]
    return None


def _look_up(name: str, classes: Sequence[str]) -> int:
    """The class that a folder is named after: its name, one of its synonyms, or its number."""
    if (found := class_named(name, classes)) is not None:
        return found
    match = _PREFIX.fullmatch(name)
    if match and int(match[1]) < len(classes) and (match[2] is None or fits(match[2], classes[int(match[1])])):
        return int(match[1])
    raise ClassNameError(
        f'the class folder "{name}" is none of the network\'s {len(classes)} classes. '
        f"Nearest: {nearest(name, classes)}. Rename the folder, or name it after the class's number. Where the folders "
        "are no classes, put the pictures into one folder without subfolders; then they have no labels."
    )


def fits(name: str | None, known: str) -> bool:
    """Whether a name matches a class or one of its comma-separated synonyms; case and separators do not matter."""
    return name is not None and _plain(name) in {_plain(part) for part in (known, *known.split(","))}


def _plain(name: str) -> str:
    return re.sub(r"[\W_]+", " ", name).strip().casefold()
