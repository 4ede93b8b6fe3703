"""Reads the statements and values of the documents: one table for each document, in ``documents/``."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache
from importlib import resources

from microtome.errors import InputError, nearest

__all__ = ["DOCUMENTS", "Document", "Statement", "document"]

COLUMNS = ("id", "place", "statement", "value", "how")

# Name of the table: title, and what the document is.
DOCUMENTS = {
    "vector-spaces": (
        "Understanding neural networks using vector spaces",
        "A paper that models layers as maps between signal spaces (Pattichis and Pattichis, 2024).",
    ),
    "dissecting-a-convnet": (
        "Dissecting a ConvNet",
        "An article that takes a small network apart, filter by filter, until its answer is explained.",
    ),
    "visualization-lecture": (
        "Visualization of neural networks",
        "A lecture on visualising networks, from filters to loss surfaces (Walter, Institut Curie).",
    ),
    "explaining-lecture": (
        "Explaining neural networks",
        "A lecture on visualization, the information plane and deep Taylor decomposition (Artemov, MLHEP 2018).",
    ),
}


@dataclass(frozen=True)
class Statement:
    """One statement or number of a document.

    Attributes
    ----------
    id : str
        Name within the document.
    place : str
        Section or heading of the document.
    statement : str
        What the document says.
    value : str
        The number or answer in the document; empty if it gives none.
    how : str
        How Microtome computes it.
    """

    id: str
    place: str
    statement: str
    value: str
    how: str


@dataclass(frozen=True)
class Document:
    """A document with its statements by name, in their order."""

    name: str
    title: str
    about: str
    statements: dict[str, Statement]

    def __getitem__(self, name: str) -> Statement:
        """A statement by its name."""
        if name not in self.statements:
            raise InputError(f'{self.name} has no statement "{name}". Nearest: {nearest(name, [*self.statements])}.')
        return self.statements[name]


@cache
def document(name: str) -> Document:
    """Read the table of a document.

    Parameters
    ----------
    name : str
        One of ``DOCUMENTS``.

    Raises
    ------
    InputError
        There is no such document, or its table is damaged: another head, a row that is too short, a name twice.

    Examples
    --------
    >>> document("vector-spaces")["one-layer-condition"].value
    '7.22'
    """
    if name not in DOCUMENTS:
        raise InputError(f'there is no document "{name}". Nearest: {nearest(name, [*DOCUMENTS])}.')
    title, about = DOCUMENTS[name]
    text = resources.files("microtome.reproduce").joinpath("documents", f"{name}.csv").read_text(encoding="utf-8")
    return Document(name, title, about, read(text, name))


def read(text: str, name: str) -> dict[str, Statement]:
    """Statements from the text of a table; the first line names the columns."""
    head, *rows = csv.reader(text.splitlines())
    if tuple(head) != COLUMNS:
        raise InputError(f"the table of {name} begins with {', '.join(COLUMNS)}; got {', '.join(head)}.")
    found: dict[str, Statement] = {}
    for number, row in enumerate(rows, start=2):
        if len(row) != len(COLUMNS) or not all((row[0], row[1], row[2], row[4])):
            raise InputError(
                f"line {number} of the table of {name} needs {', '.join(COLUMNS)}; only the value may be empty."
            )
        one = Statement(*row)
        if one.id in found:
            raise InputError(f'line {number} of the table of {name} repeats the name "{one.id}".')
        found[one.id] = one
    return found
