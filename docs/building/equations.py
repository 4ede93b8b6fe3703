"""Equations as MathML, which browsers draw themselves: the pages need no script from elsewhere and open from disk."""

from __future__ import annotations

import html
import re
from typing import Any

from docutils import nodes
from latex2mathml.converter import convert
from sphinx.util import logging

_LOG = logging.getLogger(__name__)


def setup(app: Any) -> dict[str, bool]:
    """Make the renderer known by the name that ``html_math_renderer`` uses."""
    app.add_html_math_renderer("mathml", (inline, None), (block, None))
    return {"parallel_read_safe": True}


def inline(translator: Any, node: nodes.math) -> None:
    """An equation in a sentence."""
    translator.body.append(drawn(node, "inline"))
    raise nodes.SkipNode


def block(translator: Any, node: nodes.math_block) -> None:
    """Equations of their own, one below the other where an empty line or a double backslash stands between them."""
    translator.body.append(translator.starttag(node, "div", CLASS="math-block"))
    for part in re.split(r"\n\s*\n", node.astext().strip()):
        translator.body.append(drawn(nodes.math(part, part), "block"))
    translator.body.append("</div>\n")
    raise nodes.SkipNode


def drawn(node: nodes.Node, display: str) -> str:
    """One equation; its source where it cannot be drawn, with a warning."""
    text = " ".join(node.astext().split())
    try:
        found: str = convert(text.replace(r"\arg", r"\mathrm{arg}\,"), display=display)  # the one name that it lacks
    except Exception as error:  # the converter has none of its own
        problem = repr(error)
    else:
        problem = ", ".join(re.findall(r"\\\w+", found))  # names that it left as they are
        if not problem:
            return found
    _LOG.warning("the equation %s cannot be drawn: %s", text, problem, location=node)
    return f"<code>{html.escape(text)}</code>"
