"""Does a table say what its numbers are, in a terminal, in a notebook, and nowhere else?"""

from __future__ import annotations

import inspect
import json

import pytest

from microtome import registry
from microtome.cli.output import tell_table
from microtome.results import Result
from microtome.tables import Table

NOTE = "angle: in degrees, " + "counted from the horizontal " * 5 + "<up>."


def test_the_note_is_printed_below_the_rows_in_short_lines() -> None:
    lines = str(Table(("unit", "angle"), ((0, 45.0),), NOTE)).splitlines()
    assert lines[:2] == ["unit  angle", "0     45"]
    assert " ".join(lines[2:]) == NOTE
    assert max(map(len, lines)) <= 110


def test_a_part_of_a_table_keeps_the_note() -> None:
    table = Table.of([{"unit": 0}, {"unit": 1}], NOTE)
    assert table[1:].note == NOTE
    assert [row["unit"] for row in table[1:]] == [1]


def test_a_notebook_shows_the_note_as_text() -> None:
    shown = Table(("unit",), ((0,),), NOTE)._repr_html_()
    assert shown.endswith("&lt;up&gt;.</p>")
    assert "<p>" not in Table(("unit",), ((0,),))._repr_html_()


def test_json_holds_rows_only(capsys: pytest.CaptureFixture[str]) -> None:
    tell_table(Table(("unit",), ((0,),), NOTE), as_json=True)
    assert json.loads(capsys.readouterr().out) == [{"unit": 0}]


def tabled() -> list[type]:
    """The kinds of results of methods that have a table."""
    registry.methods()
    kinds = [kind for kind in Result.kinds.values() if hasattr(kind, "table")]
    return [kind for kind in kinds if kind.__module__.startswith("microtome.") and ".reproduce." not in kind.__module__]


@pytest.mark.parametrize("kind", tabled(), ids=lambda kind: kind.__name__)
def test_the_table_of_every_result_says_what_its_numbers_are(kind: type) -> None:
    """Its module holds a note of whole sentences, which the table takes."""
    module = inspect.getmodule(kind)
    used = [name for name in ("_NOTE", "EIGENVALUES") if name in inspect.getsource(kind.table) or hasattr(module, name)]
    assert used, kind
    note = getattr(module, used[0])
    assert note.endswith(".")
    assert len(note) > 40
