"""Does the README's tour run as it stands?"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

README = Path(__file__).parents[1] / "README.md"


def test_the_tour_runs() -> None:
    """All Python blocks, one after the other, in one namespace; the figures and numbers are really made."""
    blocks = re.findall(r"```python\n(.*?)```", README.read_text(), flags=re.DOTALL)
    assert len(blocks) == 2
    names: dict[str, Any] = {}
    for block in blocks:
        exec(compile(block, "README.md", "exec"), names)
    assert names["net"].layers["conv2"].units == 64
    assert names["top"]["conv2"].activation.shape == (64, 9)
    assert names["s"].rank == 10


def test_links_to_files_resolve() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README.read_text()):
        assert target.startswith("http") or (README.parent / target).exists(), target
