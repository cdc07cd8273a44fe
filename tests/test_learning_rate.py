"""learning_rate="auto": near the optimum without a choice, and never beyond stability."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import schuss
from schuss import curvature
from schuss.backends import Problem, choose

N, D = 600, 6


def problem(kind: str, seed: int = 0, n: int = N, d: int = D, scale: float = 1.0):
    rng = np.random.default_rng([seed, n, d])
    X = rng.normal(size=(n, d)) @ (np.eye(d) + 0.3 * rng.normal(size=(d, d))) * scale
    margin = X @ rng.normal(size=d) / scale / np.sqrt(d) + 0.5
    if kind == "real":
        return X, margin + 0.3 * rng.normal(size=n)
    if kind == "binary":
        return X, np.where(margin + 0.5 * rng.logistic(size=n) > 0, 1, -1)
    return X, rng.poisson(np.exp(0.5 * margin)).astype(float)


def objective(X, y, loss, coef, intercept, alpha=0.0) -> float:
    margin = X @ coef + intercept
    return float(np.mean(schuss.losses.get(loss)(margin, y)) + alpha / 2 * coef @ coef)


def optimum(X, y, loss, alpha=0.0) -> float:
    """By scipy's L-BFGS, from the loss's own formulas."""
    optimize = pytest.importorskip("scipy.optimize")
    A, the_loss = np.column_stack([X, np.ones(len(X))]), schuss.losses.get(loss)

    def both(theta):
        margin = A @ theta
        slope = A.T @ the_loss.derivative(margin, y) / len(y)
        slope[:-1] += alpha * theta[:-1]
        return objective(X, y, loss, theta[:-1], theta[-1], alpha), slope

    return optimize.minimize(both, np.zeros(A.shape[1]), jac=True, method="L-BFGS-B").fun


LOSSES = {
    "squared_error": "real",
    "mse": "real",
    "huber(epsilon=0.5)": "real",
    "squared_epsilon_insensitive": "real",
    "log_loss": "binary",
    "squared_hinge": "binary",
    "modified_huber": "binary",
    "poisson": "counts",
}


@pytest.mark.parametrize("batch_size", [1, 8, 32, 256, "full"])
@pytest.mark.parametrize("loss", LOSSES)
def test_comes_near_the_optimum(loss, batch_size):
    X, y = problem(LOSSES[loss])
    best, start = optimum(X, y, loss), objective(X, y, loss, np.zeros(D), 0.0)
    result = schuss.fit(X, y, loss=loss, batch_size=batch_size, epochs=60)
    found = objective(X, y, loss, result.coef, result.intercept)
    part = 0.02 if batch_size != "full" else 0.1  # sixty steps only
    assert best - 1e-9 <= found <= best + part * (start - best)


@pytest.mark.parametrize("loss", ["hinge", "perceptron", "epsilon_insensitive", "quantile"])
@pytest.mark.parametrize("batch_size", [1, 32])
def test_losses_without_a_second_derivative(loss, batch_size):
    kind = "binary" if loss in ("hinge", "perceptron") else "real"
    X, y = problem(kind)
    result = schuss.fit(X, y, loss=loss, batch_size=batch_size, epochs=60)
    fine = schuss.fit(
        X, y, loss=loss, batch_size=1, epochs=300, learning_rate="power(0.3, exponent=0.75)"
    )
    start = objective(X, y, loss, np.zeros(D), 0.0)
    best = objective(X, y, loss, fine.coef, fine.intercept)
    found = objective(X, y, loss, result.coef, result.intercept)
    if loss == "perceptron":  # whose optimum is anything near zero
        assert result.score(X, y) > 0.6
    else:
        assert found <= best + 0.05 * (start - best)


@pytest.mark.parametrize("rule", ["sgd(momentum=0.9)", "sgd(momentum=0.9, nesterov=True)", "adam",
                                  "adamw", "adagrad"])  # fmt: skip
@pytest.mark.parametrize("batch_size", [8, 64])
def test_other_rules(rule, batch_size):
    X, y = problem("binary")
    best, start = optimum(X, y, "log_loss"), np.log(2)
    result = schuss.fit(X, y, loss="log_loss", rule=rule, batch_size=batch_size, epochs=60)
    found = objective(X, y, "log_loss", result.coef, result.intercept)
    assert found <= best + 0.05 * (start - best)


@pytest.mark.parametrize("alpha", [0.01, 1.0, 100.0])
def test_the_penalty_counts(alpha):
    X, y = problem("real")
    best = optimum(X, y, "squared_error", alpha)
    start = objective(X, y, "squared_error", np.zeros(D), 0.0)
    result = schuss.fit(X, y, alpha=alpha, epochs=100)
    found = objective(X, y, "squared_error", result.coef, result.intercept, alpha)
    assert found <= best + 0.02 * max(start - best, 0.1)


def test_logistic_regression_of_scikit_learn():
    linear_model = pytest.importorskip("sklearn.linear_model")
    X, y = problem("binary")
    alpha = 1e-3
    theirs = linear_model.LogisticRegression(C=1 / (alpha * N), tol=1e-10).fit(X, y)
    ours = schuss.fit(X, y, loss="log_loss", alpha=alpha, epochs=200)
    np.testing.assert_allclose(ours.coef, theirs.coef_[0], atol=0.05)
    assert ours.intercept == pytest.approx(theirs.intercept_[0], abs=0.05)


def test_least_squares_in_closed_form():
    X, y = problem("real")
    expected = np.linalg.lstsq(np.column_stack([X, np.ones(N)]), y, rcond=None)[0]
    result = schuss.fit(X, y, epochs=200)
    np.testing.assert_allclose(np.append(result.coef, result.intercept), expected, atol=0.02)


# ---- Never beyond stability ----------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:columns of X differ in scale")
@given(
    seed=st.integers(0, 10**6),
    n=st.integers(2, 200),
    d=st.integers(1, 20),
    scale=st.sampled_from([1e-6, 1e-3, 1.0, 30.0, 1e3, 1e6]),
    batch_size=st.sampled_from([1, 2, 7, 32, "full"]),
    loss=st.sampled_from(sorted(LOSSES)),
    momentum=st.sampled_from([0.0, 0.5, 0.9, 0.99]),
    order=st.sampled_from(["shuffle", "replacement", "blocks(rows=4, buffer=4)"]),
    dtype=st.sampled_from(["float32", "float64"]),
)
@example(0, 2, 1, 1.0, "full", "squared_error", 0.0, "replacement", "float64")
def test_never_diverges(seed, n, d, scale, batch_size, loss, momentum, order, dtype):
    X, y = problem(LOSSES[loss], seed, n, d, scale)
    if LOSSES[loss] == "binary":
        y[0], y[1] = 1, -1
    if isinstance(batch_size, int):
        batch_size = min(batch_size, n)
    result = schuss.fit(
        X,
        y,
        loss=loss,
        batch_size=batch_size,
        rule=schuss.rules.sgd(momentum=momentum),
        order=order,
        epochs=40,
        dtype=dtype,
        evaluate="full",
    )
    losses = result.history["train_loss"]
    start = objective(X, y, loss, np.zeros(d), 0.0)
    # Draws with replacement are noisy at any rate; what diverges grows by powers.
    assert losses[-1] <= (20 if order == "replacement" else 1.5) * start + 1e-6


@pytest.mark.parametrize("order", ["weighted", "stratified(balanced=True)"])
@pytest.mark.parametrize("batch_size", [1, 16, "full"])
def test_orders_that_visit_large_rows_more_often(order, batch_size):
    """One row in twenty is ten times as long; the order visits it half the time."""
    X, y = problem("binary")
    rare = np.arange(N) % 20 == 0
    X[rare] *= 10
    y = np.where(rare, 1, -1)
    weight = np.where(rare, 19.0, 1.0) if order == "weighted" else None
    result = schuss.fit(
        X,
        y,
        loss="squared_hinge",
        order=order,
        sample_weight=weight,
        batch_size=batch_size,
        epochs=100,
        evaluate="full",
    )
    losses = result.history["train_loss"]
    assert np.isfinite(losses).all() and losses[-1] < 2 * losses.min()


def test_columns_that_cancel_each_other_hide_no_curvature():
    """A dummy column and its complement, standardized: their sum is zero for every row."""
    column = np.sign(np.random.default_rng(0).normal(size=(500, 1)))
    column -= column.mean()
    X = np.hstack([column, -column] * 5)
    y = X @ np.arange(10.0)
    result = schuss.fit(X, y, batch_size="full", epochs=100)
    assert result.history["train_loss"][-1] < 1e-3 * result.history["train_loss"][0]


# ---- What is measured ----------------------------------------------------------------------


def test_the_measured_curvature(backend, dtype):
    X, y = problem("real")
    weight = np.random.default_rng(1).random(N) + 0.5
    A = np.column_stack([X, np.ones(N)])
    for loss, bound in [("squared_error", 1.0), ("mse", 2.0), ("huber", 1.0)]:
        for w in (None, weight):
            given = Problem(
                X.astype(dtype),
                y.astype(dtype),
                None if w is None else w.astype(dtype),
                schuss.losses.get(loss),
            )
            found = curvature.measure(choose(backend), given, None, N, 0.25)
            s = np.ones(N) if w is None else w
            mean = np.linalg.eigvalsh((A * s[:, None]).T @ A / N)[-1]
            assert found.mean == pytest.approx(bound * mean + 0.25, rel=0.02)
            assert found.sample == pytest.approx(
                bound * (s * (A**2).sum(axis=1)).max() + 0.25, rel=1e-5
            )


def test_the_limit_interpolates_between_one_row_and_all():
    found = curvature.Curvature(mean=1.0, sample=10.0, n=100)
    assert found.of_batch(1) == 10.0 and found.of_batch(100) == 1.0
    values = [found.of_batch(b) for b in range(1, 101)]
    assert np.all(np.diff(values) < 0)
    # Gower et al. 2019: n (b - 1) / (b (n - 1)) L + (n - b) / (b (n - 1)) L_max
    assert found.of_batch(10) == pytest.approx(100 * 9 / (10 * 99) + 90 / (10 * 99) * 10)
    assert found.limit(1) == 0.2
    assert curvature.Curvature(0.0, 0.0, 5).limit(2) == float("inf")


def test_the_schedule_that_is_chosen():
    X, y = problem("real")
    A = np.column_stack([X, np.ones(N)])
    limit = 2 / np.linalg.eigvalsh(A.T @ A / N)[-1]
    full = schuss.fit(X, y, batch_size="full", epochs=3)
    chosen = schuss.schedules.get(full.config["learning_rate"])
    assert chosen.is_constant and float(chosen(0)) == pytest.approx(limit / 2, rel=0.02)
    half = schuss.fit(X, y, batch_size="full", epochs=3, rule="sgd(momentum=0.5)")
    slow = schuss.schedules.get(half.config["learning_rate"])
    assert float(slow(0)) == pytest.approx(limit / 4, rel=0.02)
    batches = schuss.fit(X, y, batch_size=32, epochs=3)
    falling = schuss.schedules.get(batches.config["learning_rate"])
    assert isinstance(falling, schuss.schedules.cosine) and falling.steps == 3 * 19
    assert batches.history["learning_rate"][0] > batches.history["learning_rate"][-1] > 0
    by_updates = schuss.fit(X, y, batch_size=32, updates=7)
    assert schuss.schedules.get(by_updates.config["learning_rate"]).steps == 7
    adam = schuss.fit(X, y, rule="adam", epochs=1)
    assert float(schuss.schedules.get(adam.config["learning_rate"])(0)) == 0.01


def test_accumulated_batches_count_as_one():
    X, y = problem("real")
    a = schuss.fit(X, y, batch_size=8, accumulate=4, epochs=2, order="sequential")
    b = schuss.fit(X, y, batch_size=32, epochs=2, order="sequential")
    assert a.config["learning_rate"] == b.config["learning_rate"]
    assert a.coef.tobytes() == b.coef.tobytes()


def test_held_out_rows_are_not_measured():
    X, y = problem("real")
    train = schuss.fit(
        np.eye(N), np.ones(N), batch_size=1, fit_intercept=False, epochs=1, validation=0.5,
        learning_rate=0.5,
    ).coef != 0  # fmt: skip
    spoiled = X.copy()
    spoiled[~train] *= 50
    a = schuss.fit(X, y, validation=0.5, epochs=1)
    b = schuss.fit(spoiled, y, validation=0.5, epochs=1)
    assert a.config["learning_rate"] == b.config["learning_rate"]
    assert a.coef.tobytes() == b.coef.tobytes()


def test_data_without_any_curvature():
    result = schuss.fit(np.zeros((20, 2)), np.ones(20), fit_intercept=False, epochs=1)
    assert result.coef.tolist() == [0, 0]
