"""Tables of numbers and text: printed in a terminal, shown in a notebook, read as rows by column name."""

from __future__ import annotations

import html
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

__all__ = ["Table", "aligned"]

_WIDTH = 110


@dataclass(frozen=True)
class Table(Sequence[dict[str, Any]]):
    """Rows under named columns; what every ``.table()`` returns.

    ``table[2]["label"]`` is a cell, ``len(table)`` the number of rows, ``str(table)`` the text.

    Attributes
    ----------
    columns : tuple of str
    rows : tuple of tuple
    note : str
        What the columns hold and their units, in plain sentences; printed below the rows.

    Examples
    --------
    >>> table = Table(("unit", "label"), ((0, "line at 45°"), (1, "blob")), "label: what the unit responds to most.")
    >>> print(table)
    unit  label
    0     line at 45°
    1     blob
    label: what the unit responds to most.
    >>> table[1], [row["unit"] for row in table]
    ({'unit': 1, 'label': 'blob'}, [0, 1])
    """

    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    note: str = ""

    @classmethod
    def of(cls, records: Sequence[Mapping[str, Any]], note: str = "") -> Table:
        """A table of rows by column name; missing cells are empty.

        Examples
        --------
        >>> print(Table.of([{"method": "lrp", "area": 0.25}]))
        method  area
        lrp     0.25
        """
        columns = tuple(dict.fromkeys(name for record in records for name in record))
        return cls(columns, tuple(tuple(record.get(name, "") for name in columns) for record in records), note)

    def __len__(self) -> int:
        return len(self.rows)

    @overload
    def __getitem__(self, index: int) -> dict[str, Any]: ...

    @overload
    def __getitem__(self, index: slice) -> Table: ...

    def __getitem__(self, index: int | slice) -> dict[str, Any] | Table:
        if isinstance(index, slice):
            return Table(self.columns, self.rows[index], self.note)
        return dict(zip(self.columns, self.rows[index], strict=True))

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return (dict(zip(self.columns, row, strict=True)) for row in self.rows)

    def __str__(self) -> str:
        """Columns padded to a common width, and the note in lines of at most 110 characters."""
        return "\n".join([aligned([self.columns, *self.rows]), *textwrap.wrap(self.note, _WIDTH)])

    __repr__ = __str__

    def _repr_html_(self) -> str:
        head = "".join(f"<th>{html.escape(name)}</th>" for name in self.columns)
        body = "".join(
            "<tr>" + "".join(f"<td>{html.escape(_text(value))}</td>" for value in row) + "</tr>" for row in self.rows
        )
        below = f"<p>{html.escape(self.note)}</p>" if self.note else ""
        return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>{below}"


def aligned(rows: Sequence[Sequence[Any]]) -> str:
    """Rows of cells as lines of text, columns padded to a common width.

    Examples
    --------
    >>> print(aligned([("layer", "units"), ("conv1", 32)]))
    layer  units
    conv1  32
    """
    cells = [[_text(value) for value in row] for row in rows]
    widths = [max(len(row[index]) for row in cells) for index in range(len(cells[0]) if cells else 0)]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)
    return "\n".join(lines)


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}"
    return str(value)
