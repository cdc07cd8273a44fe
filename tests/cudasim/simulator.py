"""Compile CUDA kernels for the CPU and run them there, for functional tests.

    path = build(source, {"double_floats": "schuss::double_values<float>"})
    kernel = SimulatedModule(path).function("double_floats")
    with options(schedule="random-7"):
        kernel.launch((4,), (128,), 0, parameters)

A CUDA thread is a fiber, a block an OS thread. Shared memory begins as NaN. Found in every flavour,
and told with the line: barriers and warp collectives that some thread never comes to, ``__ldg`` of
data that changes, indices outside arrays of known size, misaligned accesses, endless waits. The
flavour "address" finds accesses outside arrays (and tells of each place once per process), the
flavour "thread" finds races. Both need a Python that was started for them:

    python tests/cudasim/simulator.py thread -m pytest tests/test_cudasim.py

What is not simulated: the time that anything takes, weak memory beyond that of C++, and the
rounding of the GPU's own functions.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from itertools import groupby
from operator import itemgetter
from pathlib import Path

HERE = Path(__file__).parent
COMPILER = "g++"
FLAGS = ["-std=c++20", "-O1", "-g", "-w", "-fPIC", "-pthread", "-U_FORTIFY_SOURCE"]
FLAGS += ["-fno-strict-aliasing"]  # packs of 16 bytes are read from arrays of numbers
# Unique or visible, one copy of a template's shared variables would serve all libraries.
KERNEL_FLAGS = ["-fno-gnu-unique", "-fvisibility=hidden", "-fsanitize=bounds,alignment"]


@dataclass(frozen=True)
class Flavour:
    """How kernels, and how the scheduler under them, are compiled, and what Python must load."""

    kernels: tuple[str, ...] = ()
    runtime: tuple[str, ...] = ()
    library: str | None = None
    options: str = ""


FLAVOURS = {
    "plain": Flavour(),
    "address": Flavour(
        ("-fsanitize=address", "-fsanitize-recover=address", "-fno-omit-frame-pointer"),
        ("-fsanitize=address", "-DSIM_ADDRESS"),
        "libasan.so",
        "ASAN_OPTIONS=halt_on_error=0:symbolize=0:detect_leaks=0:detect_stack_use_after_return=0",
    ),
    # The scheduler is not instrumented: the races sought are those of the kernels.
    "thread": Flavour(
        ("-fsanitize=thread", "-fno-omit-frame-pointer"),
        ("-DSIM_THREAD",),
        "libtsan.so",
        "TSAN_OPTIONS=halt_on_error=0:symbolize=0:exitcode=0:report_thread_leaks=0:die_after_fork=0"
        ":suppress_equal_stacks=0:suppress_equal_addresses=0",
    ),
}


class SimulatorError(RuntimeError):
    """A kernel did what a GPU does not allow, or what it leaves undefined.

    ``report`` is what a sanitizer wrote about it, in full.
    """

    def __init__(self, message: str, report: str = "") -> None:
        super().__init__(message)
        self.report = report


# ---- Compiling -----------------------------------------------------------------------------------


def build(source: str, exports: dict[str, str], flavour: str | None = None) -> Path:
    """A library of the kernels of a source; exports maps names to expressions such as f<float, 3>.

    ``#line`` directives in the source name the places in messages. Where nothing changed, the
    library made before is taken.
    """
    flavour = flavour or own_flavour()
    lines = [f"SIM_EXPORT({name}, {expression})" for name, expression in exports.items()]
    text = "\n".join([source, '#line 1 "exports"', *lines, ""])
    runtime = _runtime(flavour)
    own = FLAVOURS[flavour].kernels
    flags = [*FLAGS, *KERNEL_FLAGS, *own, "-include", str(HERE / "cudasim.h")]
    return _library(f"kernels-{flavour}", text, flags, [runtime])


def _runtime(flavour: str) -> Path:
    """The scheduler, all its files in one."""
    files = sorted(HERE.glob("*.cpp"))
    text = "".join(f'#line 1 "{path}"\n{path.read_text()}' for path in files)
    # The kernels expect its thread-local variables at a fixed place. So must it, or the place is
    # lost where the first kernels that are loaded read none of them.
    fixed = "-ftls-model=initial-exec"
    flags = [*FLAGS, fixed, *FLAVOURS[flavour].runtime, f"-I{HERE}"]
    return _library(f"runtime-{flavour}", text, flags, [])


def _library(kind: str, text: str, flags: list[str], needs: list[Path]) -> Path:
    """The library in the cache that is made of these; made now if it is not there."""
    import fcntl  # which Windows has not; there missing() says why nothing runs

    digest = hashlib.sha256()
    headers = [path.read_text() for path in sorted(HERE.glob("*.h"))]
    for part in [text, *flags, *map(str, needs), *headers, _compiler_version()]:
        digest.update(part.encode() + b"\0")
    library = cache_folder() / f"{kind}-{digest.hexdigest()[:24]}.so"
    if library.exists():
        return library
    # Of several processes one compiles, and the others wait for it.
    with open(library.with_suffix(".lock"), "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.exists():
            _compile(text, flags, needs, library)
    return library


def _compile(text: str, flags: list[str], needs: list[Path], library: Path) -> None:
    """Compile and link; the sanitizers' own libraries are left out, Python has loaded them."""
    with tempfile.TemporaryDirectory(dir=cache_folder()) as folder:
        source, object_file, made = (f"{folder}/made{suffix}" for suffix in (".cpp", ".o", ".so"))
        Path(source).write_text(text)
        _run([COMPILER, *flags, "-c", source, "-o", object_file])
        _run([COMPILER, "-shared", "-pthread", object_file, *map(str, needs), "-o", made])
        os.replace(made, library)


def _run(command: list[str]) -> str:
    # From the root, so that debug information has the names that #line gives.
    done = subprocess.run(command, cwd="/", capture_output=True, text=True, check=False)
    if done.returncode:
        raise SimulatorError(f"{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


@cache
def _compiler_version() -> str:
    return _run([COMPILER, "--version"]).splitlines()[0]


@cache
def cache_folder() -> Path:
    """$SCHUSS_CUDASIM_CACHE, or a folder of this user's own among the temporary files."""
    named = os.environ.get("SCHUSS_CUDASIM_CACHE")
    folder = Path(named or Path(tempfile.gettempdir()) / f"schuss-cudasim-{os.getuid()}")
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_uid != os.getuid():
        raise SimulatorError(f"{folder} belongs to another user; set SCHUSS_CUDASIM_CACHE")
    return folder


# ---- Launching -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Options:
    """How launches run.

    Parameters
    ----------
    schedule
        Who comes first: ``forward``, ``reverse``, ``random-N`` (an order drawn by chance and
        strictly obeyed, which finds the most) or ``uniform-N`` (drawn anew at each turn).
    workers
        Blocks, or clusters, that run at once.
    seconds
        How long a thread may wait for another.
    """

    schedule: str = "forward"
    workers: int = 2
    seconds: float = 60.0

    def number_and_seed(self) -> tuple[int, int]:
        """As the scheduler knows it."""
        kinds = ("forward", "reverse", "random", "uniform")
        found = re.fullmatch(r"(forward|reverse)|(random|uniform)-(\d+)", self.schedule)
        if not found:
            accepted = "forward, reverse, random-N, uniform-N"
            raise ValueError(f"schedule={self.schedule!r}: accepted are {accepted}")
        return kinds.index(found[1] or found[2]), int(found[3] or 0)


_options = Options()


@contextmanager
def options(**changes) -> Iterator[Options]:
    """Change the options of the launches inside."""
    global _options
    before = _options
    _options = replace(before, **changes)
    try:
        yield _options
    finally:
        _options = before


class _Configuration(ctypes.Structure):
    """As launch.h declares it."""

    _fields_ = (
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared", ctypes.c_uint64),
        ("cluster", ctypes.c_uint),
        ("cooperative", ctypes.c_int),
        ("workers", ctypes.c_uint),
        ("schedule", ctypes.c_int),
        ("seed", ctypes.c_uint64),
        ("seconds", ctypes.c_double),
    )


MESSAGE_SIZE = 1024  # as in launch.h


class SimulatedModule:
    """The kernels of one library."""

    def __init__(self, path: Path) -> None:
        self._library = ctypes.CDLL(str(path))

    def function(self, name: str) -> SimulatedFunction:
        """The kernel exported under that name."""
        return SimulatedFunction(self._library, name)


class SimulatedFunction:
    """A kernel; ``sizes`` holds the bytes of each of its parameters."""

    def __init__(self, library: ctypes.CDLL, name: str) -> None:
        self.name = name
        self._launch = getattr(library, f"sim_launch_{name}")
        sizes = (ctypes.c_size_t * 256)()
        count = getattr(library, f"sim_sizes_{name}")(sizes)
        self.sizes = tuple(sizes[:count])

    def launch(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        shared: int,
        parameters: ctypes.Array,
        *,
        cooperative: bool = False,
        cluster: int = 1,
    ) -> None:
        """Run the kernel; parameters holds their addresses, as cuLaunchKernel takes them."""
        if len(parameters) != len(self.sizes):
            raise SimulatorError(
                f"{self.name}: {len(parameters)} parameters given, the kernel has {len(self.sizes)}"
            )
        schedule, seed = _options.number_and_seed()
        asked = _Configuration(
            (*grid, 1, 1)[:3],
            (*block, 1, 1)[:3],
            shared,
            cluster,
            cooperative,
            _options.workers,
            schedule,
            seed,
            _options.seconds,
        )
        message = ctypes.create_string_buffer(MESSAGE_SIZE)
        failed = self._launch(ctypes.byref(asked), parameters, message)
        report = symbolized(_new_reports())
        found = [message.value.decode()] if failed else []
        found += digest(report)
        if found:
            raise SimulatorError(f"{self.name}: " + "\n".join(found), report)


# ---- Reports of the sanitizers -------------------------------------------------------------------

LOG = "SCHUSS_CUDASIM_LOG"
FLAVOUR = "SCHUSS_CUDASIM_FLAVOUR"
_read_up_to = 0


def own_flavour() -> str:
    """The flavour that this Python was started for."""
    return os.environ.get(FLAVOUR, "plain")


def _new_reports() -> str:
    """What a sanitizer has written since the last call."""
    global _read_up_to
    log = Path(f"{os.environ.get(LOG, '')}.{os.getpid()}")
    if not log.is_file():
        return ""
    with open(log, "rb") as file:
        file.seek(_read_up_to)
        new = file.read()
    _read_up_to += len(new)
    return new.decode(errors="replace")


_ADDRESS = re.compile(r"(?P<library>kernels-\w+-\w+\.so)\+(?P<offset>0x[0-9a-f]+)")


def symbolized(report: str) -> str:
    """The report with places of the kernels' source for addresses in their libraries.

    The sanitizers can do this themselves, but only for libraries loaded before the first report.
    """
    places = {}
    addresses = sorted({(found["library"], found["offset"]) for found in _ADDRESS.finditer(report)})
    for library, group in groupby(addresses, key=itemgetter(0)):
        offsets = [offset for _, offset in group]
        command = ["addr2line", "-a", "-i", "-e", str(cache_folder() / library), *offsets]
        found = re.split(r"^0x\w+\n", _run(command), flags=re.MULTILINE)[1:]
        places |= {(library, one): _place(lines) for one, lines in zip(offsets, found, strict=True)}
    return _ADDRESS.sub(lambda found: places[found["library"], found["offset"]], report)


def _place(lines: str) -> str:
    """Of the places inlined into each other, innermost first, that in the kernel's own source."""
    places = [line.split(" ")[0] for line in lines.splitlines()]
    ours = (line for line in places if not line.startswith((str(HERE), "/usr/", "?")))
    return next(ours, places[0]).lstrip("/")


_FAULT = re.compile(r"(?:ERROR|WARNING): (?:Address|Thread)Sanitizer: (?P<what>[\w-]+(?: race)?)")
_ACCESS = re.compile(r"^ *(?P<how>(?:Previous )?(?:atomic )?(?:read|write) of size \d+)", re.I)
_FRAME = re.compile(r"^ *#\d+ .*\((?P<place>[^()]+:\d+)\)")


def digest(report: str) -> list[str]:
    """One line for each fault: what it is, and which lines of the kernel had a part in it."""
    faults: list[str] = []
    seeking = False
    for line in report.splitlines():
        if fault := _FAULT.search(line):
            faults.append(fault["what"])
        elif faults and (access := _ACCESS.search(line)):
            faults[-1] += f", {access['how'].lower()}"
            seeking = True
        elif seeking and (frame := _FRAME.search(line)):
            faults[-1] += f" at {frame['place']}"
            seeking = False
    return list(dict.fromkeys(faults))


def missing(flavour: str) -> str | None:
    """Why a flavour cannot be had here; None if it can."""
    if not sys.platform.startswith("linux"):
        return f"the simulator runs on Linux, not on {sys.platform}"
    if shutil.which(COMPILER) is None:
        return f"no {COMPILER}"
    library = FLAVOURS[flavour].library
    if library and not _sanitizer(library).is_file():
        return f"no {library} beside {COMPILER}"
    return None


def _sanitizer(name: str) -> Path:
    return Path(_run([COMPILER, f"-print-file-name={name}"]).strip())


def python(flavour: str, *arguments: str, **keywords) -> subprocess.CompletedProcess[str]:
    """Run a Python in which kernels of that flavour can be loaded."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {FLAVOUR: flavour, LOG: f"{folder}/report"}
        command = [sys.executable, *arguments]
        made = FLAVOURS[flavour]
        if made.library:
            name, value = made.options.split("=", 1)
            environment |= {
                name: f"{value}:log_path={folder}/report",
                "LD_PRELOAD": f"{_sanitizer(made.library)} {_sanitizer('libstdc++.so')}",
                "PYTHONMALLOC": "malloc",
                "OPENBLAS_NUM_THREADS": "1",
            }
            command = [*_without_random_addresses(), *command]
        done = subprocess.run(command, env=environment, text=True, check=False, **keywords)
        for log in Path(folder).iterdir():
            text = log.read_text(errors="replace")
            if died := re.search("FATAL: .*|CHECK failed.*|.*Dying.*|.*ABORTING", text):
                raise SimulatorError(f"{' '.join(command)}: {died[0]}", text)
        return done


@cache
def _without_random_addresses() -> list[str]:
    """Older runtimes of the sanitizers fail where addresses are drawn from a wide range."""
    command = ["setarch", "-R"]
    found = shutil.which(command[0])
    works = found and subprocess.run([*command, "true"], check=False).returncode == 0
    return command if works else []


if __name__ == "__main__":
    sys.exit(python(*sys.argv[1:]).returncode)
