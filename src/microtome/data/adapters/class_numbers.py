"""Maps class indices of a data set to those of the network, matched by class names."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import ConcatDataset, Subset

from microtome.data.adapters.class_labels import UNLABELLED
from microtome.data.adapters.naming import class_named, fits
from microtome.errors import ClassNameError, DataWarning

__all__ = ["ClassNumbers", "classes_by_name", "own_classes"]

_SHOWN = 3


def own_classes(dataset: Any) -> Sequence[str] | None:
    """The class names of a data set, also through subsets and concatenations; None if it has none.

    Examples
    --------
    >>> class Pets(list):
    ...     classes = ["cat", ("dog", "hound")]
    >>> own_classes(Subset(Pets([0, 1]), [1]))
    ['cat', 'dog, hound']
    """
    if isinstance(dataset, Subset):
        return own_classes(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        parts = [own_classes(part) for part in dataset.datasets]
        return parts[0] if all(part == parts[0] for part in parts) else None
    named = getattr(dataset, "classes", None)
    if not isinstance(named, list | tuple):
        return None
    return [", ".join(map(str, name)) if isinstance(name, list | tuple) else str(name) for name in named]


def classes_by_name(dataset: Any) -> bool:
    """Whether a class of the data set is one of a network only if it has its name, never by its place."""
    if isinstance(dataset, Subset):
        return classes_by_name(dataset.dataset)
    if isinstance(dataset, ConcatDataset):
        return any(classes_by_name(part) for part in dataset.datasets)
    return bool(getattr(dataset, "classes_by_name", False))


class ClassNumbers:
    """Translates labels of a data set into classes of a network.

    Parameters
    ----------
    own : sequence of str or None
        Names of the data set's classes.
    classes : sequence of str or None
        Names of the network's classes.
    count : int
        Number of classes of the network; 0 if unknown.
    by_name : bool
        Whether a class is the network's only if it has its name.
    """

    def __init__(
        self, own: Sequence[str] | None, classes: Sequence[str] | None, count: int, *, by_name: bool = False
    ) -> None:
        self.names = own if own is not None else classes
        self._count = count
        self._number: list[int | None] | None = None
        self._warned = by_name  # who opened the data set has said it
        if own is not None and by_name and (classes is not None or count):
            self._number = [_number_by_name(name, classes or ()) for name in own]
            return
        if own is not None and classes is None:
            self._compare(own)
        if own is None or classes is None or list(own) == list(classes):
            return
        found = [_number(place, name, classes) for place, name in enumerate(own)]
        if any(number is not None for number in found) or len(own) != len(classes):
            self._number = found
        else:  # names of another kind, such as WordNet's numbers
            warnings.warn(
                f"the data set's classes ({_listed(own)}) and the network's ({_listed(classes)}) have no name in "
                "common; label 0 is taken as the network's first class, and so on.",
                DataWarning,
                stacklevel=2,
            )

    def _compare(self, own: Sequence[str]) -> None:
        """Classes named by number are those of the network; otherwise the numbers of classes should agree."""
        numbers = {int(name) for name in own if name.isdecimal()}
        if len(numbers) == len(own) > 0 and max(numbers) < self._count:
            self._number = [int(name) for name in own]
        elif len(own) < self._count:
            warnings.warn(
                f"the data set has {len(own)} classes ({_listed(own)}), the network {self._count}, whose names are not "
                "known; label 0 is taken as the network's first class, and so on. Give Network(..., classes=).",
                DataWarning,
                stacklevel=3,
            )

    def of(self, label: int | str) -> int | str:
        """The network's class of a label of the data set, or why there is none."""
        if isinstance(label, str) or label == UNLABELLED:
            return label
        if self._number is not None:
            assert self.names is not None  # noqa: S101 - numbers are made from names
            known = label < len(self._number)
            found = self._number[label] if known else None
            name = f" ({self.names[label]})" if known else ""
            return (
                self.refused(f"label {label}{name}, which is none of the network's classes") if found is None else found
            )
        if self._count and label >= self._count:
            return self.refused(f"label {label}, while the network has {self._count} classes, 0 to {self._count - 1}")
        return label

    def refused(self, why: str) -> str:
        """Say once that the labels are no classes of the network; a method that needs these raises its own error."""
        if not self._warned:
            self._warned = True
            warnings.warn(
                f"the labels of the data set are not taken for the network's classes: it has {why}.",
                DataWarning,
                stacklevel=3,
            )
        return why

    def of_all(self, labels: Tensor | None) -> tuple[Tensor | None, list[int | str]]:
        """The same for a row of labels (n,), on the processor: None with the reasons if one of them has no class."""
        if labels is None:
            return None, []
        found = [self.of(label) for label in labels.tolist()]
        if any(isinstance(label, str) for label in found):
            return None, found
        return torch.tensor(found, dtype=torch.int64, device="cpu"), found


def _number(place: int, name: str, classes: Sequence[str]) -> int | None:
    tried = [name, *(part.strip() for part in name.split(","))]
    if place < len(classes) and any(fits(one, classes[place]) for one in tried):  # two classes may have one name
        return place
    return next((number for one in tried if (number := class_named(one, classes)) is not None), None)


def _number_by_name(name: str, classes: Sequence[str]) -> int | None:
    """The class with a name; None if none or several have it."""
    try:
        return class_named(name, classes)
    except ClassNameError:
        return None


def _listed(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", ..." if len(names) > _SHOWN else "")
