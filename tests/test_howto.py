"""Every how-to page is run: its Python blocks in order, in one namespace. Each example is short."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path

import pytest

from microtome import registry
from microtome.results import Result

PAGES = sorted((Path(__file__).parents[1] / "docs" / "howto").glob("*.md"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_example_runs(page: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```$", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)
    assert blocks
    assert max(len(block.splitlines()) for block in blocks) < 40
    known, kinds = registry.methods(), dict(Result.kinds)  # all folders are imported before
    module = types.ModuleType(f"howto_{page.stem}")
    sys.modules[module.__name__] = module  # where dataclasses look up their annotations
    try:
        for block in blocks:
            exec(compile(block, str(page), "exec"), vars(module))
    finally:
        del sys.modules[module.__name__]
        registry._METHODS.clear()
        registry._METHODS.update(known)
        Result.kinds.clear()
        Result.kinds.update(kinds)
