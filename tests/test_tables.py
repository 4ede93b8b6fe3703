"""Does a table say what its numbers are, in a terminal, in a notebook, and nowhere else?"""

from __future__ import annotations

import inspect
import json

import pytest

from microtome import registry
from microtome.cli.output import tell_table
from microtome.results import Result
from microtome.tables import Table, in_lines

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


def test_columns_that_do_not_fit_follow_below_with_the_columns_that_name_the_rows() -> None:
    rows = tuple((layer, unit, 0.25, 0.5, 0.125, "blob") for layer in ("conv1", "conv2") for unit in range(2))
    table = Table(("layer", "unit", "kernel", "variation", "variation ±", "label"), rows, "A note " * 9)
    assert table.text(200) == str(table)
    blocks = [block.splitlines() for block in table.text(40).split("\n\n")]
    assert [block[0].split() for block in blocks] == [
        ["layer", "unit", "kernel"],
        ["layer", "unit", "variation", "variation", "±"],  # an error stands beside its measure
        ["layer", "unit", "label"],
    ]
    assert all(len(line) <= 40 for block in blocks for line in block)
    assert all(block[3].split()[:2] == ["conv2", "0"] for block in blocks)


def test_a_column_that_is_wider_than_the_terminal_is_wrapped_in_its_own_place() -> None:
    table = Table(("layer", "why"), (("relu", "it gives zero for every negative value"), ("head", "linear")))
    assert table.text(28).splitlines() == [
        "layer  why",
        "relu   it gives zero for",
        "       every negative value",
        "head   linear",
    ]
    assert table[0]["why"] == "it gives zero for every negative value"


@pytest.mark.parametrize("width", [None, 20, 40])
def test_prose_keeps_its_words_and_numbers_keep_their_units(width: int | None) -> None:
    text = "gives 52 % of it, in /a/path/that/is/longer/than/lines.png, 12.5 MB\n  indented: 3 px and 90 ms of it all"
    shown = in_lines(text, width)
    assert shown.split() == text.split()
    for part in ("52 %", "12.5 MB", "3 px", "90 ms", "/a/path/that/is/longer/than/lines.png"):
        assert part in shown
    if width is not None:
        assert all(len(line) <= width or "/a/path" in line for line in shown.splitlines())
