"""Sphinx configuration; the checks build the pages with warnings as errors."""

from __future__ import annotations

import schuss

project = "schuss"
author = "the schuss developers"
copyright = "2026, the schuss developers"
version = release = schuss.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.mathjax",
    "numpydoc",
]
exclude_patterns = ["_build"]
autosummary_generate = True
autodoc_typehints = "none"  # the numpydoc sections name types and shapes
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "schuss"
html_theme_options = {"show_prev_next": False, "navigation_with_keys": False}
