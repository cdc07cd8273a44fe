"""The classic step: every backend against the textbook loop, dense and sparse, and side by side."""

from __future__ import annotations

import functools
import itertools

import numpy as np
import oracle
import pytest
from support import all_losses, backend_or_skip, labels, row_forms, textbook

import schuss.losses
from schuss.backends import Problem, Segment
from schuss.backends.classic import ClassicState, ClassicStep
from schuss.data.sparse import CSR
from schuss.formulas.penalties import Penalty

SIZES = [1, 2, 3, 5, 7, 15, 16, 17, 31, 32, 33, 63, 64, 65, 97]
OPTIONS = {
    "plain": {},
    "no intercept": {"intercept": False, "l2": 0.1},
    "l2, slow intercept": {"l2": 0.3, "intercept_decay": 0.01},
    "rates beyond the penalty's": {"l2": 12.0},
    "l1": {"l1": 0.1, "average": True},
    "elastic net": {"l2": 0.1, "l1": 0.05, "weighted": True, "average": True},
    "average": {"l2": 0.1, "average": True},
    "drift": {"drift": 0.4, "l2": 0.4},
    "passive I": {"passive": 1, "aggressiveness": 0.3, "average": True},
    "passive II": {"passive": 2, "aggressiveness": 0.3, "l1": 0.05, "weighted": True},
}
STEP = ("intercept_decay", "drift", "passive", "aggressiveness")
N = 37


def matrix(rng: np.random.Generator, d: int) -> np.ndarray:
    """Rows with about half of their entries; some empty."""
    X = rng.normal(0, 0.7, (N, d)) * (rng.random((N, d)) < 0.5)
    X[2::7] = 0
    return X.astype(np.float32).astype(float)


def csr(X: np.ndarray, index: type) -> CSR:
    """Dense rows as CSR."""
    rows, columns = np.nonzero(X)
    indptr = np.concatenate([[0], np.cumsum(np.bincount(rows, minlength=X.shape[0]))])
    return CSR(X[X != 0], columns.astype(index), indptr.astype(index), X.shape)


@functools.cache
def textbook_run(loss, option: str, d: int, sparse: bool):
    """Data, order, rates, start, and what the textbook makes of them; no margin at a kink."""
    chosen = dict(OPTIONS[option])
    weighted = chosen.pop("weighted", False)
    chosen.pop("average", None)
    for seed in itertools.count():
        rng = np.random.default_rng([seed, d])
        X, y = matrix(rng, d), labels(rng, loss.domain, N)
        weight = rng.integers(0, 4, N) / 2 if weighted else None
        theta = rng.normal(0, 0.5, d + 1).astype(np.float32).astype(float)
        rows, rates = rng.permutation(N).astype(np.int32), 0.1 / (1 + np.arange(N))
        touched = X != 0 if sparse else None
        with np.errstate(all="ignore"):
            run = oracle.descend_classic(
                X, y, textbook(loss), rows, rates, theta, touched=touched, weight=weight, **chosen
            )
        if run.kink < 1e-3:
            return X, y, weight, rows, rates, theta, run


def trained(backend, problem: Problem, option: str, rows, rates, state: ClassicState):
    """The state after the rows, in two segments, and the summed losses."""
    chosen = OPTIONS[option]
    step = ClassicStep(**{name: chosen[name] for name in STEP if name in chosen})
    loss = np.zeros(state.coef.shape[0])
    for part in (slice(0, 20), slice(20, None)):
        segment = Segment(rows[part], rates[part], 1)
        loss += backend.descend_classic(problem, step, state, segment)
    return state, loss


def started(theta: np.ndarray, option: str, dtype, **given) -> ClassicState:
    """The state before the first row."""
    average = np.zeros(theta.shape) if "average" in OPTIONS[option] else None
    soft = OPTIONS[option].get("l1", 0) > 0
    return ClassicState.start(theta.astype(dtype), soft=soft, average=average, **given)


def assert_is_textbook(backend, dtype, index, loss, option: str, d: int) -> None:
    sparse = index is not None
    X, y, weight, rows, rates, theta, expected = textbook_run(loss, option, d, sparse)
    chosen = OPTIONS[option]
    problem = Problem(
        csr(X.astype(dtype), index) if sparse else X.astype(dtype),
        y.astype(dtype),
        None if weight is None else weight.astype(dtype),
        loss,
        Penalty(chosen.get("l2", 0.0), chosen.get("l1", 0.0)),
        chosen.get("intercept", True),
    )
    state = started(theta[None], option, dtype)
    state, total = trained(backend, problem, option, rows, rates, state)
    rtol = 1e-10 if dtype == np.float64 else 2e-3
    scale = rtol * max(1.0, np.abs(expected.theta).max())
    np.testing.assert_allclose(state.theta(0), expected.theta, rtol=0, atol=scale)
    np.testing.assert_allclose(total[0], expected.loss, rtol=rtol, atol=scale)
    if state.average is not None:
        np.testing.assert_allclose(state.average[0], expected.average, rtol=0, atol=scale)
    if dtype == np.float64:  # the penalty's zeros are exact
        np.testing.assert_array_equal(state.theta(0) == 0, expected.theta == 0)


@pytest.mark.parametrize("index", [None, np.int32, np.int64], ids=["dense", "int32", "int64"])
@pytest.mark.parametrize("option", OPTIONS)
def test_steps_are_the_textbook_s(backend, dtype, option, index):
    if backend.name == "jit" and index is not None:
        index = np.int64 if dtype == np.float64 else np.int32  # one compilation for each dtype
    for d in SIZES:
        assert_is_textbook(backend, dtype, index, schuss.losses.get("huber"), option, d)


@pytest.mark.parametrize("loss", all_losses(), ids=str)
def test_every_loss(backend, loss):
    if loss.name == "poisson":
        pytest.skip("poisson: exponential margins at these rates")
    for index in (None, np.int64):
        assert_is_textbook(backend, np.dtype("f8"), index, loss, "elastic net", 5)


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize("option", OPTIONS)
def test_every_instruction_set(native, instruction_set, dtype, option, name):
    instruction_set(name)
    for d in SIZES:
        assert_is_textbook(native, dtype, None, schuss.losses.get("squared_error"), option, d)
    assert_is_textbook(native, dtype, np.int32, schuss.losses.get("squared_error"), option, 33)


@pytest.mark.parametrize("sparse", [False, True])
@pytest.mark.parametrize("option", ["plain", "elastic net", "average", "passive I"])
def test_classes_side_by_side_are_each_by_itself(backend, dtype, option, sparse):
    """One against the rest, with weights of their own, other rates, and one left out."""
    rng = np.random.default_rng(3)
    X, codes = matrix(rng, 19), rng.integers(0, 4, N)
    X = (csr(X.astype(dtype), np.int32 if dtype == np.float32 else np.int64)) if sparse else X
    X = X.astype(dtype) if not sparse else X
    theta = rng.normal(size=(4, 20)).astype(dtype)
    own, factor = np.array([1, 2, 0.5, 3], dtype), np.array([1, 0.5, 0.2, 1])
    rows, rates = rng.permutation(N).astype(np.int32), np.full(N, 0.03)
    chosen, loss = OPTIONS[option], schuss.losses.get("hinge")
    penalty = Penalty(chosen.get("l2", 0.0), chosen.get("l1", 0.0))
    state = started(theta, option, dtype, own=own)
    state.active, state.factor = np.array([3, 0, 2]), factor
    problem = Problem(X, codes.astype(dtype), None, loss, penalty)
    state, total = trained(backend, problem, option, rows, rates, state)
    np.testing.assert_array_equal(state.theta(1), theta[1])
    rtol = 1e-4 if dtype == np.float32 else 1e-9
    for k in (0, 2, 3):
        label = np.where(codes == k, 1, -1).astype(dtype)
        weight = np.where(codes == k, own[k], 1).astype(dtype)
        alone = started(theta[k : k + 1], option, dtype)
        alone.factor = factor[k : k + 1]
        problem = Problem(X, label, weight, loss, penalty)
        alone, part = trained(backend, problem, option, rows, rates, alone)
        np.testing.assert_allclose(state.theta(k), alone.theta(0), rtol=rtol)
        np.testing.assert_allclose(total[k], part[0], rtol=rtol)
        if state.average is not None:
            np.testing.assert_allclose(state.average[k], alone.average[0], rtol=rtol)


def test_rows_of_every_form(backend, dtype):
    rng = np.random.default_rng(0)
    problem = Problem(
        matrix(rng, 9).astype(dtype), np.ones(N, dtype), None, schuss.losses.get("hinge")
    )
    made = []
    for rows in row_forms(np.arange(4, 30), backend, dtype):
        state = ClassicState.start(np.zeros((1, 10), dtype))
        backend.descend_classic(problem, ClassicStep(), state, Segment(rows, np.array([0.1]), 1))
        made.append(state.theta(0))
    for theta in made[1:]:
        np.testing.assert_array_equal(theta, made[0])


def test_slopes_are_cut_off(backend):
    """A slope of 1e100 makes a step of 1e12."""
    X, y = np.array([[1.0]]), np.array([1e100])
    problem = Problem(X, y, None, schuss.losses.get("squared_error"))
    state = ClassicState.start(np.zeros((1, 2)))
    backend.descend_classic(problem, ClassicStep(), state, Segment((0, 1), np.array([1.0]), 1))
    np.testing.assert_array_equal(state.theta(0), [1e12, 1e12])


def test_a_scale_that_vanishes_is_folded_into_the_weights():
    """Thousands of steps of strong decay on sparse rows."""
    for name in ("native", "jit", "reference"):
        backend = backend_or_skip(name)
        X = csr(np.array([[1.0, 0.0], [0.0, 1.0]]), np.int64)
        problem = Problem(X, np.ones(2), None, schuss.losses.get("squared_error"), Penalty(l2=0.9))
        state = ClassicState.start(np.ones((1, 3)), average=np.zeros((1, 3)))
        rows, rates = np.arange(200) % 2, np.full(200, 0.9)
        backend.descend_classic(problem, ClassicStep(), state, Segment(rows, rates, 1))
        expected = oracle.descend_classic(
            np.eye(2), np.ones(2), oracle.squared_error, rows, rates, np.ones(3), l2=0.9
        )
        np.testing.assert_allclose(state.theta(0), expected.theta, rtol=1e-12)
        np.testing.assert_allclose(state.average[0], expected.average, rtol=0, atol=1e-13)
