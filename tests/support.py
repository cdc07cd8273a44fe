"""What several test files share: members of the tables, data, a Python of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
from collections.abc import Callable, Iterator
from dataclasses import fields

import numpy as np
import oracle
import pytest

from schuss.backends import Problem, Segment, State, available, choose
from schuss.formulas.losses import LOSSES, Loss
from schuss.formulas.penalties import Penalty

BACKENDS = ("reference", "jit", "native")
COMPILED = ("jit", "native")


def backend_or_skip(name: str, threads: int | None = None):
    """The backend of that name; where it is missing, the test says why it is skipped."""
    why = available()[name]
    if why is not None:
        pytest.skip(f"backend {name}: {why}")
    return choose(name, threads=threads)


# Labels of each domain, the boundaries among them.
LABELS = {
    "real": [-1e3, -2.5, -1.0, 0.0, 0.3, 1.0, 4.0, 1e3],
    "binary": [-1.0, 1.0],
    "nonnegative": [0.0, 1.0, 2.5, 7.0, 1e3],
}


def members(row: type) -> list:
    """A row with its defaults, and with each number moved about inside its limits."""
    made = [row()]
    for field in fields(row):
        if field.type == "float":
            limits = field.metadata["limits"]
            low = limits.get(">", limits.get(">=", -3.0))
            high = limits.get("<", limits.get("<=", low + 3.0))
            made += [row(**{field.name: low + part * (high - low)}) for part in (0.03125, 0.75)]
    return made


def all_losses() -> list[Loss]:
    """Every loss of the table, with several parameters each."""
    return [loss for row in LOSSES for loss in members(row)]


def textbook(loss: Loss) -> Callable[[float, float], tuple[float, float]]:
    """Value and slope as the oracle has them.

    A loss that the oracle does not know yet is held to its own row, which finite differences check.
    """
    if loss.name in oracle.LOSSES:
        return lambda m, y: oracle.LOSSES[loss.name](m, y, *loss.parameters)
    return lambda m, y: (float(loss(m, y)), float(loss.derivative(m, y)))


def labels(rng: np.random.Generator, domain: str, n: int) -> np.ndarray:
    """Labels of a domain, shape (n,), float64."""
    if domain == "binary":
        return rng.choice([-1.0, 1.0], n)
    if domain == "nonnegative":
        return rng.poisson(2.0, n).astype(float)
    return rng.integers(-64, 64, n) / 32.0


def integer_problem(
    dtype: np.dtype, n: int, d: int, loss: Loss, weighted: bool = False, intercept: bool = True
) -> tuple[Problem, np.ndarray]:
    """Small integers, so that every sum is exact, and parameters to look at them from."""
    rng = np.random.default_rng([n, d])
    X = rng.integers(-2, 3, (n, d)).astype(dtype)
    y = rng.choice([-1, 1], n) if loss.domain == "binary" else rng.integers(0, 4, n)
    weight = rng.integers(0, 4, n).astype(dtype) if weighted else None
    problem = Problem(X, y.astype(dtype), weight, loss, Penalty(), intercept)
    return problem, rng.integers(-2, 3, d + 1).astype(dtype)


def descended(backend, problem: Problem, state: State, *segments: Segment) -> State:
    """A copy of the state after the segments."""
    state = state.copy()
    for segment in segments:
        backend.descend(problem, state, segment)
    return state


def assert_same_bits(first: State, second: State) -> None:
    """Every bit of two states is the same."""
    for name in ("theta", "slots", "average"):
        a, b = getattr(first, name), getattr(second, name)
        assert (a is None) == (b is None)
        if a is not None:
            assert a.tobytes() == b.tobytes(), name
    assert (first.step, first.averaged) == (second.step, second.averaged)


def row_forms(rows: np.ndarray, backend, dtype: np.dtype) -> Iterator[np.ndarray | tuple[int, int]]:
    """The same rows as 32-bit and 64-bit indices, and as a range where they are one.

    jit, which compiles for each type of index, takes 64 bits with float32 alone.
    """
    yield rows.astype(np.int32)
    if backend.name != "jit" or dtype == np.float32:
        yield rows.astype(np.int64)
    if rows.size and np.array_equal(rows, np.arange(rows[0], rows[0] + rows.size)):
        yield int(rows[0]), int(rows.size)


def run_python(code: str, timeout: float = 120, **environment: str) -> str:
    """Standard output of a Python of its own, which must end well."""
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()
