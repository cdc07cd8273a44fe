"""Throughput of ``descend`` and ``gradient``: backend x columns x batch size.

    pytest bench --benchmark-enable --benchmark-json=kernels.json   (minutes; n * d = 10^8)
    SCHUSS_BENCH_ELEMENTS=2000000 pytest bench --benchmark-enable   (a quick look)

``extra_info`` holds samples/s, GB/s of X, and the fraction of the ceiling that binds, measured in
the same process on the same X. Before a kernel is timed, its result is checked against the
reference backend's on a few rows.
"""

from __future__ import annotations

import os
from functools import lru_cache
from typing import Any

import numpy as np
import pytest

import schuss
from schuss.backends import Problem, Segment, State, choose
from schuss.formulas import losses, rules
from schuss.formulas.bijection import round_keys
from schuss.lab.synthetic import ELEMENTS, make

SIZE = int(os.environ.get("SCHUSS_BENCH_ELEMENTS", ELEMENTS))
COLUMNS = (20, 100, 1000)
BATCHES = (1, 8, 32, 256, 4096)
BACKENDS = ("native", "jit")


@lru_cache(maxsize=1)
def case(d: int) -> tuple[Problem, np.ndarray, schuss.lab.Ceilings]:
    """Problem, shuffled rows and ceilings for ``d`` columns; one at a time is kept."""
    loss = losses.squared_error()
    X, y = make(d, SIZE, "float32", loss)
    rows = choose("reference").permute(X.shape[0], round_keys(0, 0), 0, X.shape[0])
    return Problem(X, y, None, loss), rows, schuss.lab.ceilings(X)


def backend(name: str) -> Any:
    why = schuss.backends.available()[name]
    if why is not None:
        pytest.skip(f"backend {name}: {why}")
    return choose(name, threads=1)


def start(problem: Problem) -> State:
    return State.start(np.zeros(problem.n_features + 1, problem.dtype), rules.sgd())


@pytest.mark.parametrize("batch_size", BATCHES)
@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("d", COLUMNS)
def test_descend(throughput: Any, d: int, name: str, batch_size: int) -> None:
    engine = backend(name)
    problem, rows, found = case(d)
    segment = Segment(rows, np.array([0.05 / d]), batch_size)
    few = Segment(rows[: 3 * batch_size], segment.learning_rate, batch_size)
    reached = start(problem), start(problem)
    engine.descend(problem, reached[0], few)
    choose("reference").descend(problem, reached[1], few)
    np.testing.assert_allclose(reached[0].theta, reached[1].theta, rtol=1e-3, atol=1e-5)
    throughput(
        engine.descend,
        problem,
        start(problem),
        segment,
        samples=rows.size,
        ceilings=found,
        bytes_per_sample=problem.X[0].nbytes,
    )


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("d", COLUMNS)
def test_gradient(throughput: Any, d: int, name: str) -> None:
    engine = backend(name)
    problem, rows, found = case(d)
    theta = np.full(d + 1, 0.1, problem.dtype)
    ours = engine.gradient(problem, theta, rows[:500])
    truth = choose("reference").gradient(problem, theta, rows[:500])
    np.testing.assert_allclose(ours[1], truth[1], rtol=1e-3, atol=1e-2)
    throughput(
        engine.gradient,
        problem,
        theta,
        rows,
        samples=rows.size,
        ceilings=found,
        bytes_per_sample=problem.X[0].nbytes,
    )
