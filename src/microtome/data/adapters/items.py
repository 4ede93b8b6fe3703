"""Image and label of one item of a data set: a pair, a dict, a named tuple, a dataclass, or an image alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from microtome.data.adapters.class_labels import class_index
from microtome.errors import InputError

__all__ = ["IMAGE_KEYS", "LABEL_KEYS", "second_counts", "split"]

IMAGE_KEYS = ("image", "img", "pixel_values", "picture", "photo", "x", "input", "data", "jpg", "jpeg", "png", "webp")
LABEL_KEYS = ("label", "labels", "fine_label", "target", "targets", "class", "class_id", "category", "y", "cls")


def split(item: Any, what: str, place: int = 1) -> tuple[Any, Any]:
    """The image of an item, and its label or None; the label of a plain tuple is at a place.

    Examples
    --------
    >>> split(("picture", 3), "item 0"), split({"Image": "picture", "target": 3}, "item 0"), split("picture", "item 0")
    (('picture', 3), ('picture', 3), ('picture', None))

    Raises
    ------
    InputError
        A dict has no key that means the image.
    """
    fields = _fields(item)
    if fields is not None:
        return _by_key(fields, what)
    if isinstance(item, tuple | list) and item:
        image, label = item[0], item[place] if len(item) > place else None
        return (image[0] if isinstance(image, tuple | list) and image else image), label
    return item, None


def second_counts(item: Any, index: int) -> bool:
    """Whether the second part of a plain item is its own index, and another integer follows.

    Examples
    --------
    >>> second_counts(("picture", 7, 2), 7), second_counts(("picture", 2, 7), 7), second_counts(("picture", 7), 7)
    (True, False, False)
    """
    plain = isinstance(item, tuple | list) and len(item) > 2 and _fields(item) is None
    return plain and _whole(item[1]) == index and _whole(item[2]) is not None


def _whole(value: Any) -> int | None:
    found = class_index(value)
    return None if isinstance(value, str) or isinstance(found, str) or found < 0 else found


def _fields(item: Any) -> Mapping[str, Any] | None:
    """The item by the names of its parts, if the parts have names."""
    if isinstance(item, Mapping):
        return {str(key): value for key, value in item.items()}
    if dataclasses.is_dataclass(item) and not isinstance(item, type | Tensor):
        return {entry.name: getattr(item, entry.name) for entry in dataclasses.fields(item)}
    if isinstance(item, tuple) and hasattr(item, "_fields"):
        named = dict(zip(item._fields, item, strict=True))
        # A named tuple with other names is read by position, as a plain one.
        return named if _first(named, IMAGE_KEYS) is not None else None
    return None


def _by_key(fields: Mapping[str, Any], what: str) -> tuple[Any, Any]:
    image, label = _first(fields, IMAGE_KEYS), _first(fields, LABEL_KEYS)
    if image is None:
        raise InputError(
            f"{what} has the keys {', '.join(map(repr, fields)) or 'of nothing'}; its image is looked for under "
            f"{', '.join(IMAGE_KEYS)}. Rename the key, give pairs (image, label), or open a Hugging Face data set with "
            "microtome.data.hugging_face(table, input_shape, image=..., label=...)."
        )
    return fields[image], None if label is None else fields[label]


def _first(fields: Mapping[str, Any], keys: tuple[str, ...]) -> str | None:
    """The first of the usual keys that exists; case does not matter."""
    folded = {name.casefold(): name for name in fields}
    return next((folded[key] for key in keys if key in folded), None)
