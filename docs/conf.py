"""Sphinx configuration; the checks build the pages with warnings as errors."""

from __future__ import annotations

import re
import sys
from importlib import import_module
from pathlib import Path

import schuss
from schuss import curvature
from schuss.backends import compiled, protocol
from schuss.formulas import bijection

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "schuss"
author = "the schuss developers"
copyright = "2026, the schuss developers"
version = release = schuss.__version__

extensions = [
    "sphinx.ext.autodoc",
    "sphinx.ext.mathjax",
    "numpydoc",
    "formula_tables",
]
exclude_patterns = ["_build"]
default_role = "literal"
highlight_language = "python"

autodoc_typehints = "none"  # the numpydoc sections name types and shapes
autodoc_inherit_docstrings = False  # a row of a table does not repeat its base
autodoc_member_order = "bysource"
autodoc_default_options = {"members": True, "special-members": "__call__"}
numpydoc_show_class_members = False
numpydoc_xref_param_type = False

html_theme = "pydata_sphinx_theme"
html_title = "schuss"
html_static_path = ["_static"]
html_css_files = ["schuss.css"]
html_copy_source = False
html_show_sourcelink = False
html_sidebars = {"index": []}
html_favicon = "_static/logo.svg"
html_theme_options = {
    "logo": {"text": "schuss", "image_light": "_static/logo.svg", "image_dark": "_static/logo.svg"},
    "navigation_with_keys": False,
    "show_toc_level": 2,
    "show_nav_level": 2,
    "navbar_align": "left",
    "footer_start": ["copyright"],
    "footer_end": [],
    "pygments_light_style": "friendly",
    "pygments_dark_style": "github-dark",
}

# Numbers that the pages quote.
header = Path(__file__).parent.parent / "csrc" / "cpu" / "problem.h"
wave = re.search(r"wave_tiles = (\d+);", header.read_text(encoding="utf-8"))
assert wave is not None
quoted = {
    "TILE_ROWS": protocol.TILE_ROWS,
    "WAVE_TILES": int(wave[1]),
    "SEGMENT_ELEMENTS": compiled.SEGMENT_ELEMENTS,
    "LARGE_STEP_ELEMENTS": compiled.LARGE_STEP_ELEMENTS,
    "ELEMENTS_PER_THREAD": compiled.ELEMENTS_PER_THREAD,
    "THREADED_PLACES": compiled.THREADED_PLACES,
    "SAMPLE_ROWS": curvature.SAMPLE_ROWS,
    "ROUNDS": bijection.ROUNDS,
}
rst_epilog = "\n".join(
    f".. |{name}| replace:: " + f"{number:,}".replace(",", "\N{NARROW NO-BREAK SPACE}")
    for name, number in quoted.items()
)

# The pages show every public name where users find it, not in the file that defines it.
for room in ("losses", "rules", "schedules", "orders", "errors", "backends", "data", "lab"):
    module = import_module(f"schuss.{room}")
    for name in module.__all__:
        if isinstance(getattr(module, name), type):
            getattr(module, name).__module__ = module.__name__
for name in ("History", "Result"):
    getattr(schuss, name).__module__ = "schuss"
