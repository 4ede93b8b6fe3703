"""Are files found by their names? No folder is crowded, no name stands twice, and the design names files that exist."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = ROOT / "src" / "microtome"
FILES = [path for path in SOURCES.rglob("*.py") if path.name != "__init__.py"]
QUESTIONS = re.findall(
    r"^\| (.+\?) \| (.+) \|$", (ROOT / "docs" / "design.md").read_text(encoding="utf-8"), re.MULTILINE
)


def test_no_name_of_a_file_stands_twice() -> None:
    twice = [name for name, count in Counter(path.name for path in FILES).items() if count > 1]
    assert not twice


def test_no_folder_holds_more_than_a_dozen_files() -> None:
    crowded = {str(path): count for path, count in Counter(path.parent for path in FILES).items() if count > 12}
    assert not crowded


def test_twenty_questions_are_asked() -> None:
    assert len(QUESTIONS) >= 20


@pytest.mark.parametrize(("question", "answer"), QUESTIONS)
def test_a_question_is_answered_by_a_file_that_exists(question: str, answer: str) -> None:
    files = re.findall(r"`([^`]+)`", answer)
    assert files
    assert not [file for file in files if not (SOURCES / file).is_file()]


def test_no_file_is_longer_than_400_lines() -> None:
    files = [*SOURCES.rglob("*.py"), *(ROOT / "tests").rglob("*.py")]
    long = {str(path): count for path in files if (count := path.read_text(encoding="utf-8").count("\n")) > 400}
    assert not long
