"""Every executed page of the documentation is run from its first line to its last; its own assertions hold."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import Any

import pytest
from matplotlib.figure import Figure

EXAMPLES = Path(__file__).parents[2] / "examples"
PAGES = sorted(EXAMPLES.glob("stories/*.py")) + sorted(EXAMPLES.glob("questions/*.py"))
QUICK = ("02_why_this_class", "08_where_does_it_bend")  # they share one training
LIMITS = ("**What does not hold.**", "What it cannot show")


def blocks(page: Path) -> list[str]:
    """The blocks of code between the marks of a cell."""
    return re.split(r"^# %%.*$", page.read_text(encoding="utf-8"), flags=re.MULTILINE)


def execute(page: Path) -> list[Any]:
    """What each block ends with, as a notebook would show it; one namespace for all."""
    shown, names = [], {"__name__": "__main__"}
    for block in blocks(page):
        tree = ast.parse(block)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        exec(compile(tree, str(page), "exec"), names)
        if isinstance(last, ast.Expr):
            shown.append(eval(compile(ast.Expression(last.value), str(page), "eval"), names))
    return shown


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder in which trainings are found again."""
    return tmp_path_factory.mktemp("runs")


@pytest.mark.parametrize(
    "page", [pytest.param(page, id=page.stem, marks=[] if page.stem in QUICK else pytest.mark.slow) for page in PAGES]
)
def test_a_page_runs(page: Path, runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(runs)
    pictures = [value for value in execute(page) if isinstance(value, Figure)]
    assert len(pictures) >= 2
    for figure in pictures:
        figure.draw_without_rendering()


def test_the_pages_are_all_there() -> None:
    """Eleven stories and nine questions."""
    assert [sum(page.parent.name == folder for page in PAGES) for folder in ("stories", "questions")] == [11, 9]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_a_page_says_what_does_not_hold(page: Path) -> None:
    """It has a title and says its limits, and every figure is the last line of its block, where it is shown."""
    source = page.read_text(encoding="utf-8")
    compile(source, str(page), "exec")
    title = ast.get_docstring(ast.parse(source)) or ""
    assert re.match(r".+\n=+\n", title)
    assert any(mark in source for mark in LIMITS)
    for block in blocks(page)[1:]:
        tree = ast.parse(block)
        for statement in tree.body[:-1]:
            assert not (isinstance(statement, ast.Expr) and ".plot(" in ast.unparse(statement)), ast.unparse(statement)


def test_links_between_pages_resolve() -> None:
    """Sphinx checks them, too; here a page that was renamed is found in a second."""
    folders = {"stories": "examples", "questions": "questions"}
    names = {f"/{folders[page.parent.name]}/{page.stem}" for page in PAGES}
    for page in PAGES:
        for target in re.findall(r":doc:`((?:/examples/|/questions/)?\d\d_\w+)`", page.read_text(encoding="utf-8")):
            full = target if target.startswith("/") else f"/{folders[page.parent.name]}/{target}"
            assert full in names, (page.name, target)
