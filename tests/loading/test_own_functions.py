"""Is a function of the user's own found by its file, run once, and are mistakes told?"""

from __future__ import annotations

from pathlib import Path

import pytest

from microtome.errors import InputError
from microtome.loading.own_functions import own_function


def test_a_function_is_found_by_its_file_and_the_file_runs_once(tmp_path: Path) -> None:
    for folder, number in (("a", 1), ("b", 2)):  # two files of one name
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(f"def f(net, images, target):\n    return {number}\n")
    one, two = (own_function(f"{tmp_path / folder / 'mine.py'}:f") for folder in "ab")
    assert (one(0, 0, 0), two(0, 0, 0)) == (1, 2)
    assert own_function(f"{tmp_path / 'a' / 'mine.py'}:f") is one


def test_a_function_is_found_by_its_module() -> None:
    assert own_function("os.path:join")("a", "b") == "a/b"


@pytest.mark.parametrize(
    ("text", "name", "told"),
    [
        ("", "mine.py", "was expected, got"),
        (None, "mine.py:f", "there is no file"),
        ("def brightness(a): ...", "mine.py:brightnes", "Nearest: brightness"),
        ("x = 1", "mine.py:x", "a function was expected; "),
        ("1 / 0", "mine.py:f", "raises ZeroDivisionError"),
        ("", "no_such_module_here:f", "there is no Python module"),
    ],
)
def test_mistakes_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str | None, name: str, told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    if text is not None:
        Path("mine.py").write_text(text)
    with pytest.raises(InputError, match=told):
        own_function(name)
