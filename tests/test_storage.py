"""X stored in 16 bits: read as it is stored, computed with in float32."""

from __future__ import annotations

import dataclasses

import ml_dtypes
import numpy as np
import pytest
from support import descended

import schuss
from schuss.backends import Problem, Segment, State
from schuss.errors import DataError
from schuss.formulas.penalties import Penalty

STORED = [np.dtype(np.float16), np.dtype(ml_dtypes.bfloat16)]
WIDTHS = [1, 2, 3, 5, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97, 130]
RNG = np.random.default_rng(3)


@pytest.fixture(params=STORED, ids=lambda dtype: dtype.name)
def stored(request) -> np.dtype:
    return request.param


def pair_of_problems(stored, d: int, n: int = 150) -> tuple[Problem, Problem]:
    """The same numbers in 16 bits and in float32."""
    X = RNG.normal(size=(n, d)).astype(stored)
    X[0] *= np.float32(1e-6).astype(stored)  # float16 has them as subnormals
    y = RNG.normal(size=n).astype(np.float32)
    weight = RNG.uniform(0.5, 2, n).astype(np.float32)
    narrow = Problem(X, y, weight, schuss.losses.huber(), Penalty(l2=0.01))
    return narrow, dataclasses.replace(narrow, X=X.astype(np.float32))


@pytest.mark.parametrize("d", WIDTHS)
def test_every_verb_reads_the_numbers_as_stored(backend, stored, d):
    narrow, wide = pair_of_problems(stored, d)
    theta = RNG.normal(size=d + 1).astype(np.float32)
    rows = RNG.permutation(150).astype(np.int32)
    close = dict(rtol=1e-4, atol=1e-4)
    assert backend.margin(narrow.X, theta, rows).dtype == np.float32
    for verb in (
        lambda problem: backend.margin(problem.X, theta, rows),
        lambda problem: backend.gradient(problem, theta, rows)[1],
        lambda problem: backend.variance(problem, theta, rows)[1],
        lambda problem: backend.variance(problem, theta, rows)[2],
    ):
        np.testing.assert_allclose(verb(narrow), verb(wide), **close)
    for batch_size in (1, 3, 32, 150):
        for penalty in (narrow.penalty, Penalty(l2=0.01, l1=0.02)):
            start = State.start(theta, schuss.rules.sgd())
            segment = Segment(rows, np.array([0.01]), batch_size)
            a, b = (
                descended(backend, dataclasses.replace(p, penalty=penalty), start, segment)
                for p in (narrow, wide)
            )
            np.testing.assert_allclose(a.theta, b.theta, **close)


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512", "neon"])
@pytest.mark.parametrize("d", WIDTHS)
def test_every_instruction_set_reads_them(native, instruction_set, stored, name, d):
    instruction_set(name)
    test_every_verb_reads_the_numbers_as_stored(native, stored, d)


def test_average_and_momentum(backend, stored):
    narrow, wide = pair_of_problems(stored, 33)
    segment = Segment((0, 150), np.array([0.01]), 1)
    for rule in (schuss.rules.sgd(), schuss.rules.sgd(momentum=0.9)):
        start = State.start(np.zeros(34, np.float32), rule)
        start.average = np.zeros(34)
        a, b = (descended(backend, problem, start, segment) for problem in (narrow, wide))
        np.testing.assert_allclose(a.average, b.average, rtol=1e-4, atol=1e-5)


def test_fit_keeps_x_as_it_is_stored(backend, stored):
    X = RNG.normal(size=(400, 4)).astype(stored)
    y = X.astype(np.float32) @ np.float32([1, -2, 3, 0.5]) + 1
    kept = X.copy()
    result = schuss.fit(X, y, epochs=30, backend=backend, validation=0.1, evaluate="both")
    np.testing.assert_allclose(result.coef, [1, -2, 3, 0.5], atol=0.02)
    assert result.coef.dtype == np.float32 and result.config["dtype"] == stored.name
    np.testing.assert_array_equal(X, kept)
    assert result.score(X, y) > 0.999
    loss, slope, _ = schuss.gradient(X, y, result.coef, result.intercept, backend=backend)
    assert loss < 1e-3 and np.abs(slope).max() < 0.1


def test_a_dtype_asked_for_is_converted_to(stored):
    X = RNG.normal(size=(100, 3)).astype(stored)
    y = X[:, 0].astype(np.float32)
    assert schuss.fit(X, y, epochs=1, dtype="float64").coef.dtype == np.float64
    assert schuss.fit(X, y, epochs=1, dtype="float32").config["dtype"] == "float32"


def test_several_outputs_are_computed_in_float32(stored):
    X = RNG.normal(size=(200, 3)).astype(stored)
    Y = X.astype(np.float32) @ RNG.normal(size=(3, 2)).astype(np.float32)
    result = schuss.fit(X, Y, epochs=30)
    assert result.coef.shape == (2, 3) and result.score(X, Y) > 0.999


def test_what_is_not_finite_is_named(stored):
    X = np.ones((5, 2)).astype(stored)
    X[3, 1] = np.nan
    with pytest.raises(DataError, match=r"X\[3, 1\] is nan"):
        schuss.fit(X, np.arange(5.0))
    large = np.full((3000, 2), 60000).astype(stored)  # whose sum is beyond float16
    assert np.isfinite(schuss.gradient(large, np.zeros(3000), [0.0, 0.0])[0])


def test_training_resumes_to_the_same_bits(stored, tmp_path):
    X = RNG.normal(size=(300, 5)).astype(stored)
    y = X[:, 1].astype(np.float32)
    path = tmp_path / "run.ckpt"
    schuss.fit(X, y, updates=7, checkpoint=schuss.data.Checkpoint(path), learning_rate=0.01)
    resumed = schuss.fit(
        X, y, updates=19, checkpoint=schuss.data.Checkpoint(path), learning_rate=0.01
    )
    whole = schuss.fit(X, y, updates=19, learning_rate=0.01)
    assert resumed.coef.tobytes() == whole.coef.tobytes()
