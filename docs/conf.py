"""Settings of the documentation."""

from microtome import __version__

project = "Microtome"
author = "The Microtome developers"
release = version = __version__
extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
    "sphinxcontrib.bibtex",
    "myst_parser",
]
bibtex_bibfiles = ["references.bib"]
html_theme = "furo"
exclude_patterns = ["_build"]
autosummary_generate = True
numpydoc_show_class_members = False
