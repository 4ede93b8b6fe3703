"""The command lines on pages work as they stand: each is taken from a built site and given to the shell."""

from __future__ import annotations

import dataclasses
import html
import re
import shlex
import sys
from pathlib import Path

import pytest

from atlas import small
from microtome.atlas import build
from microtome.atlas.commands import Commands
from microtome.cli.main import app, run
from microtome.loading import RunConfig

TINY = small.TINY


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("commands")
    small.write(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(sys, "path", list(sys.path))
        sys.modules.pop("nets", None)
        for name, out in (("build", "site"), ("averaged", "averaged")):
            recipe = RunConfig(f"nets:{name}", input_shape=(1, 12, 10), data="images")
            build(recipe, out, size=dataclasses.replace(TINY, images=3 if name == "build" else 1), engine="inline")
    return folder


def commands(site: Path) -> dict[str, list[list[str]]]:
    """The tokens of every command line on the pages, by subcommand."""
    found: dict[str, dict[str, list[str]]] = {}
    for page in sorted(site.rglob("*.html")):
        for text in re.findall(r"<dd><code>(microtome [^<]+)</code>", page.read_text()):
            tokens = shlex.split(html.unescape(text))[1:]
            found.setdefault(tokens[0], {})[text] = tokens
    return {name: list(lines.values()) for name, lines in found.items()}


def test_every_command_line_is_understood(site: Path) -> None:
    found = commands(site)
    assert set(found) >= {"explain", "top-patches", "maximize", "dissect", "signal-space", "spectra", "tuning"}
    for lines in found.values():
        for tokens in lines:
            app.parse_args(tokens, exit_on_error=False, print_error=False)  # raises where the shell would say no


def test_one_command_line_of_each_kind_makes_its_file(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(site)
    monkeypatch.setattr(sys, "path", list(sys.path))
    lines = commands(site)
    every = [made[0] for name, made in lines.items() if name != "explain"]
    methods = {tokens[tokens.index("--method") + 1]: tokens for tokens in lines["explain"]}
    assert len(methods) >= 12
    for tokens in (*every, *methods.values()):
        made = Path(tokens[tokens.index("-o") + 1])
        assert run(tokens) == 0, tokens
        assert made.stat().st_size > 0
        made.unlink()


def test_the_maps_of_an_image_are_made_again_from_that_image(site: Path) -> None:
    pages = sorted((site / "site" / "images").glob("*.html"))
    assert len(pages) == 3
    for page in pages:
        text = page.read_text()
        name = re.search(r'<span aria-current="page">([^<]+)</span>', text)
        lines = re.findall(r"<code>(microtome explain [^<]+)</code>", text)
        asked = {shlex.split(html.unescape(line))[2] for line in lines}
        assert name
        assert len(asked) == 1
        assert name[1] in asked.pop()


def test_an_image_of_a_named_data_set_is_named_by_its_number(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line on its page makes the map of that image."""
    monkeypatch.chdir(tmp_path)
    build(RunConfig("zoo:fcnn1", data="digits"), "site", size=dataclasses.replace(TINY, images=1), engine="inline")
    page = next(Path("site/images").glob("*.html")).read_text()
    number = int(page.partition('<span aria-current="page">image ')[2].partition("<")[0])
    line = html.unescape(page.partition("<code>microtome explain ")[2].partition("</code>")[0])
    assert run(["explain", *shlex.split(line)]) == 0
    assert f"digits:{number}: says " in capsys.readouterr().out


def test_an_atlas_of_a_network_given_as_an_object_names_no_command() -> None:
    assert Commands({}).line("spectra", to="a.png") == ""
    assert Commands({}).atlas(budget="full") == ""


def test_a_value_with_blanks_stays_one_value() -> None:
    """Options are never joined and split again: what looks like another option is a value."""
    options = {"model": "nets:build", "weights": "my weights --data old.pt", "data": "a b", "out": "FOLDER"}
    made = Commands(options)
    assert shlex.split(made.line("spectra", to="x.png"))[2:6] == [
        "--model", "nets:build", "--weights", "my weights --data old.pt"
    ]  # fmt: skip
    assert made.data == "a b"
    assert shlex.split(made.atlas())[2::2] == ["--model", "--weights", "--data", "--out"]
