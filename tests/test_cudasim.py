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

pytestmark = pytest.mark.simulated

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


# ---- Intrinsics, as CUDA defines them ------------------------------------------------------------

LANE = np.arange(64) % 32
WARP = np.arange(64) // 32 * 32
NUMBERS = np.random.default_rng(0).permutation(64).astype(np.int32)
INTRINSICS = {
    **{f"shuffles_{t}_{w}": f"shuffles<{t}, {w}>" for t in ("int", "double") for w in (2, 8, 32)},
    **{f"atomics_{t}": f"atomics<{t}>" for t in ("int", "float", "double")},
    **{name: name for name in ("partial_masks", "votes", "integer_atomics", "tickets", "bits")},
    **{name: name for name in ("halves", "places", "clusters", "wrong_mask", "traps")},
    "reads_outside_mask": "reads_outside_mask",
    "no_such_rank": "no_such_place<2, false>",
    "outside_shared": "no_such_place<0, true>",
}


@cache
def intrinsics() -> SimulatedModule:
    return SimulatedModule(build(source("intrinsics.cu"), INTRINSICS))


def launched(name: str, *values: np.ndarray, grid=(1,), block=(64,), **keywords) -> None:
    shared = keywords.pop("shared", 0)
    intrinsics().function(name).launch(grid, block, shared, parameters(*values), **keywords)


@pytest.fixture(params=["forward", "random-1"])
def schedule(request):
    with simulator.options(schedule=request.param):
        yield


@pytest.mark.parametrize("width", [2, 8, 32])
@pytest.mark.parametrize("dtype", ["int", "double"])
def test_shuffles(schedule, dtype, width):
    v = NUMBERS.astype({"int": np.int32, "double": np.float64}[dtype])
    out = np.zeros((5, 64), v.dtype)
    launched(f"shuffles_{dtype}_{width}", v, out)
    group = LANE // width * width
    sources = [
        group + 5 % width,
        group + (LANE + 3) % width,
        np.where(group > LANE - 3, LANE, LANE - 3),
        np.where(group + width > LANE + 3, LANE + 3, LANE),
        np.where(group + width > LANE ^ 5, LANE ^ 5, LANE),
    ]
    np.testing.assert_array_equal(out, [v[WARP + source] for source in sources])


def mask_of(lanes: np.ndarray) -> int:
    """Lanes as a mask, as an int32 has it."""
    mask = sum(1 << int(lane) for lane in lanes)
    return mask - (1 << 32) * (mask >> 31)


def test_partial_masks(schedule):
    out = np.zeros((3, 64), np.int32)
    launched("partial_masks", NUMBERS, out)
    lanes = np.arange(32)
    for warp, found in zip(
        NUMBERS.reshape(2, 32), out.reshape(3, 2, 32).swapaxes(0, 1), strict=True
    ):
        even, odd = warp[::2], warp[1::2]
        np.testing.assert_array_equal(found[0, ::2], np.full(16, warp[4]))
        np.testing.assert_array_equal(found[0, 1::2], warp[lanes ^ 2][1::2])
        assert set(found[1, ::2]) == {mask_of(lanes[::2][even % 3 == 1])}
        assert set(found[1, 1::2]) == {mask_of(lanes[1::2][odd % 3 == 0])}
        assert set(found[2, ::2]) == {even.max()}
        assert set(found[2, 1::2]) == {odd.sum()}


def test_votes(schedule):
    v = np.arange(64, dtype=np.int32)
    out = np.zeros((10, 64), np.int32)
    launched("votes", v, out)
    expected = [
        np.full(64, mask_of(np.arange(1, 32, 2))),
        v >= 32,
        v < 32,
        np.ones(64),
        np.zeros(64),
        np.full(64, 22),
        [mask_of(np.arange(k % 4, 32, 4)) for k in range(64)],
        WARP,
        np.zeros(64),
        np.full(64, -1),
    ]
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize("dtype", ["int", "float", "double"])
def test_atomics(schedule, dtype):
    out = np.zeros(6, {"int": np.int32, "float": np.float32, "double": np.float64}[dtype])
    launched(f"atomics_{dtype}", out, grid=(4,))
    total = 255 * 256 // 2
    assert out.tolist() == [total, 255, -255, total - out[4], out[4], 512]


def test_integer_atomics(schedule):
    out = np.array([0, 0xFFFFFFFF, 0, 0, 0, 0], np.uint32)
    launched("integer_atomics", out, grid=(4,))
    # Inc counts 0 to 9 and begins anew; Dec goes from 0 to 9, and down.
    assert out.tolist() == [0xFFFFFFFF, 0xFFFF0000, 0, 256 % 10, (-256) % 10, 2**32 - 32640]


def test_tickets(schedule):
    drawn = np.zeros(256, np.uint32)
    launched("tickets", np.zeros(1, np.uint32), drawn, grid=(4,))
    assert drawn.tolist() == [1] * 256


def test_bits():
    v = np.random.default_rng(1).integers(0, 2**32, 64, dtype=np.uint32)
    v[:4] = 0, 1, 1 << 31, 0xFFFFFFFF
    out = np.zeros((7, 64), np.int32)
    launched("bits", v, out)
    high = [int(x) * 0xDEADBEEF >> 32 for x in v]
    expected = [
        [int(x).bit_count() for x in v],
        [32 - int(x).bit_length() for x in v],
        [(int(x) & -int(x)).bit_length() for x in v],
        [int(f"{x:032b}"[::-1], 2) for x in v],
        high,
        v,
        [int(x) * 0xDEADBEEF & 0xFFFFFFFF for x in v],
    ]
    np.testing.assert_array_equal(out.view(np.uint32), np.array(expected, np.uint32))


def test_halves():
    out = np.zeros(1 << 16, np.float32)
    launched("halves", out, grid=(2,))
    expected = np.arange(1 << 16, dtype=np.uint16).view(np.float16).astype(np.float32)
    np.testing.assert_array_equal(out, expected)


def test_places(schedule):
    out = np.zeros((2 * 3 * 2, 4 * 2 * 3), np.int32)
    launched("places", out, grid=(2, 3, 2), block=(4, 2, 3))
    np.testing.assert_array_equal(out, 1000 * np.arange(12)[:, None] + np.arange(24))


@pytest.mark.parametrize("size", [1, 2, 4])
def test_clusters(schedule, size):
    out = np.zeros((4, 64), np.int32)
    launched("clusters", out, grid=(4,), shared=256, cluster=size)
    own = np.arange(256).reshape(4 // size, size, 64)
    expected = own.sum(axis=1, keepdims=True) + 1000 * np.arange(size)[:, None]
    np.testing.assert_array_equal(out, expected.reshape(4, 64))


def test_every_portable_word_has_a_twin():
    """What csrc/cuda spells in PTX, the simulator spells in C++."""
    original = (HERE.parent / "csrc/cuda/portable.cuh").read_text()
    words = re.findall(r"^(?:__device__ .*?|#define )(\w+)\(", original, flags=re.M)
    assert "load_acquire" in words and "SCHUSS_DYNAMIC_SHARED" in words
    twins = (HERE / "cudasim" / "portable.h").read_text()
    assert [word for word in words if not re.search(rf"\b{word}\(", twins)] == []


# ---- What is refused -----------------------------------------------------------------------------

REFUSED = {
    "no_such_rank": "cluster_shared of block 2 in a cluster of 1",
    "outside_shared": "cluster_shared of an address outside dynamic shared memory",
    "wrong_mask": "__shfl_sync by lane 0, which its mask fffffffe leaves out",
    "reads_outside_mask": "__shfl_sync reads lane 16, which is not in mask 0000ffff",
    "traps": "__trap",
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    with pytest.raises(SimulatorError, match=rf"{name}: intrinsics\.cu:\d+: {REFUSED[name]}"):
        launched(name, np.zeros(64, np.int32), shared=256)


@pytest.mark.parametrize(
    ("grid", "block", "options", "words"),
    [
        ((1,), (1025,), {}, "1025 threads in a block; a block has 1 to 1024"),
        ((0,), (64,), {}, "0 blocks; the simulator runs 1 to 8192"),
        ((2000,), (64,), {"cooperative": True}, "2000 blocks at once"),
        ((1,), (64,), {"shared": 233000}, "233000 bytes of shared memory"),
        ((3,), (64,), {"cluster": 2}, "clusters of 2 blocks in a grid of 3"),
    ],
)
def test_launches_that_no_gpu_runs(grid, block, options, words):
    with pytest.raises(SimulatorError, match=words):
        launched("places", np.zeros(1 << 17, np.int32), grid=grid, block=block, **options)


def test_parameters():
    function = intrinsics().function("shuffles_int_8")
    assert function.sizes == (8, 8)
    with pytest.raises(SimulatorError, match="1 parameters given, the kernel has 2"):
        function.launch((1,), (64,), 0, parameters(NUMBERS))


def test_options():
    with (
        pytest.raises(ValueError, match="schedule='sideways': accepted are forward, reverse"),
        simulator.options(schedule="sideways"),
    ):
        launched("places", np.zeros(64, np.int32))


def test_source_that_does_not_compile():
    with pytest.raises(SimulatorError, match=r"wrong\.cu:7:.* error: .*y.* was not declared"):
        build('#line 7 "wrong.cu"\n__global__ void f(int* x) { *x = y; }', {"f": "f"})


# ---- Flavours that need a Python of their own ----------------------------------------------------


@pytest.mark.skipif(FLAVOUR != "plain", reason="is what started this Python")
@pytest.mark.parametrize(
    "schedules", ["forward or random-1", pytest.param("", marks=pytest.mark.nightly)]
)
@pytest.mark.parametrize("flavour", ["address", "thread"])
def test_sanitized(flavour, schedules):
    require(flavour)
    chosen = ("-m", "simulated and not nightly", "-k", schedules)
    arguments = ("-m", "pytest", "-q", "--noconftest", "-p", "no:cacheprovider", *chosen)
    done = simulator.python(flavour, *arguments, __file__, capture_output=True, timeout=600)
    print(done.stdout, done.stderr)
    assert done.returncode == 0
