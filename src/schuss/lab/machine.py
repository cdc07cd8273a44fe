"""The machine: what it is, and what it can do at most with given data."""

from __future__ import annotations

import math
import os
import platform
import statistics
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import numpy as np

from schuss import backends, info
from schuss.backends import Problem, Segment, State
from schuss.backends.threads import usable_threads
from schuss.data import arrays
from schuss.formulas import losses, rules
from schuss.formulas.bijection import permute, round_keys
from schuss.lab.record import IN_ORDER, Ceilings
from schuss.lab.synthetic import ELEMENTS, make

__all__ = ["Probe", "ceilings", "describe", "seconds"]

DISTANCES = (4, 8, 16, 24, 40, 96)  # rows ahead to ask memory for, of which the best counts
NEAR = (0, 2, 10)  # rows ahead to fetch into the first-level cache; 0: none
LONG_ROW = 4096  # elements: rows in order are also read as if they were this long
MULTIPLY_ADD_ROUNDS = 2_000_000
SHORTEST = 0.02  # seconds: data that take less are read again and again
_NUMPY_ROWS = 1 << 14  # rows gathered at once where NumPy measures


def seconds(job: Callable[[], Any]) -> float:
    """Wall time of one call."""
    start = time.perf_counter()
    job()
    return time.perf_counter() - start


def best(jobs: list[Callable[[], Any]], repeats: int) -> tuple[float, Callable[[], Any]]:
    """Shortest time over all jobs and repeats, interleaved, and the job that took it."""
    times = [(seconds(job), k) for _ in range(repeats) for k, job in enumerate(jobs)]
    shortest, k = min(times)
    return shortest, jobs[k]


class Probe:
    """Reads the rows of X at the machine's limit: sums them and does nothing else.

    Parameters
    ----------
    X : ndarray of shape (n_samples, n_features)
    cores : int
        What "all cores" means.
    repeats : int
        Of each way to read, when the best is looked for.
    """

    def __init__(self, X: np.ndarray, cores: int, repeats: int = 3) -> None:
        self.X = X
        self.cores = cores
        self.repeats = repeats
        self.native = backends.available()["native"] is None and X.dtype in (
            np.float32,
            np.float64,
        )
        self.measured_by = "native" if self.native else "numpy"
        self._jobs: dict[tuple[str, int], Callable[[], Any]] = {}
        self._best: dict[tuple[str, int], float] = {}
        self._rows: np.ndarray | None = None

    def ceiling(self, how: str, cores: int) -> float:
        """Best rows per second; ``how`` is "sequential" or "random"."""
        self._find(how, cores)
        return self._best[how, cores]

    def again(self, order: str, cores: int) -> float:
        """Rows per second now, read in the way that was best."""
        how = "sequential" if order.partition("(")[0] in IN_ORDER else "random"
        self._find(how, cores)
        job, n = self._jobs[how, cores], self.X.shape[0]
        passes = math.ceil(SHORTEST * self._best[how, cores] / n)

        def several() -> None:
            for _ in range(passes):
                job()

        return n * passes / seconds(several)

    def _find(self, how: str, cores: int) -> None:
        if (how, cores) not in self._jobs:
            ways = self._native_ways(how, cores) if self.native else self._numpy_ways(how, cores)
            shortest, job = best(ways, self.repeats)
            self._jobs[how, cores], self._best[how, cores] = job, self.X.shape[0] / shortest

    @property
    def shuffled(self) -> np.ndarray:
        """Every row once, in an order that has nothing to do with memory."""
        if self._rows is None:
            n, keys = self.X.shape[0], round_keys(0, 0)
            lent = backends.choose("native").permute if self.native else permute
            self._rows = lent(n, keys, 0, n)
        return self._rows

    def _native_ways(self, how: str, cores: int) -> list[Callable[[], Any]]:
        from schuss import _native

        total = getattr(_native, f"sum_rows_with_{self.X.dtype.name}")
        if how == "random":
            rows = self.shuffled
            return [partial(total, self.X, rows, a, b, cores) for a in DISTANCES for b in NEAR]
        ways: list[Callable[[], Any]] = []
        # In order, where a row ends makes no difference to memory, but to the sum's inner loop.
        for view in (self.X, lengthened(self.X)):
            count = view.shape[0]
            ways += [
                partial(total, view, (0, count), a, 0, cores)
                for a in (*DISTANCES, count)  # the last: the processor's own prefetching
            ]
        return ways

    def _numpy_ways(self, how: str, cores: int) -> list[Callable[[], Any]]:
        n = self.X.shape[0]

        def work(share: int) -> float:
            low, high = n * share // cores, n * (share + 1) // cores
            if how == "sequential":
                return float(self.X[low:high].sum())
            rows, total = self.shuffled[low:high], 0.0
            for k in range(0, rows.size, _NUMPY_ROWS):
                total += float(self.X[rows[k : k + _NUMPY_ROWS]].sum())
            return total

        def together() -> None:
            with ThreadPoolExecutor(cores) as pool:  # NumPy's sums release the lock
                list(pool.map(work, range(cores)))

        return [(lambda: work(0)) if cores == 1 else together]


def lengthened(X: np.ndarray) -> np.ndarray:
    """The same memory as fewer, longer rows, without the few at the end that do not fill one."""
    times = max(1, min(LONG_ROW // X.shape[1], X.shape[0]))
    count = X.shape[0] // times
    return X[: count * times].reshape(count, times * X.shape[1])


def ceilings(
    X: Any = None,
    d: int = 100,
    dtype: str = "float32",
    elements: int = ELEMENTS,
    threads: int | None = None,
    repeats: int = 3,
) -> Ceilings:
    """Measure what the machine can do with X, or with synthetic data.

    The ceilings for memory are the rows per second that are read and added up: in order, and by
    shuffled index with the best of several ways to prefetch; on one core and on all. Each is the
    best of the repeats. Without the native extension NumPy measures them, somewhat low, and
    ``measured_by`` says so; the arithmetic and the thread pool are then not measured.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features), optional
        Data to read; standard normal numbers by default.
    d : int, default=100
        Columns of the synthetic data.
    dtype : str, default="float32"
        Of the synthetic data.
    elements : int, default=100_000_000
        n * d of the synthetic data. What fits a cache says nothing about memory.
    threads : int, optional
        What "all cores" means; by default what :func:`schuss.fit` would use.
    repeats : int, default=3

    Returns
    -------
    Ceilings

    Examples
    --------
    >>> import schuss
    >>> found = schuss.lab.ceilings(d=10, elements=10_000, repeats=1)
    >>> found.n, found.sequential_one > 0
    (1000, True)
    """
    if X is None:
        X, _ = make(d, elements, dtype, losses.squared_error())
    matrix = arrays.as_matrix(X)
    return of(Probe(matrix, usable_threads(threads), repeats))


def of(probe: Probe) -> Ceilings:
    """The ceilings that a probe finds, and what does not depend on the data."""
    X, cores = probe.X, probe.cores
    numbers: dict[str, Any] = {
        f"{how}_{label}": probe.ceiling(how, count)
        for how in ("sequential", "random")
        for label, count in (("one", 1), ("all", cores))
    }
    return Ceilings(
        n=X.shape[0],
        d=X.shape[1],
        dtype=X.dtype.name,
        cores=cores,
        measured_by=probe.measured_by,
        **numbers,
        **_arithmetic(X.dtype.name, cores, probe.repeats),
        call_overhead=_call_overhead(),
    )


def _arithmetic(dtype: str, cores: int, repeats: int) -> dict[str, Any]:
    """Peak of the arithmetic and cost of coordination; None without the extension."""
    if backends.available()["native"] is not None:
        return dict.fromkeys(("flops_one", "flops_all", "fork_join", "meeting"))
    from schuss import _native

    scalar = "float64" if dtype == "float64" else "float32"

    def flops(count: int) -> float:
        job = lambda: _native.multiply_add(scalar, MULTIPLY_ADD_ROUNDS, count)  # noqa: E731
        return float(job() / best([job], repeats)[0])

    def each(job: Callable[[int, int], None], times: int) -> float:
        job(cores, 10)
        return statistics.median(seconds(lambda: job(cores, times)) for _ in range(5)) / times

    return {
        "flops_one": flops(1),
        "flops_all": flops(cores),
        "fork_join": each(_native.fork_join, 200),
        "meeting": each(_native.meet, 2000),
    }


def _call_overhead(calls: int = 200) -> dict[str, float]:
    """Seconds of a call that does next to nothing, by backend."""
    one = np.ones((1, 1))
    problem = Problem(one, one[0], None, losses.squared_error())
    segment = Segment(np.zeros(1, np.int32), np.array([0.1]), 1)
    found = {}
    for name, why in backends.available().items():
        if why is None and name != "cuda":
            backend = backends.choose(name, threads=1)
            state = State.start(np.zeros(2), rules.sgd())

            def call(backend: Any = backend, state: State = state) -> None:
                backend.descend(problem, state, segment)

            call()  # compiles
            found[name] = statistics.median(seconds(call) for _ in range(calls))
    return found


def describe(packages: tuple[str, ...] = ()) -> dict[str, Any]:
    """Hardware and versions, for the record.

    Parameters
    ----------
    packages : tuple of str
        Further packages whose versions belong to the record.
    """
    facts = info.collect()
    processor, native = facts["processor"], facts["native"]
    found = {
        "cpu": processor.get("model", "unknown"),
        "architecture": platform.machine(),
        "cores": os.cpu_count(),
        "threads": facts["threads"].get("used"),
        "system": platform.system(),
        "python": platform.python_version(),
        "schuss": facts["schuss"],
        "numpy": np.__version__,
        "numba": facts["packages"]["numba"]["version"],
        **{name: info._version(name) for name in packages},
        **_caches(),
    }
    if "instruction_set" in native:
        found["instruction set"] = native["instruction_set"]
        found["compiler"] = native.get("compiler", "unknown")
    return found


def _caches() -> dict[str, str]:
    """Sizes of the data caches, where Linux tells."""
    found = {}
    base = "/sys/devices/system/cpu/cpu0/cache"
    for index in range(8):
        try:
            with (
                open(f"{base}/index{index}/type") as kind,
                open(f"{base}/index{index}/level") as lv,
            ):
                if kind.read().strip() == "Instruction":
                    continue
                level = lv.read().strip()
            with open(f"{base}/index{index}/size") as size:
                found[f"L{level} cache"] = size.read().strip()
        except OSError:
            break
    return found
