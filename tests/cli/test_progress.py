"""Does a run without a terminal say now and then how far it is?"""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from microtome.cli import progress_line as progress
from microtome.progress import Progress


def test_lines_without_a_terminal_come_now_and_then_with_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    written = io.StringIO()
    with progress.Bar(Console(file=written)) as bar:
        bar(Progress("units", 1, 5, 0.0, 80.0))
        for step in range(1, 5):
            clock[0] += 20
            bar(Progress("units", 1 + step, 5, 20.0 * step, 20.0 * (4 - step)))
    assert written.getvalue().splitlines() == [
        "units: 4 of 5 results to make, about 80 s",
        "3 of 5 results, about 40 s remain",
        "5 of 5 results",
    ]
