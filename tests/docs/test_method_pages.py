"""Pages of the methods: docutils, which shares no code with them, reads what the registry and the docstrings say."""

from __future__ import annotations

import ast
import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

from microtome import registry

nodes = pytest.importorskip("docutils.nodes", reason="pip install docutils")
ROOT = Path(__file__).parents[2]
REFERENCE = re.compile(r"^(\.\. \[\w+\] .+?)(?=\n *\.\. \[|\n *\n|\Z)", re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def method_pages() -> ModuleType:
    specification = importlib.util.spec_from_file_location("method_pages", ROOT / "docs/building/method_pages.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def read(text: str) -> nodes.document:
    from docutils.core import publish_doctree

    return publish_doctree(text, settings_overrides={"report_level": 5, "_disable_config": True})


@pytest.mark.parametrize("name", sorted(registry.methods()))
def test_every_fact_is_read_as_it_is_written(method_pages, name):
    method = registry.methods()[name]
    fields = read("Page\n====\n\nText.\n\n" + "\n".join(method_pages.facts(method))).findall(nodes.field)
    found = {field[0].astext(): field[1].astext() for field in fields}
    assert found["Source"] == method.reference
    assert found["Needs"] == (method.needs or "any network")


def references() -> list[str]:
    """The entries of the references of every docstring of the library."""
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef)
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in sorted((ROOT / "src").rglob("*.py"))]
    texts = [ast.get_docstring(one) for tree in trees for one in ast.walk(tree) if isinstance(one, documented)]
    return [entry for text in texts for entry in REFERENCE.findall(text or "")]


def test_every_reference_begins_with_its_first_author(method_pages):
    """``.. [1] M. Raghu, On ...`` on one line would be item M of a list: the page would show "Raghu, On ..."."""
    entries = references()
    assert len(entries) > 100
    for entry in entries:
        lines = entry.split("\n")
        method_pages.spare_initials(None, "function", "", None, None, lines)
        document = read("\n".join(lines))
        (cited,) = (*document.findall(nodes.footnote), *document.findall(nodes.citation))
        assert cited[1].astext().split()[0] == entry.replace("*", "").split()[2], entry


def test_a_page_uses_a_method_only_if_it_calls_it_by_its_folder(method_pages, tmp_path):
    """Functions of several folders have one name: ``compare``, ``evaluate``, ``invert``."""
    (tmp_path / "stories").mkdir()
    calls = "maps = attribution.compare(net)\nright = training.evaluate(model)\nplane = information.plane(net, run)\n"
    (tmp_path / "stories/01_first.py").write_text(calls)
    uses = method_pages.used_in(tmp_path)
    seen = {name for name, method in registry.methods().items() if method_pages.uses_of(method, uses)}
    assert seen == {"information-plane"}
    (use,) = method_pages.uses_of(registry.methods()["information-plane"], uses)
    assert use == ("examples/01_first", "plane = information.plane(net, run)")


def test_the_shortest_call_names_what_has_no_default(method_pages):
    call = method_pages.called("microtome.training.information.compare", registry.methods()["compare-planes"])
    assert call.splitlines()[0] == "found = training.information.compare(runs)"
    call = method_pages.called("microtome.attribution.grad_cam", registry.methods()["grad-cam"])
    assert call.splitlines()[0] == "found = attribution.grad_cam(net, images)"
