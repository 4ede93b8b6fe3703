"""Tables of numbers and text: printed in a terminal, shown in a notebook, read as rows by column name."""

from __future__ import annotations

import html
import re
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, overload

__all__ = ["NO_BREAK", "NUMBER_AND_UNIT", "Table", "aligned", "in_lines"]

NO_BREAK = "\u00a0"
NUMBER_AND_UNIT = re.compile(r"(?<=\d) (?=%|(?:px|ms|s|MB|bits?|nats?|minutes|hours)\b)")
_WIDTH = 110  # of notes, where the terminal is wider
_GAP = 2  # blanks between columns
_NARROWEST = 16  # characters of a column that is wrapped
_MOST_NAMING = 3  # columns that name a row, such as layer, unit and rank


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
        return self.text()

    __repr__ = __str__

    def text(self, width: int | None = None) -> str:
        """The table and its note in lines of at most ``width`` characters; None for no limit of the table.

        Columns that do not fit beside the others follow below, each time behind the columns that name the rows.

        Examples
        --------
        >>> table = Table(("layer", "unit", "kernel", "variation"), (("conv1", 0, 0.5, 0.25), ("conv1", 1, 0.1, 2.0)))
        >>> print(table.text(24))
        layer  unit  kernel
        conv1  0     0.5
        conv1  1     0.1
        <BLANKLINE>
        layer  unit  variation
        conv1  0     0.25
        conv1  1     2
        """
        cells = [[_text(value) for value in row] for row in (self.columns, *self.rows)]
        blocks = [list(range(len(self.columns)))] if width is None else self._blocks(cells, width)
        parts = [_lines([[row[column] for column in block] for row in cells], width) for block in blocks]
        note = textwrap.wrap(self.note, _WIDTH if width is None else min(width, _WIDTH))
        return "\n".join(["\n\n".join(parts), *note])

    def _blocks(self, cells: list[list[str]], width: int) -> list[list[int]]:
        """The columns that stand side by side, each time with those that name the rows."""
        widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
        key = list(range(_naming(cells[1:])))
        room = width - sum(widths[column] + _GAP for column in key)
        blocks: list[list[int]] = []
        left = 0
        for group in self._groups(len(key)):
            needed = sum(widths[column] + _GAP for column in group) - _GAP
            if not blocks or needed > left:
                blocks.append([*key])
                left = room
            blocks[-1] += group
            left -= needed + _GAP
        return blocks or [key]

    def _groups(self, first: int) -> list[list[int]]:
        """Columns that belong together: a measure, and its error and p-value, whose names begin with its name."""
        groups: list[list[int]] = []
        for column in range(first, len(self.columns)):
            if groups and self.columns[column].startswith(f"{self.columns[groups[-1][0]]} "):
                groups[-1].append(column)
            else:
                groups.append([column])
        return groups

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
    return _lines([[_text(value) for value in row] for row in rows], None)


def in_lines(text: str, width: int | None, hang: int | None = None) -> str:
    """Text whose long lines are broken between words; their continuation is indented by ``hang`` characters.

    By default two more than the line itself. Words are never broken, so paths and commands stay whole; a number stays
    with its unit.

    Examples
    --------
    >>> print(in_lines("  two:5 gives -0.0179 of the amount above.", 24))
      two:5 gives -0.0179 of
        the amount above.
    """
    if width is None:
        return text
    lines: list[str] = []
    for line in NUMBER_AND_UNIT.sub(NO_BREAK, text).split("\n"):
        start = len(line) - len(line.lstrip())
        further = " " * (start + 2 if hang is None else hang)
        wrapped = textwrap.wrap(line, width, subsequent_indent=further, break_long_words=False, break_on_hyphens=False)
        lines += wrapped if len(line) > width else [line]
    return "\n".join(lines).replace(NO_BREAK, " ")


def _lines(cells: list[list[str]], width: int | None) -> str:
    """Cells as lines; if they are wider than ``width``, the last column is wrapped."""
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    before = sum(widths[:-1]) + _GAP * (len(widths) - 1)
    last = None if width is None or not widths else max(width - before, _NARROWEST)
    lines = []
    for row in cells:
        start = (" " * _GAP).join(cell.ljust(size) for cell, size in zip(row[:-1], widths, strict=False))
        for place, part in enumerate(_wrapped(row[-1], last) if row else [""]):
            lines.append((" " * before if place else f"{start}{' ' * _GAP if start else ''}") + part)
    return "\n".join(line.rstrip() for line in lines)


def _wrapped(text: str, width: int | None) -> list[str]:
    if width is None or len(text) <= width:
        return [text]
    return textwrap.wrap(text, width, break_on_hyphens=False)


def _naming(rows: list[list[str]]) -> int:
    """How many of the first columns name the rows: as few as distinguish them; one if they do not."""
    for count in range(1, _MOST_NAMING + 1):
        if len({tuple(row[:count]) for row in rows}) == len(rows):
            return count
    return 1


def _text(value: object) -> str:
    if value is None:
        return ""
    if isinstance(value, float):
        return "" if value != value else f"{value:.3g}"
    return str(value)
