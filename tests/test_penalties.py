"""The penalty: its value, its gradient, and the proximal step."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import schuss.losses
import schuss.rules
from schuss.backends import Problem, Segment, State
from schuss.formulas.penalties import Penalty, shrink_towards_zero

numbers = st.floats(-1e6, 1e6)
amounts = st.floats(0, 1e6)


def test_value():
    assert Penalty(l2=0.5, l1=0.25)(np.array([1.0, -2.0])) == 0.25 * 5 + 0.25 * 3
    assert Penalty()(np.ones((3, 2))) == 0.0
    assert Penalty(l1=1.0)(np.array([[1.0, -2.0], [3.0, 0.0]])) == 6.0


def test_value_is_summed_in_float64():
    assert Penalty(l2=2.0)(np.full(2, 1e30, np.float32)) == pytest.approx(2e60)


@given(alpha=amounts, ratio=st.floats(0, 1))
def test_elastic_net_splits_alpha(alpha, ratio):
    penalty = Penalty.elastic_net(alpha, ratio)
    assert penalty.l1 == alpha * ratio
    assert penalty.l2 == alpha * (1 - ratio)


@given(w=numbers, amount=amounts)
def test_shrinking_moves_towards_zero_and_stops_there(w, amount):
    shrunk = float(shrink_towards_zero(w, amount))
    assert shrunk == np.sign(w) * max(abs(w) - amount, 0)
    assert abs(shrunk) <= abs(w)
    assert shrunk * w >= 0


@given(w=st.floats(-10, 10), amount=st.floats(0, 10))
def test_shrinking_is_the_proximal_step(w, amount):
    """No other point makes half the squared distance plus amount * |.| smaller."""

    def objective(v):
        return 0.5 * (v - w) ** 2 + amount * np.abs(v)

    least = objective(float(shrink_towards_zero(w, amount)))
    assert least <= objective(np.linspace(-11, 11, 2001)).min() + 1e-12


def test_shrinking_works_on_arrays_and_scalars(dtype):
    w = np.array([-3, -1, -0.5, 0, 0.5, 1, 3], dtype)
    shrunk = shrink_towards_zero(w, dtype.type(1))
    assert shrunk.dtype == dtype
    np.testing.assert_array_equal(shrunk, [-2, 0, 0, 0, 0, 0, 2])
    np.testing.assert_array_equal(shrunk, [shrink_towards_zero(x, dtype.type(1)) for x in w])


@pytest.mark.parametrize("batch_size", [1, 2])
@pytest.mark.parametrize("rule", ["sgd", "sgd(momentum=0.5)"])
def test_l1_gives_exact_zeros_and_spares_the_intercept(backend, dtype, batch_size, rule):
    """With no loss to pay, a weight shrinks by rate * l1 per step until it is zero."""
    problem = Problem(
        np.zeros((4, 3), dtype),
        np.full(4, 8, dtype),
        None,
        schuss.losses.squared_error(),
        Penalty(l1=1.0),
    )
    state = State.start(np.array([0.25, -1.0, 2.0, 8.0], dtype), schuss.rules.get(rule))
    backend.descend(problem, state, Segment((0, 4), np.array([0.25]), batch_size))
    shrunk = 0.25 * 4 / batch_size
    np.testing.assert_array_equal(state.theta, [0, -1 + shrunk, 2 - shrunk, 8])


def test_l2_joins_the_gradient(backend, dtype):
    problem = Problem(
        np.zeros((4, 2), dtype),
        np.full(4, 8, dtype),
        None,
        schuss.losses.squared_error(),
        Penalty(l2=0.5),
    )
    state = State.start(np.array([3.0, -4.0, 8.0], dtype), schuss.rules.sgd())
    _, norm = backend.descend(problem, state, Segment((0, 4), np.array([0.5]), 4))
    np.testing.assert_array_equal(state.theta, [3 * 0.75, -4 * 0.75, 8])
    assert norm == 2.5


def test_penalties_are_no_part_of_the_gradient_verb(backend, dtype):
    X, y = np.ones((2, 1), dtype), np.ones(2, dtype)
    theta = np.array([3, 0], dtype)
    plain = Problem(X, y, None, schuss.losses.squared_error())
    penalised = Problem(X, y, None, schuss.losses.squared_error(), Penalty(l2=1.0, l1=1.0))
    for problem in (plain, penalised):
        loss, gradient = backend.gradient(problem, theta, (0, 2))
        assert loss == 4.0
        np.testing.assert_array_equal(gradient, [4, 4])
