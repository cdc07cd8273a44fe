"""The CUDA sources, as one text for each unit: NVRTC then needs no file and no include path."""

from __future__ import annotations

import re
from functools import cache
from importlib import resources

__all__ = ["UNITS", "source"]

# Each is compiled by itself, with only the kernels that are asked for.
UNITS = ("outputs", "probe", "rows", "samples", "sparse", "steps", "vectors")

_INCLUDE = re.compile(r'^#include "(?P<name>[^"]+)"$', re.MULTILINE)


@cache
def source(unit: str) -> str:
    """Text of a unit with all that it includes, each once.

    Parameters
    ----------
    unit : str
        One of ``UNITS``: a file ``cuda/<unit>.cu`` of the package ``schuss._csrc``.

    Returns
    -------
    str
        Lines know by ``#line`` where they come from; kernels are found without their namespace.
    """
    return _joined(f"cuda/{unit}.cu", set()) + "\nusing namespace schuss;\n"


def _joined(name: str, seen: set[str]) -> str:
    """A file, with those that it includes in the places where it does so first."""
    seen.add(name)
    text = resources.files("schuss._csrc").joinpath(name).read_text(encoding="utf-8")

    def included(match: re.Match[str]) -> str:
        other = match["name"]
        before = match.string.count("\n", 0, match.start()) + 2
        inner = "" if other in seen else _joined(other, seen)
        return f'{inner}\n#line {before} "{name}"'

    body = _INCLUDE.sub(included, text.replace("#pragma once", ""))
    return f'#line 1 "{name}"\n{body}'
