"""Check that no code of one instruction set can be linked into another: symbols.py BUILD_FOLDER.

The linker keeps one copy of a weak symbol (an inline function, a template). If two kernel files
define the same one, or one that the C++ library has too, the copy kept may use instructions that
the machine lacks. A static initialiser would run before any check of the machine.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

WEAK = {"W", "V", "u", "w", "v"}
SOURCES = Path(__file__).parents[1] / "csrc"


def kernel_files() -> set[str]:
    """Names, without suffix, of the sources that are compiled for one instruction set."""
    sources = {path.stem: path.read_text(encoding="utf-8") for path in SOURCES.rglob("*.cpp")}
    return {name for name, text in sources.items() if "#define SCHUSS_ISA " in text}


def symbols(object_file: Path) -> list[tuple[str, str]]:
    """Pairs (type, demangled name) of what an object file defines."""
    text = subprocess.run(
        ["nm", "--demangle", "--defined-only", str(object_file)],
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    return [(line[17:18], line[19:]) for line in text.splitlines()]


def faults(object_files: list[Path], kernels: set[str]) -> list[str]:
    """One line for each symbol that could be taken from the wrong file."""
    found = []
    owner: dict[str, Path] = {}
    for path in object_files:
        kernel = path.stem in kernels
        for kind, name in symbols(path):
            if kernel and "_GLOBAL__sub_I" in name:
                found.append(f"{path.name}: static initialiser {name}")
            if kind not in WEAK:
                continue
            if kernel and "schuss::" not in name:
                found.append(f"{path.name}: weak symbol outside schuss: {name}")
            first = owner.setdefault(name, path)
            if first != path and (kernel or first.stem in kernels):
                found.append(f"{path.name} and {first.name}: both define {name}")
    return found


def main() -> int:
    """Print the faults; the exit status is 1 if there are any."""
    newest = sorted(Path(sys.argv[1]).rglob("*.o"), key=lambda path: path.stat().st_mtime)
    object_files = list({path.name: path for path in newest}.values())
    kernels = kernel_files().intersection(path.stem for path in object_files)
    if not kernels:
        print(f"no kernel object files under {sys.argv[1]}")
        return 1
    found = faults(object_files, kernels)
    print("\n".join(found) or f"{len(object_files)} object files, {len(kernels)} of kernels: clean")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
