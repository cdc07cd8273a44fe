"""Compile CUDA kernels as a GPU's driver would have them, with NVRTC alone: no driver, no GPU.

    kernels = compiled(source("rows"), ["gradient<float, hinge, 32, 2, false>"], "sm_90")

NVRTC is what CuPy compiles with; it and nvdisasm come as the packages ``nvidia-cuda-nvrtc`` and
``nvidia-cuda-nvdisasm``.
"""

from __future__ import annotations

import ctypes
import importlib.util
import re
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

OPTIONS = ("-std=c++17", "--ptxas-options=-v")


class CompileError(RuntimeError):
    """NVRTC refused a source; the message is its own."""


@dataclass(frozen=True)
class Compiled:
    """What an instance of a kernel became.

    Attributes
    ----------
    registers : int
        Of a thread.
    spilled : int
        Bytes of registers that did not fit, written and read.
    local : int
        Instructions that read or write a thread's own memory.
    wide_loads : int
        Instructions that load 16 bytes from global memory.
    read_only_loads : int
        Instructions that load through the cache that no write of the launch reaches.
    shares : bool
        Whether it reads from where all blocks meet, as what they write during the launch must be.
    """

    registers: int
    spilled: int
    local: int
    wide_loads: int
    read_only_loads: int
    shares: bool


def compiled(source: str, expressions: Sequence[str], architecture: str) -> dict[str, Compiled]:
    """Each instance of a kernel, compiled for an architecture such as ``sm_90``."""
    cubin, log, names = _cubin(source, expressions, architecture)
    properties, code = _properties(log), _machine_code(cubin)
    return {
        expression: Compiled(**properties[name], **_instructions(code[name]))
        for expression, name in names.items()
    }


# ---- NVRTC ---------------------------------------------------------------------------------------


def _folder() -> Path | None:
    """Where the packages of CUDA keep what is not Python."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec and spec.submodule_search_locations) or ():
        for folder in sorted(Path(place).glob("cu*")):
            if any(folder.glob("lib/libnvrtc.so.*")):
                return folder
    return None


def missing() -> str | None:
    """Why nothing can be compiled here; None if it can."""
    folder = _folder()
    if folder is None:
        return "NVRTC is not installed: pip install nvidia-cuda-nvrtc"
    if not (folder / "bin" / "nvdisasm").is_file():
        return "nvdisasm is not installed: pip install nvidia-cuda-nvdisasm"
    return None


@cache
def _nvrtc() -> ctypes.CDLL:
    if why := missing():
        raise CompileError(why)
    library = ctypes.CDLL(str(next(_folder().glob("lib/libnvrtc.so.*"))))
    library.nvrtcGetErrorString.restype = ctypes.c_char_p
    return library


def version() -> str:
    """Of NVRTC."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(_nvrtc().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return f"NVRTC {major.value}.{minor.value}"


def _check(status: int) -> None:
    if status:
        raise CompileError(_nvrtc().nvrtcGetErrorString(status).decode())


def _text(size, get, program: ctypes.c_void_p) -> bytes:
    """What a pair of NVRTC's functions, of size and of content, tells of a program."""
    count = ctypes.c_size_t()
    _check(size(program, ctypes.byref(count)))
    buffer = ctypes.create_string_buffer(count.value)
    _check(get(program, buffer))
    return buffer.raw


def _cubin(
    source: str, expressions: Sequence[str], architecture: str
) -> tuple[bytes, str, dict[str, str]]:
    """The machine code, what the assembler said of it, and the linker's name of each kernel."""
    nvrtc, program = _nvrtc(), ctypes.c_void_p()
    handle = ctypes.byref(program)
    _check(nvrtc.nvrtcCreateProgram(handle, source.encode(), b"kernels.cu", 0, None, None))
    try:
        for expression in expressions:
            _check(nvrtc.nvrtcAddNameExpression(program, expression.encode()))
        options = [option.encode() for option in (f"-arch={architecture}", *OPTIONS)]
        packed = (ctypes.c_char_p * len(options))(*options)
        status = nvrtc.nvrtcCompileProgram(program, len(options), packed)
        log = _text(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program)
        said = log.rstrip(b"\0").decode()
        if status:
            raise CompileError(f"{architecture}: {said}")
        names = {expression: _lowered(program, expression) for expression in expressions}
        return _text(nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN, program), said, names
    finally:
        nvrtc.nvrtcDestroyProgram(handle)


def _lowered(program: ctypes.c_void_p, expression: str) -> str:
    name = ctypes.c_char_p()
    _check(_nvrtc().nvrtcGetLoweredName(program, expression.encode(), ctypes.byref(name)))
    return name.value.decode()


# ---- What became of it ---------------------------------------------------------------------------

_ENTRY = re.compile(
    r"entry function '(?P<name>\w+)'.*?(?P<stores>\d+) bytes spill stores, (?P<loads>\d+) bytes"
    r" spill loads.*?Used (?P<registers>\d+) registers",
    re.DOTALL,
)


def _properties(log: str) -> dict[str, dict[str, int]]:
    return {
        entry["name"]: {
            "registers": int(entry["registers"]),
            "spilled": int(entry["stores"]) + int(entry["loads"]),
        }
        for entry in _ENTRY.finditer(log)
    }


def _machine_code(cubin: bytes) -> dict[str, str]:
    """The instructions of each kernel, by the linker's names."""
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [str(_folder() / "bin" / "nvdisasm"), "--print-code", file.name]
        text = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    sections = re.split(r"^\s*\.section\s+\.text\.(\w+),.*$", text, flags=re.MULTILINE)
    return dict(zip(sections[1::2], sections[2::2], strict=True))


def _instructions(code: str) -> dict[str, int | bool]:
    def count(pattern: str) -> int:
        return len(re.findall(rf"\b{pattern}", code))

    return {
        "local": count(r"(?:LDL|STL)\b"),
        "wide_loads": count(r"LDG\.E\.(?:\w+\.)*128\b"),
        "read_only_loads": count(r"LDG\.(?:\w+\.)*CONSTANT\b"),
        "shares": bool(count(r"(?:LD|LDG|ATOMG?)\.(?:\w+\.)*STRONG\.GPU\b")),
    }
