"""One page for each registered method: what the registry says of it, its docstring, an example, pages that use it."""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from pathlib import Path
from typing import Any

from microtome import registry
from microtome.registry import Method

QUESTIONS = {
    "attribution": "What in this image decided?",
    "attention": "What in this image decided? (transformers)",
    "quality": "Is the map any good, is there a shortcut?",
    "units": "What does a unit look for, and how is it computed?",
    "synthesis": "Which image drives it most?",
    "spaces": "What does a layer keep and throw away?",
    "representation": "How does a layer arrange the images, and how similar are two layers?",
    "training": "How was it trained?",
    "surgery": "What can be left out?",
}


def setup(app: Any) -> dict[str, bool]:
    """Write the pages before Sphinx reads the folder."""
    app.connect("builder-inited", lambda app: write(Path(app.srcdir)))
    app.connect("autodoc-skip-member", elsewhere)
    app.connect("autodoc-process-docstring", spare_initials, priority=900)  # after numpydoc
    return {"parallel_read_safe": True}


def elsewhere(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool | None:
    """Leave methods out of the pages that list whole folders: each has its own page."""
    return True if any(member is method.function for method in registry.methods().values()) else None


def write(docs: Path) -> None:
    """Write ``methods/NAME.rst`` for every method, and the index; files of methods that are gone go."""
    folder = docs / "methods"
    folder.mkdir(exist_ok=True)
    uses = used_in(docs.parent / "examples")
    pages = {f"{name}.rst": page(method, uses_of(method, uses)) for name, method in registry.methods().items()}
    pages["index.rst"] = index()
    for old in folder.glob("*.rst"):
        if old.name not in pages:
            old.unlink()
    for name, text in pages.items():
        path = folder / name
        if not path.is_file() or path.read_text(encoding="utf-8") != text:  # else Sphinx reads it again for nothing
            path.write_text(text, encoding="utf-8")


def index() -> str:
    """The table of all methods, by question."""
    lines = [
        "Methods",
        "=======",
        "",
        "Every method is a function of a network, images or a data set, and options by name. It returns a frozen",
        "result with named tensors, ``.plot()``, ``.save()`` and the parameters that made it. ``microtome methods``",
        "lists the same table.",
        "",
    ]
    for kind, question in QUESTIONS.items():
        named = registry.methods(kind)
        lines += [question, "-" * len(question), "", ".. list-table::", "   :widths: 28 72", ""]
        for name, method in named.items():
            lines += [f"   * - :doc:`{name}`", f"     - {escaped(method.summary)}"]
        lines += ["", ".. toctree::", "   :hidden:", "", *(f"   {name}" for name in named), ""]
    return "\n".join(lines)


def page(method: Method, uses: list[tuple[str, str]]) -> str:
    """One method: facts, docstring, example, where it is used."""
    path = public(method)
    documented = method.function.__doc__ or ""
    lines = [method.name, "=" * len(method.name), "", *facts(method), ""]
    if not re.search(r"^\s+Examples\s*\n\s+-{3,}", documented, re.MULTILINE):
        where, code = uses[0] if uses else ("", called(path, method))
        lines += [f"As on the page :doc:`/{where}`:" if where else "As a call:", "", ".. code-block:: python", ""]
        lines += [f"   {line}" for line in code.splitlines()] + [""]
    lines += [f".. autofunction:: {path}", ""]
    if uses:
        seen = dict.fromkeys(where for where, _ in uses)
        lines += ["Seen at work", "------------", "", *(f"- :doc:`/{where}`" for where in seen)]
    return "\n".join([*lines, ""])


def facts(method: Method) -> list[str]:
    """What the registry says, as a list of fields."""
    rows = {
        "Question": QUESTIONS.get(method.kind, method.kind),
        "Needs": method.needs or "any network",
        "One number is": f"{method.quantity}{'' if method.signed else ', never negative'}"
        if method.kind in registry.EXPLAINING
        else "",
        "Cost": f"about {method.cost:g} forward passes for an image" if method.kind in registry.EXPLAINING else "",
        "Source": method.reference,
    }
    return [f":{name}: {escaped(text)}" for name, text in rows.items() if text]


def called(path: str, method: Method) -> str:
    """The shortest call: every option that has no default by its name."""
    parameters = inspect.signature(method.function).parameters.values()
    further = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [each for each in parameters if each.default is each.empty and each.kind not in further]
    given = [each.name if each.kind != each.KEYWORD_ONLY else f"{each.name}=..." for each in needed]
    return f"found = {path.removeprefix('microtome.')}({', '.join(given)})\nfound.plot()"


def public(method: Method) -> str:
    """The name by which users call the function: that of the folder where it stands there, else of a part of it."""
    name = method.function.__name__
    parts = method.function.__module__.split(".")
    for count in range(2, len(parts) + 1):
        module = ".".join(parts[:count])
        found = getattr(importlib.import_module(module), name, None)
        if found is method.function or getattr(found, "__wrapped__", None) is not None:
            return f"{module}.{name}"
    return f"{method.function.__module__}.{name}"


def used_in(examples: Path) -> list[tuple[str, str, str]]:
    """Calls on the pages: the function as it is written, such as ``units.tuning``, the page, and the statement."""
    found = []
    folders = {"stories": "examples", "questions": "questions"}
    for path in sorted(examples.glob("*/*.py"), reverse=True):  # the long stories first
        source = path.read_text(encoding="utf-8")
        for statement in ast.parse(source).body:
            code = ast.get_source_segment(source, statement) or ""
            calls = (one.func for one in ast.walk(statement) if isinstance(one, ast.Call))
            where = f"{folders[path.parent.name]}/{path.stem}"
            found += [(ast.unparse(one), where, code) for one in calls if isinstance(one, ast.Attribute)]
    return found


def uses_of(method: Method, uses: list[tuple[str, str, str]]) -> list[tuple[str, str]]:
    """The pages that call a method, each with the statement; ``training.evaluate`` is not ``attribution.evaluate``."""
    path = public(method)
    return [(where, code) for written, where, code in uses if path.endswith(f".{written}")]


def spare_initials(app: Any, what: str, name: str, member: Any, options: Any, lines: list[str]) -> None:
    """Keep a reference that begins with an initial, such as M. Raghu, from being read as item M of a list."""
    lines[:] = [re.sub(r"^(\s*\.\. \[[^\]]+\] )(?=\w+\. )", r"\1\\", line) for line in lines]


def escaped(text: str) -> str:
    """Plain text as reStructuredText takes it; what begins like an item of a list (M. Raghu) is none."""
    return re.sub(r"([*_`|\\]|^(?=\w+[.)] ))", r"\\\1", text)
