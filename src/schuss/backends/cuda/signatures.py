"""What kernels take, read from their source: launches are checked against the declarations.

The sources keep to a part of C++ that this reads: structs of pointers, ``int32_t``, ``int64_t`` and
``double``, and parameters of those types or of such structs.
"""

from __future__ import annotations

import ctypes
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np

from schuss.backends.cuda.sources import source

__all__ = ["Packed", "Parameter", "Signature", "signature"]

# Numbers of the sources as NumPy knows them; those of 16 bits are handed over as their bits.
ELEMENTS = {
    "float": "f4", "double": "f8", "bfloat16": "u2", "float16": "u2",
    "int32_t": "i4", "uint32_t": "u4", "int64_t": "i8",
}  # fmt: skip
SCALARS = ("int32_t", "int64_t", "double")
# What numbers of 16 bits are computed with.
COMPUTED_IN = {"bfloat16": "float", "float16": "float"}

_STRUCT = re.compile(
    r"^(?:template <class (?P<type>\w+)>\n)?struct (?P<name>\w+) \{\n(?P<body>.*?)^\};",
    re.MULTILINE | re.DOTALL,
)
_KERNEL = re.compile(
    r"^template <(?P<types>[^{};]*?)>\n__global__ void __launch_bounds__\(\w+\)\s+"
    r"(?P<name>\w+)\((?P<parameters>.*?)\) \{",
    re.MULTILINE | re.DOTALL,
)
_DECLARATION = re.compile(r"^(?:const )?(?P<type>[\w<>]+?)(?P<pointer>\*?) (?P<name>\w+)$")


@dataclass(frozen=True)
class Parameter:
    """One parameter of a kernel, or one member of a struct.

    Attributes
    ----------
    name : str
    element : str or None
        Of a pointer: the numbers it points at, as a dtype's text form.
    scalar : str or None
        Of a number: its type.
    members : tuple of Parameter
        Of a struct.
    """

    name: str
    element: str | None = None
    scalar: str | None = None
    members: tuple[Parameter, ...] = ()

    @property
    def dtype(self) -> np.dtype[Any]:
        """Its layout in memory."""
        if self.members:
            return np.dtype([(m.name, m.dtype) for m in self.members], align=True)
        return np.dtype(np.uint64 if self.element else ELEMENTS[self.scalar or ""])

    def fill(self, value: Any, where: str, address: Any) -> Any:
        """What stands in memory for a value."""
        where = f"{where}.{self.name}"
        if self.members:
            if not isinstance(value, Mapping) or value.keys() != {m.name for m in self.members}:
                names = ", ".join(m.name for m in self.members)
                raise TypeError(f"{where}: expected a mapping of {names}; got {value!r}.")
            return tuple(m.fill(value[m.name], where, address) for m in self.members)
        if self.element is None:
            return value
        if value is None:
            return 0
        if value.dtype != np.dtype(self.element):
            raise TypeError(f"{where}: declared {np.dtype(self.element)}, got {value.dtype}.")
        return address(value)


@dataclass(frozen=True)
class Signature:
    """The parameters of one instance of a kernel."""

    expression: str
    parameters: tuple[Parameter, ...]

    def pack(self, arguments: Mapping[str, Any], address: Any) -> Packed:
        """Arguments as a launch wants them: ``address`` tells where an array lies."""
        expected = [p.name for p in self.parameters]
        if sorted(arguments) != sorted(expected):
            raise TypeError(f"{self.expression}: takes {expected}, got {sorted(arguments)}.")
        return Packed(
            [
                np.array(p.fill(arguments[p.name], self.expression, address), dtype=p.dtype)
                for p in self.parameters
            ]
        )


class Packed:
    """Arguments of a launch, and the array of their addresses."""

    def __init__(self, values: list[np.ndarray]) -> None:
        self.values = values
        self.pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))


@cache
def signature(unit: str, expression: str) -> Signature:
    """Signature of an instance such as ``"gradient<float, log_loss, 32, 8, false>"``."""
    text = source(unit)
    name, _, rest = expression.partition("<")
    for match in _KERNEL.finditer(text):
        if match["name"] == name:
            break
    else:
        raise KeyError(f"unit {unit!r} has no kernel {name!r}")
    # "class S" and "template <class> class Loss" end in the name of the argument.
    names = [part.split()[-1] for part in match["types"].split(",")]
    types = dict(zip(names, (part.strip() for part in rest[:-1].split(",")), strict=True))
    structs = {m["name"]: m for m in _STRUCT.finditer(text)}
    declared = " ".join(match["parameters"].split()).split(", ")
    return Signature(expression, tuple(_parameter(one, types, structs) for one in declared))


def _parameter(
    declaration: str, types: Mapping[str, str], structs: Mapping[str, re.Match[str]]
) -> Parameter:
    match = _DECLARATION.match(declaration)
    if match is None:
        raise ValueError(f"a declaration that cannot be read: {declaration!r}")
    name, kind = match["name"], match["type"]
    if match["pointer"]:
        return Parameter(name, element=ELEMENTS[_resolved(kind, types)])
    if kind in SCALARS:
        return Parameter(name, scalar=kind)
    struct, _, argument = kind.partition("<")
    body = structs[struct]
    inner = {body["type"]: _resolved(argument[:-1], types)} if body["type"] else {}
    lines = (line.partition("//")[0].strip() for line in body["body"].splitlines())
    members = (_parameter(line.rstrip(";"), inner, structs) for line in lines if line)
    return Parameter(name, members=tuple(members))


def _resolved(kind: str, types: Mapping[str, str]) -> str:
    """The type that stands behind a template's argument."""
    if kind.startswith("Scalar<"):
        stored = _resolved(kind[len("Scalar<") : -1], types)
        return COMPUTED_IN.get(stored, stored)
    return types.get(kind, kind)
