"""Settings of the documentation."""

import os
import sys
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx

from microtome import __version__
from microtome.result_html import unbroken

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "docs" / "building"), str(ROOT / "tests")]

from oracles import torchvision_schemas  # noqa: E402

torchvision_schemas.define()  # timm imports torchvision, whose wheel for GPUs fails beside a torch for CPUs
os.environ.setdefault("HF_HUB_OFFLINE", "1")  # no example fetches weights

project = "Microtome"
author = "The Microtome developers"
release = version = __version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "equations",
    "sphinx_gallery.gen_gallery",
    "method_pages",
    "numpydoc",
    "sphinxcontrib.bibtex",
    "myst_parser",
]
bibtex_bibfiles = ["references.bib"]
html_math_renderer = "mathml"
html_theme = "furo"
html_title = "Microtome"
html_static_path = ["building/static"]
html_css_files = ["pages.css"]
exclude_patterns = ["_build", "building", "**/*.ipynb", "examples/*.py", "questions/*.py"]
autosummary_generate = True
numpydoc_show_class_members = False

# The examples are run, one after the other; what a block ends with is shown below it.
sphinx_gallery_conf = {
    "examples_dirs": ["../examples/stories", "../examples/questions"],
    "gallery_dirs": ["examples", "questions"],
    "filename_pattern": r"\.py$",
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": ("shown_figures.scraper",),
    "capture_repr": ("_repr_html_", "__repr__"),
    "ignore_repr_types": r"Figure|NoneType",
    "reset_modules": (),
    "plot_gallery": True,
    "abort_on_example_error": False,
    "only_warn_on_example_error": False,
    "show_signature": False,
    "download_all_examples": False,
    "min_reported_time": 10_000,
    "write_computation_times": False,
    "default_thumb_file": str(Path(__file__).parent / "pictures" / "unit.png"),
}


def setup(app: Sphinx) -> None:
    """Pages on which no line ends between a number and its unit."""

    def whole(_app: Sphinx, _page: str, _template: str, context: dict[str, Any], _tree: object) -> None:
        if "body" in context:
            context["body"] = unbroken(context["body"])

    app.connect("html-page-context", whole)
