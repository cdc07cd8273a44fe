"""How many threads, what they change (nothing but time), and how they live with forks."""

from __future__ import annotations

import logging
import os
import sys
import threading
import time

import numpy as np
import pytest
from support import COMPILED, assert_same_bits, backend_or_skip, descended, run_python

import schuss
import schuss.losses
import schuss.rules
from schuss.backends import Problem, Segment, State, available, choose, threads
from schuss.backends.protocol import TILE_ROWS
from schuss.backends.threads import limits, usable_threads
from schuss.errors import InvalidArgument, InvalidType
from schuss.formulas import bijection

# --------------------------------------------------------------------------- how many threads


@pytest.fixture
def clean(monkeypatch):
    """No limits from the environment."""
    monkeypatch.delenv("SCHUSS_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    return monkeypatch


def test_what_is_asked_for_is_used():
    assert usable_threads(1) == 1
    assert usable_threads(np.int64(7)) == 7


@pytest.mark.parametrize("value", [0, -3])
def test_too_few_threads_are_refused(value):
    with pytest.raises(InvalidArgument, match=f"threads={value}.*>= 1"):
        usable_threads(value)


@pytest.mark.parametrize("value", [1.5, "4", True, [2]])
def test_what_is_no_number_of_threads_is_refused(value):
    with pytest.raises(InvalidType, match="threads="):
        usable_threads(value)


def test_none_takes_the_least_of_all_limits(clean):
    found = limits()
    assert found["cores"] == os.cpu_count()
    assert usable_threads(None) == min(found.values()) >= 1


@pytest.mark.parametrize(("batch_size", "used"), [(1, 1), (128, 1), (512, 2)])
def test_the_threads_of_a_step_are_told(caplog, batch_size, used):
    backend_or_skip("native")
    X = np.random.default_rng(0).normal(size=(1000, 50))
    with caplog.at_level(logging.DEBUG, "schuss"):
        schuss.fit(X, X[:, 0], batch_size=batch_size, epochs=1, threads=2, backend="native")
    assert f"threads: {used} for steps of {batch_size} rows" in caplog.messages


@pytest.mark.parametrize("name", ["SCHUSS_NUM_THREADS", "OMP_NUM_THREADS"])
def test_environment_limits(clean, name):
    clean.setenv(name, "1")
    assert limits()[name] == 1
    assert usable_threads(None) == 1
    assert usable_threads(3) == 3
    clean.setenv(name, " 3,2 ")  # OpenMP's form for nested levels
    assert limits()[name] == 3
    clean.setenv(name, "")
    assert name not in limits()


@pytest.mark.parametrize("name", ["SCHUSS_NUM_THREADS", "OMP_NUM_THREADS"])
@pytest.mark.parametrize("text", ["0", "-1", "many", "1.5", "²"])
def test_environment_nonsense_is_refused(clean, name, text):
    clean.setenv(name, text)
    with pytest.raises(InvalidArgument, match=f"{name}='{text}'.*>= 1"):
        usable_threads(None)
    with pytest.raises(InvalidArgument, match=name):
        choose("auto")


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="affinity: Linux only")
def test_affinity_limits():
    code = """
        import os
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
        from schuss.backends.threads import limits, usable_threads
        print(limits()["affinity"], usable_threads(None))
    """
    assert run_python(code, SCHUSS_NUM_THREADS="", OMP_NUM_THREADS="") == "1 1"


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({"cpu.max": "150000 100000\n"}, 2),
        ({"cpu.max": "100000 100000\n"}, 1),
        ({"cpu.max": "20000 100000\n"}, 1),
        ({"cpu.max": "max 100000\n"}, None),
        ({"cpu/cpu.cfs_quota_us": "300000\n", "cpu/cpu.cfs_period_us": "100000\n"}, 3),
        ({"cpu/cpu.cfs_quota_us": "-1\n", "cpu/cpu.cfs_period_us": "100000\n"}, None),
        ({"cpu.max": "nonsense"}, None),
        ({}, None),
    ],
)
def test_cgroup_quota_limits(clean, tmp_path, files, cpus):
    """Real files of both versions of cgroups, in another place."""
    for name, text in files.items():
        path = tmp_path / "sys" / "fs" / "cgroup" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    clean.setattr(threads, "Path", lambda path: tmp_path / str(path).lstrip("/"))
    assert limits().get("cgroup quota") == cpus


def test_threadpoolctl_limits(clean):
    threadpoolctl = pytest.importorskip("threadpoolctl", reason="threadpoolctl is not installed")
    if not threadpoolctl.threadpool_info():
        pytest.skip("no pool that threadpoolctl controls is loaded")
    with threadpoolctl.threadpool_limits(1):
        assert limits()["threadpoolctl"] == 1
        assert usable_threads(None) == 1


# ---------------------------------------------------------------------------- nothing but time


def wide_problem(dtype, n=5000, d=200) -> tuple[Problem, State, Segment]:
    """Enough elements per step for five threads."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(n, d)).astype(dtype)
    y = np.where(X[:, 0] > 0, 1, -1).astype(dtype)
    weight = rng.uniform(0, 2, n).astype(dtype)
    problem = Problem(X, y, weight, schuss.losses.log_loss())
    state = State.start(np.zeros(d + 1, dtype), schuss.rules.sgd(momentum=0.9), clip_norm=1.0)
    rows = rng.permutation(n).astype(np.int32)
    return problem, state, Segment(rows, np.array([0.1]), 2000)


@pytest.mark.threads
@pytest.mark.parametrize("name", COMPILED)
def test_threads_change_no_bit(name, dtype):
    problem, state, segment = wide_problem(dtype)
    alone = backend_or_skip(name, threads=1)
    expected = descended(alone, problem, state, segment, segment)
    gradient = alone.gradient(problem, expected.theta, segment.rows)
    variance = alone.variance(problem, expected.theta, segment.rows)
    for count in (1, 2, 3, 5):
        backend = backend_or_skip(name, threads=count)
        assert backend.crew(2000, 200) == (count if name == "native" else 1)
        for _ in range(3):
            assert_same_bits(descended(backend, problem, state, segment, segment), expected)
            total, computed = backend.gradient(problem, expected.theta, segment.rows)
            assert (total, computed.tobytes()) == (gradient[0], gradient[1].tobytes())
            total, computed, second = backend.variance(problem, expected.theta, segment.rows)
            assert (total, second) == (variance[0], variance[2])
            assert computed.tobytes() == variance[1].tobytes()


@pytest.mark.threads
@pytest.mark.parametrize("instructions", ["baseline", "avx2", "avx512", "neon"])
def test_native_threads_change_no_bit(native, instruction_set, instructions, dtype):
    instruction_set(instructions)
    problem, state, segment = wide_problem(dtype)
    runs = [
        descended(backend_or_skip("native", threads=count), problem, state, segment)
        for count in (1, 2, 5)
    ]
    for other in runs[1:]:
        assert_same_bits(runs[0], other)


@pytest.mark.threads
@pytest.mark.parametrize("rows", [1, 255, 256, 257, 511, 513, 1025, 16384, 16385, 20000])
def test_tiles_and_waves_are_whole_whatever_the_rows(compiled, rows):
    """Small integers, so that a tile left out or counted twice shows."""
    rng = np.random.default_rng(rows)
    X = rng.integers(-2, 3, (rows, 130)).astype(np.float32)
    y = rng.integers(-2, 3, rows).astype(np.float32)
    problem = Problem(X, y, None, schuss.losses.squared_error())
    theta = rng.integers(-1, 2, 131).astype(np.float32)
    slope = X.astype(float) @ theta[:-1] + theta[-1] - y
    expected = np.append(X.T.astype(float) @ slope, slope.sum())
    for count in (1, 2, 5):
        backend = backend_or_skip(compiled.name, threads=count)
        total, gradient = backend.gradient(problem, theta, (0, rows))
        np.testing.assert_array_equal(gradient, expected)
        assert total == (slope**2).sum() / 2


def test_small_steps_use_one_thread(compiled):
    backend = backend_or_skip(compiled.name, threads=8)
    assert backend.crew(1, 10**9) == 1
    assert backend.crew(4 * TILE_ROWS - 1, 10**6) == 1
    assert backend.crew(4 * TILE_ROWS, 10) == 1
    assert backend.crew(10**6, 1000) == (8 if compiled.name == "native" else 1)
    assert backend.crew(0, 0) == 1


@pytest.mark.threads
def test_fits_from_several_threads_at_once(compiled, dtype):
    """One of them uses the pool; the others run alone, to the same bits."""
    problem, state, segment = wide_problem(dtype)
    backend = backend_or_skip(compiled.name, threads=2)
    expected = descended(backend, problem, state, segment)
    made: list[State] = []

    def fit():
        made.extend(descended(backend, problem, state, segment) for _ in range(5))

    fits = [threading.Thread(target=fit) for _ in range(3)]
    for thread in fits:
        thread.start()
    for thread in fits:
        thread.join(60)
    assert len(made) == 15
    for other in made:
        assert_same_bits(other, expected)


# ------------------------------------------------------------------------------------- forks

FORK = """
    import os, signal, sys, threading
    sys.path[:0] = {path!r}
    from support import assert_same_bits, backend_or_skip, descended
    from test_threads import np, wide_problem

    problem, state, segment = wide_problem(np.float32)
    backend = backend_or_skip({name!r}, threads=2)
    expected = descended(backend, problem, state, segment)
    busy = {busy}
    stop = threading.Event()

    def fit():
        while not stop.is_set():
            descended(backend, problem, state, segment)

    fits = [threading.Thread(target=fit) for _ in range(busy)]
    for thread in fits:
        thread.start()
    codes = []
    for _ in range(5):
        child = os.fork()
        if child == 0:
            try:
                signal.alarm(30)
                for _ in range(3):
                    assert_same_bits(descended(backend, problem, state, segment), expected)
                grandchild = os.fork()
                if grandchild == 0:
                    assert_same_bits(descended(backend, problem, state, segment), expected)
                    os._exit(0)
                os._exit(os.waitstatus_to_exitcode(os.waitpid(grandchild, 0)[1]))
            finally:
                os._exit(9)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
    stop.set()
    for thread in fits:
        thread.join()
    assert_same_bits(descended(backend, problem, state, segment), expected)
    print(*codes)
"""


@pytest.mark.threads
@pytest.mark.skipif(not hasattr(os, "fork"), reason="fork: not on Windows")
@pytest.mark.parametrize("busy", [0, 1], ids=["idle", "busy"])
@pytest.mark.parametrize("name", COMPILED)
def test_fit_in_a_forked_child(name, busy):
    """After a fit on several threads, and while one runs in the parent."""
    backend_or_skip(name)
    path = [os.path.dirname(__file__)]
    code = FORK.format(name=name, path=path, busy=busy)
    assert run_python(code, PYTHONWARNINGS="ignore::DeprecationWarning") == "0 0 0 0 0"


# ---------------------------------------------------------------------------------- the GIL


def long_calls(backend):
    """A call of each verb that lasts some tenths of a second, without much memory."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(1000, 100)).astype(np.float32)
    problem = Problem(X, X[:, 0].copy(), None, schuss.losses.squared_error())
    theta = np.zeros(101, np.float32)
    rows = np.tile(np.arange(1000, dtype=np.int32), 2000)
    rate = np.array([1e-6])
    large = np.zeros(1_000_000, np.float32)
    keys = bijection.round_keys(0)
    adam = schuss.rules.adam()

    def descend(batch_size):
        state = State.start(theta, schuss.rules.sgd())
        backend.descend(problem, state, Segment(rows, rate, batch_size))

    return {
        "descend per sample": lambda: descend(1),
        "descend in batches": lambda: descend(32),
        "gradient": lambda: backend.gradient(problem, theta, rows),
        "variance": lambda: backend.variance(problem, theta, rows[::2].copy()),
        "margin": lambda: backend.margin(X, theta, rows),
        "apply": lambda: backend.apply(
            adam, [large] * 100, [large] * 100, [[large, large]] * 100, 0, 0.1
        ),
        "reduce": lambda: backend.reduce(large, [large] * 300, 0.5),
        "permute": lambda: backend.permute(10_000_000, keys, 0, 10_000_000),
    }


def test_kernels_release_the_gil(compiled):
    """A thread that only ticks keeps ticking inside each of them."""
    ticks: list[float] = []
    done = threading.Event()

    def tick():
        while not done.is_set():
            ticks.append(time.perf_counter())
            time.sleep(0.001)

    backend = backend_or_skip(compiled.name, threads=1)
    calls = long_calls(backend)
    for call in calls.values():  # compiles, where there is something to compile
        call()
    ticker = threading.Thread(target=tick)
    ticker.start()
    try:
        for name, call in calls.items():
            begin = time.perf_counter()
            call()
            end = time.perf_counter()
            inner = (end - begin) / 10
            inside = [t for t in ticks if begin + inner < t < end - inner]
            assert inside, f"{name}: no tick in {end - begin:.3f} s"
    finally:
        done.set()
        ticker.join()


def test_native_pool_is_made_when_first_needed():
    if available()["native"] is not None:
        pytest.skip(f"backend native: {available()['native']}")
    if sys.platform != "linux":
        pytest.skip("threads are counted in /proc: Linux only")
    code = f"""
        import os, sys
        sys.path[:0] = {[os.path.dirname(__file__)]!r}
        from support import backend_or_skip, descended
        from test_threads import np, wide_problem
        count = lambda: len(os.listdir("/proc/self/task"))
        problem, state, segment = wide_problem(np.float32)
        before = count()
        for threads in (1, 3, 2, 4):
            descended(backend_or_skip("native", threads=threads), problem, state, segment)
            print(count() - before)
    """
    assert run_python(code).split() == ["0", "2", "2", "3"]
