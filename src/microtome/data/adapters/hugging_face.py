"""A Hugging Face data set, read row by row through its image and label columns."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from torch import Tensor

from microtome import inputs
from microtome.data.adapters.image_values import as_image
from microtome.data.adapters.items import IMAGE_KEYS, LABEL_KEYS
from microtome.errors import InputError

__all__ = ["HuggingFace", "hugging_face"]


class Table(Protocol):
    """The part of ``datasets.Dataset`` that is used."""

    column_names: list[str]
    features: Any

    def __len__(self) -> int: ...

    def __getitem__(self, index: Any, /) -> Any: ...


class HuggingFace:
    """A table's image column, and its label column if there is one, as a map-style data set.

    Made by :func:`hugging_face`.
    """

    def __init__(
        self,
        table: Table,
        input_shape: tuple[int, int, int],
        image: str,
        label: str | None,
        classes: Sequence[str] | None,
    ) -> None:
        self.table = table
        self.shape = inputs.shape(input_shape)
        self.columns = (image, label)
        self.classes = None if classes is None else tuple(classes)
        self.source = "Hugging Face data set"

    def __len__(self) -> int:
        return len(self.table)

    def __getitem__(self, index: int) -> tuple[Tensor, Any] | Tensor:
        row = self.table[index]
        image, label = self.columns
        found = as_image(row[image], f"row {index}", input_shape=self.shape)
        return found if label is None else (found, row[label])

    @property
    def targets(self) -> list[Any] | None:
        """The label column, read without decoding pictures; None if there is none."""
        label = self.columns[1]
        return None if label is None else list(self.table[label])


def hugging_face(
    table: Table, input_shape: tuple[int, int, int], *, image: str | None = None, label: str | None = None
) -> HuggingFace:
    """Read a ``datasets.Dataset`` (one split, not a stream).

    Parameters
    ----------
    table
        The data set.
    input_shape
        Channels, height and width of the network; pictures are fitted to it as those of a folder are.
    image, label
        The columns; by default ``image`` (or ``img``, ``pixel_values``, ...) and ``label`` (or ``labels``,
        ``fine_label``, ...), the label only if it is there.

    Returns
    -------
    HuggingFace
        With ``classes`` taken from the label column's ``ClassLabel`` feature.

    Raises
    ------
    InputError
        The table is a dictionary of splits or a stream, or has no such column.
    """
    if not hasattr(table, "column_names") or isinstance(table, dict) or not hasattr(table, "__getitem__"):
        raise InputError(
            f"one split of a Hugging Face data set is expected, got {type(table).__name__}; "
            'choose one, as in load_dataset(name, split="test").'
        )
    columns = list(table.column_names)
    chosen = _column(columns, image, IMAGE_KEYS)
    if chosen is None:
        raise InputError(f"the data set has no image column among {', '.join(columns)}; name it with image=.")
    labelled = _column(columns, label, LABEL_KEYS)
    names = getattr(table.features.get(labelled), "names", None) if labelled else None
    return HuggingFace(table, input_shape, chosen, labelled, names)


def _column(columns: Sequence[str], chosen: str | None, usual: Sequence[str]) -> str | None:
    if chosen is not None and chosen not in columns:
        raise InputError(f'the data set has no column "{chosen}"; it has {", ".join(columns)}.')
    return chosen or next((name for name in usual if name in columns), None)
