"""Tensors in nested lists, tuples, dicts and dataclasses: find them, and exchange some."""

from __future__ import annotations

import copy
import operator
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor


def first_tensor(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    """The first tensor among the arguments (lists looked into)."""
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor):
            return value
        if isinstance(value, list | tuple):
            for item in value:
                if isinstance(item, Tensor):
                    return item
    return torch.empty(0, dtype=torch.float32, device="cpu")


def tensors(tree: Any) -> list[Tensor]:
    """All tensors in nested lists, tuples, dicts and dataclasses, in order."""
    if isinstance(tree, Tensor):
        return [tree]
    found: list[Tensor] = []
    _gather((tree,), found)
    return found


PLAIN = frozenset((int, float, bool, str, type(None), slice, torch.dtype, torch.device))  # most arguments


def _gather(items: Iterable[Any], found: list[Tensor]) -> None:
    for item in items:
        if type(item) in PLAIN:
            continue
        if isinstance(item, Tensor):
            found.append(item)
        elif isinstance(item, list | tuple):
            if not PLAIN.issuperset(map(type, item)):
                _gather(item, found)
        elif isinstance(item, dict):
            if item:
                _gather(item.values(), found)
        elif hasattr(item, "__dataclass_fields__") and not isinstance(item, type):
            _gather([getattr(item, name, None) for name in item.__dataclass_fields__], found)


def substitute(tree: Any, replacements: dict[int, Tensor]) -> Any:
    """The same nest with some tensors (by id) exchanged.

    Every part keeps its class: named tuples, torch's own (``topk(...)``), model outputs that are dicts, dataclasses.
    A part in which nothing is exchanged is the part itself.
    """
    if isinstance(tree, Tensor):
        return replacements.get(id(tree), tree)
    if type(tree) in PLAIN:
        return tree
    if isinstance(tree, list | tuple):
        items = [item if type(item) in PLAIN else substitute(item, replacements) for item in tree]
        if all(map(operator.is_, items, tree)):
            return tree
        if isinstance(tree, tuple):
            return type(tree)(*items) if hasattr(tree, "_fields") else type(tree)(items)
        changed = copy.copy(tree)
        changed[:] = items
        return changed
    if isinstance(tree, dict):
        if not tree:
            return tree
        found = {key: substitute(item, replacements) for key, item in tree.items()}
        new = {key: item for key, item in found.items() if item is not dict.__getitem__(tree, key)}
        if not new:
            return tree
        again = copy.copy(tree)
        for key, item in new.items():
            again[key] = item
        return again
    if hasattr(tree, "__dataclass_fields__") and not isinstance(tree, type):
        values = {name: getattr(tree, name, None) for name in tree.__dataclass_fields__}
        exchanged = {name: substitute(value, replacements) for name, value in values.items()}
        if all(exchanged[name] is value for name, value in values.items()):
            return tree
        other = copy.copy(tree)
        for name, value in exchanged.items():
            object.__setattr__(other, name, value)  # also where the class is frozen
        return other
    return tree
