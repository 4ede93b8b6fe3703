"""Are the messages on the page of errors those that the library gives?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from microtome import errors

PAGE = (Path(__file__).parents[2] / "docs" / "errors.md").read_text(encoding="utf-8")
SHOWN = re.findall(r"^```python\n([^`]*?)^```\n\n```text\n(.*?)\n```$", PAGE, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def names() -> dict[str, Any]:
    """What the first block of the page defines."""
    found: dict[str, Any] = {}
    setup = re.search(r"^```python\n(import.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    assert setup
    exec(setup[1], found)
    return found


def test_there_are_examples() -> None:
    assert len(SHOWN) >= 6


@pytest.mark.parametrize(("code", "message"), SHOWN)
def test_a_message_is_the_librarys(code: str, message: str, names: dict[str, Any]) -> None:
    with pytest.raises(errors.MicrotomeError) as raised:
        exec(code, names)
    assert f"{type(raised.value).__name__}: {raised.value}".split() == message.split()


def test_every_error_and_warning_is_explained() -> None:
    classes = [
        each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, Exception | Warning)
    ]
    assert len(classes) >= 10
    for each in classes:
        assert f"`{each.__name__}`" in PAGE
