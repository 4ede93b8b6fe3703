"""Does a run without a terminal say now and then how far it is?"""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from microtome.atlas.task import Task
from microtome.cli import progress_line as progress


def test_lines_without_a_terminal_come_now_and_then_with_the_time_that_is_left(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    written = io.StringIO()
    task = Task("walk", {}, (), 1.0, "a")
    with progress.Bar(Console(file=written)) as bar:
        bar.stage("units", 5, 4, 4.0)
        for _ in range(4):
            clock[0] += 20
            bar.done(task, 20.0)
    assert written.getvalue().splitlines() == [
        "units: 4 of 5 results to make",
        "3 of 5 results, about 40 s remain",
        "5 of 5 results, about 0 s remain",
    ]
