"""Throughput of ``descend`` and ``gradient``: backend x columns x batch size.

    pytest bench --benchmark-enable                      (minutes; n * d = 10^8)
    SCHUSS_BENCH_ELEMENTS=2000000 pytest bench --benchmark-enable     (a quick look)

``extra_info`` holds samples/s, GB/s of X, and the fraction of the ceiling that binds: the rows per
second that one core sums, by the same shuffled indices, in the same process on the same X. Before
a kernel is timed, its result is checked against the reference backend's on a few rows.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np
import pytest
from machine import ELEMENTS, ceilings, regression

import schuss
from schuss.backends import Problem, Segment, State, choose
from schuss.formulas import losses, rules
from schuss.formulas.bijection import round_keys

SIZE = int(os.environ.get("SCHUSS_BENCH_ELEMENTS", ELEMENTS))
COLUMNS = (20, 100, 1000)
BATCHES = (1, 8, 32, 256, 4096)
BACKENDS = ("native", "jit")


@lru_cache(maxsize=1)
def case(d: int) -> tuple[Problem, np.ndarray, dict[str, float]]:
    """Problem, shuffled rows and ceilings for ``d`` columns; one at a time is kept."""
    X, y = regression(d, SIZE)
    rows = choose("reference").permute(X.shape[0], round_keys(0, 0), 0, X.shape[0])
    problem = Problem(X, y, None, losses.squared_error())
    native = schuss.backends.available()["native"] is None
    return problem, rows, ceilings(X) if native else {}


def start(problem: Problem) -> State:
    return State.start(np.zeros(problem.n_features + 1, problem.dtype), rules.sgd())


def report(benchmark: Any, n: int, d: int, bound: dict[str, float], threads: int) -> None:
    """Samples per second and its fraction of the ceiling, into the benchmark's record."""
    speed = n / benchmark.stats.stats.median
    benchmark.extra_info.update(
        samples_per_second=speed,
        gigabytes_per_second=speed * d * 4 / 1e9,
        order="shuffle",
        threads=threads,
        fraction_of_one_core_random_ceiling=speed / bound["random"] if bound else None,
        **{f"{name}_ceiling": value for name, value in bound.items()},
    )


@pytest.mark.parametrize("batch_size", BATCHES)
@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("d", COLUMNS)
def test_descend(benchmark: Any, d: int, name: str, batch_size: int) -> None:
    problem, rows, bound = case(d)
    backend = choose(name, threads=1)
    segment = Segment(rows, np.array([0.05 / d]), batch_size)
    few = Segment(rows[: 3 * batch_size], segment.learning_rate, batch_size)
    reached = start(problem), start(problem)
    backend.descend(problem, reached[0], few)
    choose("reference").descend(problem, reached[1], few)
    np.testing.assert_allclose(reached[0].theta, reached[1].theta, rtol=1e-3, atol=1e-5)
    benchmark.group = f"descend d={d} batch_size={batch_size}"
    state = start(problem)
    benchmark.pedantic(backend.descend, (problem, state, segment), rounds=5, warmup_rounds=1)
    report(benchmark, rows.size, d, bound, 1)


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("d", COLUMNS)
def test_gradient(benchmark: Any, d: int, name: str) -> None:
    problem, rows, bound = case(d)
    backend = choose(name, threads=1)
    theta = np.full(d + 1, 0.1, problem.dtype)
    ours = backend.gradient(problem, theta, rows[:500])
    truth = choose("reference").gradient(problem, theta, rows[:500])
    np.testing.assert_allclose(ours[1], truth[1], rtol=1e-3, atol=1e-2)
    benchmark.group = f"gradient d={d}"
    benchmark.pedantic(backend.gradient, (problem, theta, rows), rounds=5, warmup_rounds=1)
    report(benchmark, rows.size, d, bound, 1)
