"""Every loss of the table: calculus, extremes, three writings that agree, text forms."""

from __future__ import annotations

import copy
import pickle
from dataclasses import fields

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import minimize_scalar
from support import LABELS, all_losses, members, textbook

import schuss
import schuss.losses
from schuss.backends import Problem
from schuss.errors import InvalidArgument, InvalidType
from schuss.formulas.losses import DOMAINS, LOSSES, VECTOR_LOSSES, Loss

every_row = pytest.mark.parametrize("row", list(LOSSES), ids=lambda row: row.__name__)
every_loss = pytest.mark.parametrize("loss", all_losses(), ids=str)

MODERATE = [-20.0, -5.0, -2.5, -1.0, -0.3, 0.0, 1e-6, 0.1, 0.3, 1.0, 2.5, 5.0, 20.0]
# 37 is where 1 + exp(-m) becomes 1 in float64, 1e3 where exp overflows, and 1e20 squared does not
# fit float32.
EXTREME = [sign * size for size in (37.0, 1e3, 1e20) for sign in (1, -1)]


# ---------------------------------------------------------------------------------- calculus


@every_loss
def test_value_and_slope_are_the_textbooks(loss):
    for y in LABELS[loss.domain]:
        for m in MODERATE:
            value, slope = textbook(loss)(m, y)
            np.testing.assert_allclose(loss(m, y), value, rtol=1e-13, atol=1e-13)
            np.testing.assert_allclose(loss.derivative(m, y), slope, rtol=1e-13, atol=1e-13)


@every_row
@given(data=st.data())
def test_slope_is_the_finite_difference_of_value(row, data):
    """Between its neighbours' slopes, so at a kink any of the subgradients will do."""
    loss = data.draw(st.sampled_from(members(row)))
    y = data.draw(st.sampled_from(LABELS[row.domain]))
    centre = data.draw(st.sampled_from([0.0, y])) if row.domain == "real" else 0.0
    m = centre + data.draw(st.floats(-8, 8))
    h = 1e-4
    difference = float(loss(m + h, y) - loss(m - h, y)) / (2 * h)
    slopes = [float(loss.derivative(m + k * h, y)) for k in (-1, 0, 1)]
    rounding = 1e-15 * (1 + abs(m * y) + abs(float(loss(m, y)))) / h
    assert min(slopes) - rounding <= difference <= max(slopes) + rounding


@every_loss
def test_slope_is_zero_at_the_minimum(loss):
    for y in LABELS[loss.domain]:
        centre = y if loss.domain == "real" else 0.0
        least = minimize_scalar(
            lambda m, y=y: float(loss(m, y)),
            bounds=(centre - 60, centre + 60),
            method="bounded",
            options={"xatol": 1e-10},
        )
        h = 1e-4 * (1 + abs(least.x))
        left, right = (float(loss.derivative(least.x + side * h, y)) for side in (-1, 1))
        small = 4 * h * loss.curvature_bound(np.array([y]))
        assert left <= small, y
        assert right >= -small, y


@every_loss
def test_curvature_bounds_the_second_derivative(loss):
    """Away from kinks, where the slope jumps however close one looks."""
    y = np.array(LABELS[loss.domain])[:, None]
    m = y * [[0.0]] + np.linspace(-6, 6, 481)
    if loss.domain == "nonnegative":  # there, as far as predictions stay within the labels
        m = m[:, loss.predict(m[0]) <= y.max()]
    bound = loss.curvature_bound(y.ravel())

    def second(h):
        return (loss.derivative(m + h, y) - loss.derivative(m - h, y)) / (2 * h)

    smooth = np.abs(second(1e-5)) < 2 * np.abs(second(1e-4)) + 1e-6
    assert smooth.mean() > 0.9
    assert second(1e-5)[smooth].max() <= bound * (1 + 1e-4)


@every_loss
def test_curvature_is_a_positive_number(loss):
    bound = loss.curvature_bound(np.array(LABELS[loss.domain]))
    assert np.isfinite(bound) and bound > 0


@every_loss
def test_prediction_is_in_the_unit_of_the_label(loss):
    margin = np.array([-1.0, 0.0, 2.0])
    prediction = loss.predict(margin)
    assert prediction.shape == margin.shape
    assert (np.diff(prediction) > 0).all()
    if loss.domain == "nonnegative":
        assert (prediction >= 0).all()


@every_row
def test_domain_is_declared(row):
    assert row.domain in DOMAINS


# --------------------------------------------------------------------- the writings, and extremes


def value_and_slope(backend, loss: Loss, m: float, y: float, dtype) -> tuple[float, float]:
    """What a backend computes for one sample: the intercept's gradient is the slope."""
    problem = Problem(np.ones((1, 1), dtype), np.array([y], dtype), None, loss)
    value, gradient = backend.gradient(problem, np.array([0, m], dtype), (0, 1))
    return value, gradient[1]


def assert_writings_agree(backend, loss: Loss, dtype) -> None:
    """The backend's value and slope are the table's, in float64, but for a few roundings."""
    parameters = [float(dtype.type(p)) for p in loss.parameters]
    exact = type(loss)(*parameters)
    eps, top = np.finfo(dtype).eps, float(np.finfo(dtype).max)
    for y in np.array(LABELS[loss.domain], dtype).astype(float):
        for m in np.array(MODERATE + EXTREME, dtype).astype(float):
            with np.errstate(over="ignore"):
                expected = float(exact(m, y)), float(exact.derivative(m, y))
            # Near its zero a formula is the small difference of terms as large as these.
            terms = (1 + abs(m)) * (1 + abs(y)) if abs(m) < 37 else abs(y)
            computed = value_and_slope(backend, loss, m, y, dtype)
            for got, want in zip(computed, expected, strict=True):
                where = f"margin {m}, label {y}: {got}, expected {want}"
                assert not np.isnan(got), where
                if abs(want) > top:
                    assert abs(got) >= top and np.sign(got) == np.sign(want), where
                else:
                    assert abs(got - want) <= 8 * eps * (abs(want) + terms), where


@every_loss
def test_writings_agree(backend, dtype, loss):
    assert_writings_agree(backend, loss, dtype)


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512", "neon"])
def test_native_writings_agree(native, instruction_set, name, dtype):
    instruction_set(name)
    for loss in all_losses():
        assert_writings_agree(native, loss, dtype)


@every_loss
def test_arrays_and_scalars_have_the_same_bits(loss):
    m = np.array(MODERATE)
    for y in LABELS[loss.domain]:
        for function in (loss, loss.derivative):
            each = [float(function(x, y)) for x in m]
            np.testing.assert_array_equal(function(m, np.full(m.size, y)), each)


@every_loss
def test_weights_multiply(backend, dtype, loss):
    """By powers of two, so that the product is exact."""
    weights = np.array([0, 0.5, 1, 4], dtype)
    X = np.ones((weights.size, 1), dtype)
    for y in LABELS[loss.domain]:
        theta = np.array([0.25, 0.3], dtype)
        y_all = np.full(weights.size, y, dtype)
        value, gradient = backend.gradient(Problem(X, y_all, None, loss), theta, (0, 1))
        for i, weight in enumerate(weights):
            problem = Problem(X, y_all, weights, loss)
            weighted_value, weighted = backend.gradient(problem, theta, (i, 1))
            assert weighted_value == weight * value
            np.testing.assert_array_equal(weighted, weight * gradient)


# ------------------------------------------------------------------------------ value objects


@every_loss
def test_value_object(loss):
    for same in (pickle.loads(pickle.dumps(loss)), copy.deepcopy(loss)):
        assert same == loss
        assert hash(same) == hash(loss)
    assert loss != "hinge"
    with pytest.raises(AttributeError):
        loss.domain = "real"


@every_loss
def test_text_form_and_repr_round_trip(loss):
    assert schuss.losses.get(str(loss)) == loss
    assert eval(repr(loss), {"schuss": schuss}) == loss


@every_row
@given(data=st.data())
def test_text_form_keeps_every_digit(row, data):
    limits = {field.name: field.metadata["limits"] for field in fields(row)}
    numbers = {
        name: data.draw(
            st.floats(
                min_value=limit.get(">", limit.get(">=")),
                max_value=limit.get("<", limit.get("<=", 1e300)),
                exclude_min=">" in limit,
                exclude_max="<" in limit,
                allow_nan=False,
                allow_infinity=False,
            )
        )
        for name, limit in limits.items()
    }
    loss = row(**numbers)
    assert schuss.losses.get(str(loss)) == loss
    assert eval(repr(loss), {"schuss": schuss}) == loss


@every_row
def test_parameters_are_checked(row):
    for field in fields(row):
        name, limits = field.name, field.metadata["limits"]
        for value in (float("nan"), float("inf"), -float("inf"), 10**400):
            with pytest.raises(InvalidArgument, match=name):
                row(**{name: value})
        for value in ("1.5", None, True, np.True_, 1j, [1.0], np.ones(2)):
            with pytest.raises(InvalidType, match=name):
                row(**{name: value})
        for sign, limit in limits.items():
            outside = {">": limit, ">=": limit - 0.5, "<": limit, "<=": limit + 0.5}[sign]
            with pytest.raises(InvalidArgument, match=f"{name}.*{sign} {limit:g}"):
                row(**{name: outside})


@every_row
def test_numbers_of_any_kind_become_floats(row):
    for field in fields(row):
        for value in (np.float32(field.default), np.float64(field.default)):
            stored = getattr(row(**{field.name: value}), field.name)
            assert type(stored) is float and stored == float(value)


@every_row
def test_name_stands_for_the_loss(row):
    name = row.__name__
    assert schuss.losses.get(name) == schuss.losses.get(row) == schuss.losses.get(row()) == row()
    assert getattr(schuss.losses, name) is row
    assert row().name == name
    assert row().builtin


@every_row
def test_unknown_name_suggests_the_near_one(row):
    name = row.__name__
    wrong = name[:-1] if name[:-1] not in schuss.losses.names() else name + "x"
    with pytest.raises(InvalidArgument, match=f"loss='{wrong}'.*did you mean") as caught:
        schuss.losses.get(wrong)
    assert all(known in str(caught.value) for known in schuss.losses.names())


def test_public_names_are_the_table():
    rows = [*LOSSES.rows, *VECTOR_LOSSES.rows]
    assert schuss.losses.names() == rows
    assert set(schuss.losses.__all__) == {*rows, "Loss", "custom", "get", "names"}


def test_the_oracle_knows_every_loss():
    assert set(oracle.LOSSES) == set(LOSSES.rows)


def test_native_has_a_struct_for_every_loss(native):
    from schuss import _native

    assert set(_native.losses()) == set(LOSSES.rows)
    assert all(native.supports(loss) is None for loss in all_losses())


# ------------------------------------------------------------------------------ custom losses


def value(m, y):
    return np.log(np.cosh(m - y))


def slope(m, y):
    return np.tanh(m - y)


def test_custom_loss():
    loss = schuss.losses.custom(value, slope, name="log_cosh", curvature=1.0)
    assert str(loss) == loss.name == "log_cosh"
    assert (loss.domain, loss.curvature, loss.parameters) == ("real", 1.0, ())
    assert not loss.builtin
    assert loss(2.0, 1.0) == np.log(np.cosh(1.0))
    assert loss.derivative(2.0, 1.0) == np.tanh(1.0)
    assert loss == schuss.losses.custom(value, slope, name="log_cosh")
    assert loss != schuss.losses.custom(value, slope, name="other")
    assert pickle.loads(pickle.dumps(loss)) == loss
    scope = {"schuss": schuss, "value": value, "slope": slope}
    assert eval(repr(loss), scope) == loss
    assert schuss.losses.get(loss) is loss


def test_custom_loss_of_objects_without_a_name_has_a_repr():
    class Callable:
        def __call__(self, m, y):
            return m - y

    assert "Callable object" in repr(schuss.losses.custom(Callable(), Callable()))


@pytest.mark.parametrize(
    ("arguments", "error", "named"),
    [
        ({"value": 1}, InvalidArgument, "value=1"),
        ({"slope": "x"}, InvalidArgument, "slope='x'"),
        ({"domain": "complex"}, InvalidArgument, "domain='complex'"),
        ({"curvature": 0}, InvalidArgument, "curvature=0"),
        ({"curvature": float("nan")}, InvalidArgument, "curvature=nan"),
        ({"curvature": "large"}, InvalidType, "curvature='large'"),
    ],
)
def test_custom_loss_is_checked(arguments, error, named):
    with pytest.raises(error, match=named):
        schuss.losses.custom(**{"value": value, "slope": slope, **arguments})
