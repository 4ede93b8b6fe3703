"""Are a method's line and paper words that a person can read, wherever they are shown?"""

from __future__ import annotations

import pytest

from microtome import registry


@pytest.mark.parametrize("name", registry.methods())
def test_summary_and_paper_are_plain_text(name: str) -> None:
    method = registry.method(name)
    for text in (method.summary, method.reference):
        assert " " in text
        assert not any(mark in text for mark in ("`", "]_", ":math:", ".. ["))
