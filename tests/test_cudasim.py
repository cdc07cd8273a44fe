"""The simulator of CUDA kernels finds each planted fault, and passes the same kernel without it."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from cudasim import simulator
from cudasim.simulator import SimulatedModule, SimulatorError, build

HERE = Path(__file__).parent
FLAVOUR = simulator.own_flavour()
SCHEDULES = ("forward", "reverse", "random-1", "random-2", "uniform-1")
BLOCKS, THREADS = 2, 64


def require(flavour: str) -> None:
    """Skip where a flavour cannot be had, or fail where it must be had."""
    if why := simulator.missing(flavour):
        if os.environ.get("SCHUSS_REQUIRE_CUDASIM"):
            pytest.fail(f"SCHUSS_REQUIRE_CUDASIM is set, but the simulator is missing: {why}")
        pytest.skip(f"simulator, {flavour}: {why}")


@pytest.fixture(autouse=True, scope="module")
def simulated():
    require(FLAVOUR)


def source(name: str) -> str:
    """A file of kernels, with the header that they include."""
    portable = (HERE.parent / "csrc/cuda/portable.cuh").read_text().replace("#pragma once", "")
    text = (HERE / "cudasim" / name).read_text()
    return f'{portable}\n#line 1 "{name}"\n' + re.sub(r"^#include.*$", "", text, flags=re.M)


def parameters(*values: np.ndarray | ctypes._SimpleCData) -> ctypes.Array:
    """Addresses of a kernel's parameters; of arrays, the addresses of their addresses."""
    boxes = [ctypes.c_void_p(v.ctypes.data) if isinstance(v, np.ndarray) else v for v in values]
    packed = (ctypes.c_void_p * len(boxes))(*map(ctypes.addressof, boxes))
    packed.keeps = boxes
    return packed


# ---- Planted faults ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Fault:
    """Which flavours find a fault under every schedule, by what words; and what is right."""

    name: str
    found_by: tuple[str, ...]
    words: str
    right: Callable[[np.ndarray], np.ndarray] = lambda x: x
    cooperative: bool = False
    cluster: int = 1


EVERY = ("plain", "address", "thread")
RACE = r"data race, .*(read|write) of size 4 at"
NAN = "wrong numbers"
OVERRUN = "heap-buffer-overflow, (read|write) of size 4 at"
STALE = "__ldg of data that changed during the launch"


def mirrored(x: np.ndarray) -> np.ndarray:
    return x[:, ::-1]


def first_half(x: np.ndarray, values: np.ndarray, of: int) -> np.ndarray:
    return np.where(np.arange(x.shape[1]) % of < of // 2, values, 0)


FAULTS = (
    Fault("missing_barrier", ("thread",), RACE, mirrored),
    Fault("missing_second_barrier", ("thread",), RACE, lambda x: 3 * mirrored(x) + 3),
    Fault(
        "lost_update",
        ("thread",),
        RACE,
        lambda x: np.where(np.arange(x.size).reshape(x.shape) == 0, x[:, 0].sum(), 0),
    ),
    Fault(
        "early_return",
        EVERY,
        "__syncthreads reached by only 32 of 64 threads",
        lambda x: first_half(x, mirrored(x), 64),
    ),
    Fault(
        "half_a_warp",
        EVERY,
        "__shfl_xor_sync with mask ffffffff reached only by lanes 0000ffff of warp 0",
        lambda x: first_half(x, x + x[:, np.arange(64) ^ 8], 32),
    ),
    Fault(
        "two_collectives",
        EVERY,
        r"__shfl_xor_sync, while lane \d+ waits in __shfl_xor_sync at line \d+",
        lambda x: x + x[:, np.arange(64) ^ 1],
    ),
    Fault("missing_warp_barrier", ("thread",), RACE, lambda x: x[:, np.arange(64) ^ 1]),
    Fault("global_overrun", ("address",), OVERRUN),
    Fault("dynamic_overrun", ("address",), OVERRUN),
    Fault("static_overrun", EVERY, r"index 64 is outside an array of type 'float \[64\]'"),
    Fault("misaligned", EVERY, r"address 0x\w+ is not aligned to the 16 bytes of type"),
    Fault("uninitialised", EVERY, NAN, lambda x: 64 + 0 * x + [[0], [1]]),
    Fault("read_only_then_written", ("plain", "address"), STALE),
    Fault("read_only_then_written", ("thread",), RACE),
    Fault("written_then_read_only", ("thread",), RACE),
    Fault("missing_grid_barrier", ("thread",), RACE, lambda x: mirrored(x)[::-1], cooperative=True),
    Fault("missing_cluster_barrier", ("thread",), RACE, lambda x: mirrored(x)[::-1], cluster=2),
    Fault(
        "missing_last_cluster_barrier",
        ("thread",),
        "data race, .*read of size 4 at",
        lambda x: mirrored(x)[::-1],
        cluster=2,
    ),
    Fault("lone_cluster_barrier", EVERY, "cluster_barrier reached by only 1 of 2", cluster=2),
    Fault(
        "endless_wait", EVERY, "waits for what has not come within 0.1 seconds", cooperative=True
    ),
)


@cache
def planted() -> SimulatedModule:
    exports = {
        f"{name}_{'fault' if fault else 'right'}": f"{name}<{str(fault).lower()}>"
        for name in {row.name for row in FAULTS}
        for fault in (False, True)
    }
    return SimulatedModule(build(source("planted.cu"), dict(sorted(exports.items()))))


def places(name: str) -> str:
    """A pattern of the lines that a message may name."""
    lines = (HERE / "cudasim" / "planted.cu").read_text().splitlines()
    marked = [str(k) for k, line in enumerate(lines, 1) if re.search(rf"//.*\b{name}\b", line)]
    return rf"planted\.cu:({'|'.join(marked)})\b"


def run(row: Fault, which: str) -> None:
    """Launch a kernel on small whole numbers and look at what comes out."""
    x = np.arange(BLOCKS * THREADS, dtype=np.float32).reshape(BLOCKS, THREADS)
    out = np.zeros((2, *x.shape), np.float32)
    if "overrun" in row.name:
        out = out[0].copy()
    counter = np.zeros(1, np.uint32)
    planted().function(f"{row.name}_{which}").launch(
        (BLOCKS,),
        (THREADS,),
        4 * THREADS,
        parameters(x, out, counter),
        cooperative=row.cooperative,
        cluster=row.cluster,
    )
    result = out.reshape(-1, *x.shape)[0]
    if not np.array_equal(result, row.right(x)):
        raise SimulatorError(f"{row.name}: {NAN}: {result}")


@pytest.mark.parametrize("schedule", SCHEDULES)
@pytest.mark.parametrize("row", FAULTS, ids=lambda row: row.name)
def test_right_kernels_pass(row, schedule):
    with simulator.options(schedule=schedule):
        run(row, "right")


def findable() -> Iterator[tuple[Fault, str]]:
    """What this flavour must find, and under which schedules."""
    for row in FAULTS:
        if FLAVOUR in row.found_by:
            # AddressSanitizer reports a place once per process.
            yield from ((row, one) for one in SCHEDULES[: 1 if row.words == OVERRUN else None])


@pytest.mark.parametrize(
    ("row", "schedule"), [*findable()], ids=lambda one: getattr(one, "name", one)
)
def test_faults_are_found(row, schedule):
    with (
        simulator.options(schedule=schedule, seconds=0.1),
        pytest.raises(SimulatorError, match=row.words) as found,
    ):
        run(row, "fault")
    if row.words != NAN:
        assert re.search(places(row.name), str(found.value)), found.value


# ---- Flavours that need a Python of their own ----------------------------------------------------


@pytest.mark.skipif(FLAVOUR != "plain", reason="is what started this Python")
@pytest.mark.parametrize(
    "schedules", ["forward or random-1", pytest.param("", marks=pytest.mark.nightly)]
)
@pytest.mark.parametrize("flavour", ["address", "thread"])
def test_sanitized(flavour, schedules):
    require(flavour)
    arguments = ("-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", "-k", schedules)
    done = simulator.python(flavour, *arguments, __file__, capture_output=True, timeout=600)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
