"""Data of more than 2**31 elements: pointers and sizes are 64 bits wide. Needs 10 GB of memory."""

from __future__ import annotations

import numpy as np
import pytest

from schuss.backends import Problem, Segment, State, choose
from schuss.formulas import losses, rules

N, D = 22_000_000, 100


@pytest.fixture(scope="module")
def large() -> Problem:
    rng = np.random.default_rng(0)
    X = np.empty((N, D), np.float32)
    X[:] = 1
    X[-2000:] = rng.normal(size=(2000, D))
    y = np.zeros(N, np.float32)
    y[-2000:] = rng.normal(size=2000)
    return Problem(X, y, None, losses.squared_error())


@pytest.mark.nightly
@pytest.mark.parametrize("name", ["native", "jit"])
@pytest.mark.parametrize("batch_size", [1, 32])
def test_rows_beyond_two_to_the_31_elements(large: Problem, name: str, batch_size: int) -> None:
    backend = choose(name)
    assert large.X.size > 2**31
    last = np.arange(N - 1999, N, dtype=np.int32)
    alone = Problem(large.X[last], large.y[last], None, large.loss)
    states = [State.start(np.zeros(D + 1, np.float32), rules.sgd()) for _ in range(2)]
    lr = np.array([0.01 / D])
    ours = backend.descend(large, states[0], Segment(last, lr, batch_size))
    theirs = backend.descend(alone, states[1], Segment((0, last.size), lr, batch_size))
    assert ours == theirs
    np.testing.assert_array_equal(states[0].theta, states[1].theta)
    loss, gradient = backend.gradient(large, states[0].theta, (N - 1999, 1999))
    loss_alone, gradient_alone = backend.gradient(alone, states[0].theta, (0, 1999))
    assert loss == loss_alone
    np.testing.assert_array_equal(gradient, gradient_alone)
