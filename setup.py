"""Builds the native backend ``schuss._native``; everything else stands in pyproject.toml.

The extension is optional: where it cannot be built the install goes on without it and leaves the
reason in ``schuss/_native_missing.txt``, which ``schuss info`` shows. Environment variables:

SCHUSS_REQUIRE_NATIVE=1     a failed build is an error
SCHUSS_NO_NATIVE=1          do not build it
SCHUSS_SANITIZE=LIST        build with -fsanitize=LIST ("address,undefined" or "thread")
CC, CXX, CFLAGS, CXXFLAGS   as setuptools reads them
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from textwrap import shorten

import pybind11
from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CompileError, LinkError
from setuptools.modified import newer_group

REASON_FILE = "_native_missing.txt"
COMPILE_JOBS = 2  # a kernel file takes about 1 GB to compile

COMMON_FLAGS = [
    "-std=c++17",
    "-fvisibility=hidden",
    "-pthread",
    "-g0",
    "-Wall",
    "-Wextra",
    # Link-time optimisation would see all instruction sets at once.
    "-fno-lto",
]
# The parts of -ffast-math that let sums be vectorised. The flag itself, given at link time, turns
# denormals off for the whole process, and infinity must stay infinity: divergence is looked for.
KERNEL_FLAGS = [
    "-O3",
    "-fno-math-errno",
    "-fno-trapping-math",
    "-fassociative-math",
    "-fno-signed-zeros",
]
# Those of the optimizers, whose results are torch's to the last bit: no sum is regrouped, and no
# product fused into one unless the code says so.
STRICT_FLAGS = ["-O3", "-fno-math-errno", "-fno-trapping-math", "-ffp-contract=off"]
PLAIN_FLAGS = ["-O2"]

PLAIN_SOURCES = [
    "bindings.cpp",
    "bindings_ceilings.cpp",
    "bindings_classic.cpp",
    "bindings_optimizers.cpp",
    "bindings_outputs.cpp",
    "bindings_sparse.cpp",
    "bindings_tensors.cpp",
    "pool.cpp",
]
# Flags of each instruction set. Its files are named after it.
BASELINE = {"baseline": []}
X86 = {
    "avx2": ["-mavx2", "-mfma", "-mf16c"],
    "avx512": [
        "-mavx512f",
        "-mavx512bw",
        "-mavx512dq",
        "-mavx512vl",
        "-mavx2",
        "-mfma",
        "-mf16c",
        # g++ 12 takes the operand that an intrinsic leaves undefined for a mistake of its caller's.
        "-Wno-uninitialized",
        "-Wno-maybe-uninitialized",
        "-Wno-unknown-warning-option",
    ],
}


def environment_flag(name: str) -> bool:
    """Whether an environment variable is set to something other than empty or 0."""
    return os.environ.get(name, "") not in ("", "0")


class BuildNative(build_ext):
    """``build_ext`` with flags for each file, two files at a time, and failure allowed."""

    def run(self) -> None:
        """Build the extension, or record why there is none."""
        inplace = self.inplace  # setuptools does not restore it when the build fails
        reason = self.unsupported()
        if reason is None:
            try:
                super().run()
            except (BaseError, CompileError, LinkError, OSError) as error:
                reason = (
                    f"it could not be compiled ({shorten(str(error), 200)}). Install g++ or "
                    "clang++, then reinstall; SCHUSS_REQUIRE_NATIVE=1 shows the compiler's output."
                )
        if reason is not None and environment_flag("SCHUSS_REQUIRE_NATIVE"):
            raise SystemExit(f"SCHUSS_REQUIRE_NATIVE is set, but {reason}")
        self.inplace = inplace
        self.record(reason)

    def unsupported(self) -> str | None:
        """Why the extension is not to be built here at all."""
        if environment_flag("SCHUSS_NO_NATIVE"):
            return "SCHUSS_NO_NATIVE was set when schuss was installed."
        if sys.platform == "win32":
            return "it is not built on Windows; the jit backend is used there."
        return None

    def record(self, reason: str | None) -> None:
        """Leave the reason beside the package's modules, or remove an earlier one."""
        for extension in self.extensions:
            inplace, regular = self._get_inplace_equivalent(
                self.get_finalized_command("build_py"), extension
            )
            library = Path(inplace if self.inplace else regular)
            note = library.with_name(REASON_FILE)
            if reason is None:
                note.unlink(missing_ok=True)
                continue
            print(f"schuss: building without the native backend: {reason}", file=sys.stderr)
            library.unlink(missing_ok=True)  # of an earlier build, with other sources
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(reason + "\n", encoding="utf-8")

    def build_extension(self, extension: Extension) -> None:
        """Compile each source with its own flags, then link."""
        x86 = self.plat_name.endswith(("x86_64", "amd64"))
        flags = {name: PLAIN_FLAGS for name in PLAIN_SOURCES}
        for name, target in (BASELINE | (X86 if x86 else {})).items():
            flags[f"kernels_{name}.cpp"] = KERNEL_FLAGS + target
            flags[f"optimizers_{name}.cpp"] = STRICT_FLAGS + target
        sanitize = sanitizer_flags()
        macros = ["-DSCHUSS_X86"] if x86 else []

        def compile_source(name: str) -> str:
            return self.compile_source(
                extension, f"csrc/cpu/{name}", COMMON_FLAGS + flags[name] + sanitize + macros
            )

        # The last take longest and come first, so that none of them is left to one job at the end.
        with ThreadPoolExecutor(COMPILE_JOBS) as workers:
            objects = [*workers.map(compile_source, reversed(flags))][::-1]
        library = self.get_ext_fullpath(extension.name)
        # Else it is not linked again where the objects are older, those of another flavour.
        Path(library).unlink(missing_ok=True)
        self.compiler.link_shared_object(
            objects,
            library,
            extra_postargs=["-pthread", *sanitize],
            build_temp=self.build_temp,
            target_lang="c++",
        )

    def compile_source(self, extension: Extension, source: str, flags: list[str]) -> str:
        """Object file of one source, compiled unless it is newer than all it was made from."""
        if source.endswith("bindings.cpp"):  # which tells users how the kernels were compiled
            flags = [*flags, f'-DSCHUSS_KERNEL_FLAGS="{" ".join(KERNEL_FLAGS)}"']
        key = repr((self.compiler.compiler_so_cxx, flags, pybind11.__version__))
        folder = Path(self.build_temp, hashlib.sha256(key.encode()).hexdigest()[:12])
        [target] = self.compiler.object_filenames([source], output_dir=str(folder))
        if not self.force and not newer_group([source, *extension.depends], target):
            return target
        flags = [*flags, *(f"-I{path}" for path in extension.include_dirs + self.include_dirs)]
        try:
            self.compiler.compile([source], output_dir=str(folder), extra_postargs=flags)
        except CompileError as error:
            command = [*self.compiler.compiler_so_cxx, "-c", source, "-o", os.devnull, *flags]
            raise CompileError(f"{source}: {first_error(command)}") from error
        return target


def sanitizer_flags() -> list[str]:
    """Flags of a build that looks for memory errors or races (not for users)."""
    checks = os.environ.get("SCHUSS_SANITIZE", "")
    if not checks:
        return []
    # Python's own flags have -fwrapv, under which an overflow is no error.
    return [f"-fsanitize={checks}", "-fno-wrapv", "-fno-omit-frame-pointer", "-g", "-O1"]


def first_error(command: list[str]) -> str:
    """Why a command fails, in one line; it is run once more, as its output was not kept."""
    if shutil.which(command[0]) is None:
        return f"there is no {command[0]}"
    again = subprocess.run(command, capture_output=True, text=True, check=False)
    errors = (line.strip() for line in again.stderr.splitlines() if "error" in line.lower())
    return next(errors, f"{command[0]} ended with exit status {again.returncode}")


setup(
    # schuss._csrc ships the headers: a GPU kernel is compiled from them when it is first used.
    packages=[*find_packages("src"), "schuss._csrc"],
    package_dir={"": "src", "schuss._csrc": "csrc"},
    ext_modules=[
        Extension(
            "schuss._native",
            sources=sorted(f"csrc/cpu/{name}" for name in PLAIN_SOURCES),
            include_dirs=["csrc", pybind11.get_include()],
            depends=["setup.py", *sorted(map(str, Path("csrc").rglob("*.h")))],
            language="c++",
        )
    ],
    cmdclass={"build_ext": BuildNative},
)
