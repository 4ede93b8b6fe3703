"""Every command of the pages for new users is given as it is written, in a folder as the page describes it."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from microtome.cli.main import run

START = Path(__file__).parents[2] / "docs" / "start"
MADE = {  # what each page promises to have written
    "pathologist": ["grading.pt", "maps.png", "atlas/index.html", "share.png"],
    "teacher": ["digits.pt", "sheet.png", "dreams.png", "why.png"],
    "engineer": ["checkpoint.pt", "path.png"],
}


def photos(folder: Path) -> None:
    """Six noisy photos of each of four colours, and masks of a corner for two."""
    generator = torch.Generator().manual_seed(0)
    for place, name in enumerate(("normal", "low grade", "high grade", "carcinoma")):
        for index in range(1, 7):
            pixels = 60 * place + torch.randint(0, 60, (48, 48, 3), generator=generator)
            path = folder / "photos" / name / f"{index:03d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels.to(torch.uint8).numpy()).save(path)
    mask = torch.zeros(48, 48, dtype=torch.uint8)
    mask[:8, :8] = 255
    (folder / "masks").mkdir()
    for index in (1, 2):
        Image.fromarray(mask.numpy()).save(folder / "masks" / f"{index:03d}.png")


def give(command: str, folder: Path) -> int:
    """The exit code of one command."""
    program, *words = shlex.split(command)
    if program == "microtome":
        return run(words)
    assert program == "python"
    return subprocess.run([sys.executable, *words], cwd=folder, check=False).returncode


@pytest.mark.parametrize(
    "name",
    ["engineer", pytest.param("pathologist", marks=pytest.mark.slow), pytest.param("teacher", marks=pytest.mark.slow)],
)
def test_every_command_does_what_the_page_says(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    page = (START / f"{name}.md").read_text(encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    photos(tmp_path)
    for file, code in re.findall(r"^```python\n# file: (\S+)\n(.*?)^```$", page, re.MULTILINE | re.DOTALL):
        (tmp_path / file).write_text(code, encoding="utf-8")
    if name == "engineer":  # the schemas that let timm be imported beside a torch for processors
        monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[1]))
        script = tmp_path / "look.py"
        script.write_text(
            "from oracles import torchvision_schemas\ntorchvision_schemas.define()\n"
            + script.read_text(encoding="utf-8"),
            encoding="utf-8",
        )
    commands = [
        line
        for block in re.findall(r"^```bash\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(commands) >= 4
    for command in commands:
        assert give(command, tmp_path) == 0, (command, capsys.readouterr().err)
    for made in MADE[name]:
        assert (tmp_path / made).exists(), made


@pytest.mark.parametrize("name", MADE)
def test_pages_end_with_where_to_go(name: str) -> None:
    page = (START / f"{name}.md").read_text(encoding="utf-8")
    for target in re.findall(r"\]\((\.\./[^)#]+)\)", page):
        path = START / target
        source = START.parents[1] / "examples" / {"examples": "stories"}.get(path.parent.name, path.parent.name)
        assert path.exists() or (source / f"{path.name}.py").is_file(), target
