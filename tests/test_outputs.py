"""Several outputs: multinomial losses and k-output regression, on every backend."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pickle

import numpy as np
import oracle
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import r2_score
from support import (
    assert_same_bits,
    backend_or_skip,
    descended,
    labels,
    row_forms,
    run_python,
    textbook,
)

import schuss
import schuss.losses
import schuss.rules
from schuss.backends import Problem, Segment, State, choose
from schuss.errors import DataError, DivergenceError, InvalidArgument
from schuss.formulas.losses import LOSSES, VECTOR_LOSSES
from schuss.formulas.penalties import Penalty

# ----------------------------------------------------------------------------------- the formula

SMOOTHING = [0.0, 0.1, 0.75]
MARGINS = [[0.0, 0.0], [1.0, -2.0, 0.5], [37.0, -37.0, 36.5], [1e3, 0.0, -1e3], [-5.0] * 10]


def test_tables_of_losses():
    assert [row.__name__ for row in VECTOR_LOSSES] == ["multinomial"]
    assert not set(VECTOR_LOSSES.rows) & set(LOSSES.rows)
    assert set(oracle.VECTOR_LOSSES) == set(VECTOR_LOSSES.rows)
    assert schuss.losses.names() == [*LOSSES.rows, *VECTOR_LOSSES.rows]


def test_native_has_a_struct_for_every_vector_loss():
    native = backend_or_skip("native")
    from schuss import _native

    assert _native.vector_losses() == list(VECTOR_LOSSES.rows)
    assert all(native.supports(row()) is None for row in VECTOR_LOSSES)


@pytest.mark.parametrize("smoothing", SMOOTHING)
@pytest.mark.parametrize("margins", MARGINS, ids=len)
def test_multinomial_is_the_textbook(margins, smoothing):
    loss = schuss.losses.multinomial(smoothing)
    for label in range(len(margins)):
        value, slopes = oracle.multinomial(margins, label, smoothing)
        np.testing.assert_allclose(loss(margins, label), value, rtol=1e-13, atol=1e-13)
        np.testing.assert_allclose(loss.derivative(margins, label), slopes, rtol=0, atol=1e-14)


@given(data=st.data())
def test_slopes_are_the_finite_differences_of_the_value(data):
    k = data.draw(st.integers(2, 6))
    margins = np.array(data.draw(st.lists(st.floats(-8, 8), min_size=k, max_size=k)))
    label = data.draw(st.integers(0, k - 1))
    loss = schuss.losses.multinomial(data.draw(st.sampled_from(SMOOTHING)))
    h = 1e-4
    for c in range(k):
        step = h * np.eye(k)[c]
        difference = (loss(margins + step, label) - loss(margins - step, label)) / (2 * h)
        assert abs(difference - loss.derivative(margins, label)[c]) < 1e-8


def test_slopes_sum_to_zero_and_curvature_bounds_the_hessian():
    rng = np.random.default_rng(0)
    loss, h = schuss.losses.multinomial(), 1e-5
    for k in (2, 3, 10):
        margins = rng.normal(0, 2, k)
        np.testing.assert_allclose(loss.derivative(margins, 1).sum(), 0, atol=1e-14)
        hessian = [
            (loss.derivative(margins + h * e, 1) - loss.derivative(margins - h * e, 1)) / (2 * h)
            for e in np.eye(k)
        ]
        largest = np.linalg.eigvalsh(np.array(hessian)).max()
        assert 0 < largest <= loss.curvature
    # Two equal margins reach it.
    two = np.array([[0.25, -0.25], [-0.25, 0.25]])
    assert np.linalg.eigvalsh(two).max() == loss.curvature


def test_two_classes_are_log_loss_at_the_difference_of_the_margins():
    rng = np.random.default_rng(1)
    margins = rng.normal(0, 5, (50, 2))
    label = rng.integers(0, 2, 50)
    difference, sign = margins[:, 1] - margins[:, 0], 2.0 * label - 1
    one, two = schuss.losses.log_loss(), schuss.losses.multinomial()
    np.testing.assert_allclose(two(margins, label), one(difference, sign), rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(
        two.derivative(margins, label)[:, 1], one.derivative(difference, sign), atol=1e-14
    )


def test_arrays_of_samples_are_their_samples():
    rng = np.random.default_rng(2)
    loss, margins = schuss.losses.multinomial(0.1), rng.normal(size=(7, 4))
    label = rng.integers(0, 4, 7)
    np.testing.assert_array_equal(
        loss(margins, label), [loss(m, y) for m, y in zip(margins, label, strict=True)]
    )
    assert loss.derivative(margins, label).shape == margins.shape
    assert loss.derivative(margins.astype(np.float32), label).dtype == np.float32


def test_value_object():
    loss = schuss.losses.get("multinomial(label_smoothing=0.25)")
    assert loss == schuss.losses.multinomial(0.25) == pickle.loads(pickle.dumps(loss))
    assert eval(repr(loss), {"schuss": schuss}) == loss == schuss.losses.get(str(loss))
    assert loss.builtin and loss.domain == "classes"
    for value in (-0.1, 1.0, 1.5, float("nan")):
        with pytest.raises(InvalidArgument, match=r"label_smoothing=.*expected .*>= 0 and < 1"):
            schuss.losses.multinomial(value)
    with pytest.raises(InvalidArgument, match="domain='classes'"):
        schuss.losses.custom(abs, abs, domain="classes")


EXTREME = [0.0, 0.3, -2.5, 37.0, -37.0, 90.0, 1e3, -1e3, 1e20, -1e20]


def assert_writings_agree(backend, dtype) -> None:
    """The intercepts are the margins, their gradient the slopes: but for a few roundings exact."""
    eps = np.finfo(dtype).eps
    for smoothing, k in itertools.product([0.0, 0.125], [2, 3, 10, 17]):
        loss = schuss.losses.multinomial(smoothing)
        for shift in range(len(EXTREME)):
            margins = np.array([EXTREME[(shift + c) % len(EXTREME)] for c in range(k)], dtype)
            theta = np.stack([np.zeros(k), margins], axis=1).astype(dtype).reshape(-1)
            label = shift % k
            problem = Problem(
                np.ones((1, 1), dtype), np.array([label], dtype), None, loss, n_outputs=k
            )
            value, gradient = backend.gradient(problem, theta, (0, 1))
            exact = margins.astype(float)
            expected = loss(exact, label), loss.derivative(exact, label)
            spread = exact.max() - exact.min()
            assert abs(value - expected[0]) <= 8 * eps * (1 + abs(expected[0]) + spread), margins
            assert np.abs(gradient.reshape(k, 2)[:, 1] - expected[1]).max() <= 8 * eps, margins


def test_writings_agree(backend, dtype):
    assert_writings_agree(backend, dtype)


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512", "neon"])
def test_native_writings_agree(native, instruction_set, name, dtype):
    instruction_set(name)
    assert_writings_agree(native, dtype)


# ------------------------------------------------------------------- against the textbook loops

RULES = [
    "sgd",
    "sgd(momentum=0.8, nesterov=True, weight_decay=0.1)",
    "adam(weight_decay=0.1)",
    "adamw(betas=(0.8, 0.95), weight_decay=0.3)",
    "adagrad(lr_decay=0.1, initial_accumulator_value=0.2)",
]
N = 37
BATCH_SIZES = [1, 3, 32, N]
OPTIONS = {
    "plain": {},
    "no intercept": {"intercept": False},
    "elastic net": {"l2": 0.05, "l1": 0.1},
    "all": {"l2": 0.1, "weighted": True, "clip_norm": 0.7, "average": True},
}


@functools.cache
def textbook_run(loss, rule, batch_size: int, option: str, k: int, d: int):
    """Data, order, rates, start, and what the textbook makes of them; no margin at a kink."""
    chosen = dict(OPTIONS[option])
    weighted = chosen.pop("weighted", False)
    chosen.pop("average", None)
    for seed in itertools.count():
        rng = np.random.default_rng(seed)
        X = rng.normal(0, 0.7, (N, d)).astype(np.float32).astype(float)
        if loss.domain == "classes":
            y, formula = rng.integers(0, k, N).astype(float), oracle.VECTOR_LOSSES[loss.name]
            formula = functools.partial(formula, **dataclasses.asdict(loss))
        else:
            y = labels(rng, loss.domain, N * k).reshape(N, k)
            formula = oracle.each_output(textbook(loss))
        weight = rng.integers(0, 4, N) / 2
        theta = rng.normal(0, 0.5, (k, d + 1)).astype(np.float32).astype(float)
        rows = rng.permutation(N).astype(np.int32)
        steps = oracle.batches(rows, batch_size)
        rates = 0.05 / (1 + np.arange(len(steps)) / 8)
        run = oracle.descend_outputs(
            X,
            y,
            formula,
            rule.name,
            steps,
            rates,
            theta,
            options={field.name: getattr(rule, field.name) for field in dataclasses.fields(rule)},
            weight=weight if weighted else None,
            **chosen,
        )
        if run.kink < 1e-2:
            return X, y, weight if weighted else None, rows, rates, theta, run


def assert_descends_as_the_textbook(
    backend, dtype, loss, rule, batch_size, option, k=3, d=5
) -> None:
    X, y, weight, rows, rates, theta, run = textbook_run(loss, rule, batch_size, option, k, d)
    chosen = OPTIONS[option]
    problem = Problem(
        X.astype(dtype),
        y.astype(dtype),
        None if weight is None else weight.astype(dtype),
        loss,
        Penalty(chosen.get("l2", 0.0), chosen.get("l1", 0.0)),
        chosen.get("intercept", True),
        k,
    )
    state = State.start(theta.astype(dtype).reshape(-1), rule, chosen.get("clip_norm", 0.0))
    if chosen.get("average"):
        state.average = np.zeros(theta.size)
    total, norm = backend.descend(problem, state, Segment(rows, rates, batch_size))

    tolerance = 1e-10 if dtype == np.float64 else 1e-4
    where = f"{loss}, {rule}, batch size {batch_size}, {option}, {k} outputs, {d} features"
    size = tolerance * np.abs(run.theta).max()
    np.testing.assert_allclose(state.theta, run.theta.ravel(), rtol=0, atol=size, err_msg=where)
    np.testing.assert_allclose(total, run.loss, rtol=tolerance, err_msg=where)
    np.testing.assert_allclose(norm, run.norm, rtol=10 * tolerance, atol=tolerance, err_msg=where)
    assert state.step == -(-N // batch_size)
    if chosen.get("average"):
        average = run.average.ravel()
        np.testing.assert_allclose(state.average, average, rtol=0, atol=size, err_msg=where)
        assert state.averaged == state.step
    if chosen.get("l1"):
        np.testing.assert_array_equal(state.theta == 0, run.theta.ravel() == 0, err_msg=where)


def variants(rule):
    """The options that a rule can have."""
    return [name for name, option in OPTIONS.items() if rule.proximal or "l1" not in option]


MULTINOMIAL = [schuss.losses.multinomial(), schuss.losses.multinomial(0.2)]
LOSSES_OF_NUMBERS = [row() for row in LOSSES if row.domain != "binary"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("loss", [*MULTINOMIAL, LOSSES_OF_NUMBERS[0]], ids=str)
def test_descend_is_the_textbook_loop(backend, dtype, loss, rule):
    rule = schuss.rules.get(rule)
    for batch_size in BATCH_SIZES:
        for option in variants(rule):
            assert_descends_as_the_textbook(backend, dtype, loss, rule, batch_size, option)


@pytest.mark.parametrize("loss", LOSSES_OF_NUMBERS, ids=str)
def test_every_loss_of_numbers_is_summed_over_outputs(backend, dtype, loss):
    for batch_size in (1, 32):
        assert_descends_as_the_textbook(
            backend, dtype, loss, schuss.rules.sgd(), batch_size, "plain", k=2, d=3
        )


@pytest.mark.parametrize("k", [2, 3, 10, 17, 33])
def test_any_number_of_outputs(backend, dtype, k):
    """Fewer and more than a vector holds, beside odd numbers of features."""
    for d in (1, 7, 16, 33):
        for batch_size in (1, 13):
            assert_descends_as_the_textbook(
                backend, dtype, MULTINOMIAL[0], schuss.rules.sgd(), batch_size, "all", k, d
            )


@pytest.mark.parametrize("name", ["baseline", "avx2", "avx512", "neon"])
def test_native_instruction_sets_descend_as_the_textbook(native, instruction_set, name, dtype):
    instruction_set(name)
    for loss in (MULTINOMIAL[1], LOSSES_OF_NUMBERS[0]):
        for k, d in ((2, 5), (10, 17), (17, 3)):
            for batch_size, text in zip(BATCH_SIZES, RULES, strict=False):
                rule = schuss.rules.get(text)
                assert_descends_as_the_textbook(native, dtype, loss, rule, batch_size, "all", k, d)
                assert_descends_as_the_textbook(
                    native, dtype, loss, schuss.rules.sgd(), batch_size, "elastic net", k, d
                )


# ------------------------------------------------------------ small integers: equal, not close


@pytest.mark.parametrize("shape", [(1, 1, 2), (5, 3, 3), (31, 16, 10), (65, 33, 17), (300, 2, 4)])
def test_verbs_are_exact(backend, dtype, shape):
    n, d, k = shape
    rng = np.random.default_rng(shape)
    X = rng.integers(-2, 3, (n, d)).astype(dtype)
    y = rng.integers(0, 4, (n, k)).astype(dtype)
    theta = rng.integers(-2, 3, k * (d + 1)).astype(dtype)
    loss = schuss.losses.squared_error()
    for weighted, intercept in itertools.product([False, True], repeat=2):
        weight = rng.integers(0, 4, n).astype(dtype) if weighted else None
        problem = Problem(X, y, weight, loss, Penalty(), intercept, k)
        kept = pickle.dumps((X, y, weight, theta))
        for visited in (rng.integers(0, n, n), np.arange(n // 3, n)):
            A, t = X[visited].astype(float), y[visited].astype(float)
            w = np.ones(len(A)) if weight is None else weight[visited].astype(float)
            rows = theta.astype(float).reshape(k, d + 1)
            margin = A @ rows[:, :-1].T + rows[:, -1]
            slope = w[:, None] * (margin - t)
            expected = np.column_stack([slope.T @ A, slope.sum(axis=0) * intercept]).ravel()
            value = (w[:, None] * (margin - t) ** 2 / 2).sum()
            second = ((slope**2).sum(axis=1) * ((A**2).sum(axis=1) + intercept)).sum()
            for form in row_forms(visited, backend, dtype):
                total, gradient = backend.gradient(problem, theta, form)
                assert total == value and gradient.dtype == np.float64
                np.testing.assert_array_equal(gradient, expected)
                total, gradient, squares = backend.variance(problem, theta, form)
                assert (total, squares) == (value, second)
                np.testing.assert_array_equal(gradient, expected)
                computed = backend.margin(X, theta, form)
                assert computed.dtype == dtype
                np.testing.assert_array_equal(computed, margin)
        assert pickle.dumps((X, y, weight, theta)) == kept


# ---------------------------------------------------------------------------------- same bits


def random_problem(dtype, n=1500, d=9, k=5) -> tuple[Problem, np.ndarray]:
    rng = np.random.default_rng(3)
    X = rng.normal(size=(n, d)).astype(dtype)
    y = rng.integers(0, k, n).astype(dtype)
    problem = Problem(X, y, None, schuss.losses.multinomial(), n_outputs=k)
    return problem, rng.normal(size=k * (d + 1)).astype(dtype)


def test_threads_do_not_change_bits(dtype):
    backend_or_skip("native")
    problem, theta = random_problem(dtype, n=40_000, d=20)
    rows = np.random.default_rng(0).permutation(40_000).astype(np.int32)
    segment = Segment(rows, np.array([0.1]), 17_000)
    start = State.start(theta, schuss.rules.sgd(momentum=0.9))
    ends, sums = [], []
    for threads in (1, 2, 3):
        backend = choose("native", threads=threads)
        assert threads == 1 or backend.crew(17_000, 100) > 1
        ends.append(descended(backend, problem, start, segment))
        loss, gradient = backend.gradient(problem, theta, rows)
        sums.append((loss, gradient.tobytes()))
    for end in ends[1:]:
        assert_same_bits(ends[0], end)
    assert len(set(sums)) == 1


@pytest.mark.parametrize("batch_size", [1, 7, 600])
@pytest.mark.parametrize("rule", ["sgd", "adam"])
def test_segments_do_not_change_bits(backend, dtype, batch_size, rule):
    problem, theta = random_problem(dtype)
    rows = np.random.default_rng(0).permutation(1500)[:1400].astype(np.int32)
    state = State.start(theta, schuss.rules.get(rule))
    state.average = np.zeros(theta.size)
    whole = Segment(rows, np.array([0.05]), batch_size)
    cut = whole.n_steps // 2
    pieces = whole.steps(0, cut), whole.steps(cut, whole.n_steps)
    assert_same_bits(
        descended(backend, problem, state, whole), descended(backend, problem, state, *pieces)
    )


def test_slabs_do_not_change_bits(compiled, dtype, monkeypatch):
    """A step so large that Python drives it."""
    problem, theta = random_problem(dtype)
    state = State.start(theta, schuss.rules.adam())
    segment = Segment((0, 1500), np.array([0.05]), 700)
    whole = descended(compiled, problem, state, segment)
    monkeypatch.setattr("schuss.backends.compiled.LARGE_STEP_ELEMENTS", 1000)
    assert_same_bits(whole, descended(compiled, problem, state, segment))


# ------------------------------------------------------------------------------------ fitting

RNG = np.random.default_rng(7)
X = RNG.normal(size=(240, 6))
TRUE = RNG.normal(size=(4, 6))
NAMES = np.array(["autumn", "spring", "summer", "winter"])
Y = NAMES[(X @ TRUE.T + RNG.gumbel(size=(240, 4))).argmax(axis=1)]
TARGETS = X @ TRUE.T + [1.0, -1.0, 0.0, 2.0] + 0.1 * RNG.normal(size=(240, 4))


def test_fit_reaches_the_minimum_that_scikit_learn_finds(backend):
    result = schuss.fit(
        X,
        Y,
        loss="multinomial",
        alpha=0.01,
        batch_size="full",
        epochs=3000,
        gtol=1e-7,
        backend=backend,
    )
    peer = LogisticRegression(C=1 / (0.01 * len(X)), tol=1e-10, max_iter=5000).fit(X, Y)
    assert result.stop_reason == "gtol"
    assert result.classes.tolist() == NAMES.tolist() == peer.classes_.tolist()
    np.testing.assert_allclose(result.coef, peer.coef_, atol=1e-4)
    np.testing.assert_allclose(result.predict_proba(X), peer.predict_proba(X), atol=1e-4)
    np.testing.assert_array_equal(result.predict(X), peer.predict(X))
    assert result.score(X, Y) == peer.score(X, Y)


@pytest.mark.parametrize("rule", ["sgd", "sgd(momentum=0.9)", "adam"])
@pytest.mark.parametrize("batch_size", [1, 8])
def test_outputs_are_independent_fits(backend, dtype, rule, batch_size):
    """The loss of a row is the sum over outputs: k outputs are k fits in the same order."""
    settings = {
        "rule": rule,
        "batch_size": batch_size,
        "learning_rate": 0.01,
        "epochs": 2,
        "alpha": 0.01,
        "backend": backend,
        "dtype": dtype,
    }
    together = schuss.fit(X, TARGETS, **settings)
    assert together.coef.shape == (4, 6) and together.intercept.shape == (4,)
    alone = [schuss.fit(X, TARGETS[:, c], **settings) for c in range(4)]
    tolerance = 1e-9 if dtype == np.float64 else 1e-4
    np.testing.assert_allclose(together.coef, [r.coef for r in alone], atol=tolerance)
    np.testing.assert_allclose(together.intercept, [r.intercept for r in alone], atol=tolerance)
    losses = np.sum([r.history.train_loss for r in alone], axis=0)
    np.testing.assert_allclose(together.history.train_loss, losses, rtol=1e-4)


def test_regression_predicts_and_scores_as_scikit_learn():
    result = schuss.fit(X, TARGETS, epochs=30)
    predicted = result.predict(X)
    assert predicted.shape == (240, 4)
    assert result.score(X, TARGETS) == pytest.approx(r2_score(TARGETS, predicted))
    assert result.score(X, TARGETS) > 0.98
    assert "4 outputs" in repr(result)
    with pytest.raises(DataError, match=r"y: has shape \(240,\) .* 4 outputs"):
        result.score(X, TARGETS[:, 0])


def test_prediction_is_in_the_unit_of_the_label():
    counts = np.random.default_rng(0).poisson(np.exp(0.3 * X[:, :2]))
    result = schuss.fit(X[:, :2], counts, loss="poisson", epochs=20)
    assert result.predict(X[:, :2]).shape == (240, 2) and (result.predict(X[:, :2]) > 0).all()


@pytest.mark.parametrize("kind", ["text", "numbers", "booleans", "fractions"])
def test_labels_of_any_sortable_type(kind):
    member = np.searchsorted(NAMES, Y)
    y = {
        "text": Y,
        "numbers": np.array([7, -2, 30, 4])[member],
        "booleans": member > 1,
        "fractions": np.array([0.5, 1.5, 2.5, 3.5])[member],
    }[kind]
    result = schuss.fit(X, y, loss="multinomial", epochs=10)
    assert result.classes.tolist() == np.unique(y).tolist()
    assert result.coef.shape == (len(result.classes), 6)
    assert result.predict(X).dtype == y.dtype
    assert result.score(X, y) > 0.6


def test_two_classes_train_as_log_loss_of_the_difference():
    """Each class has a row: opposite ones from zero on, and together twice as fast."""
    y = Y > "spring"
    two = schuss.fit(X, y, loss="multinomial", learning_rate=0.1, epochs=3)
    one = schuss.fit(X, y, loss="log_loss", learning_rate=0.2, epochs=3)
    np.testing.assert_allclose(two.coef[0], -two.coef[1], atol=1e-12)
    np.testing.assert_allclose(two.coef[1] - two.coef[0], one.coef, rtol=1e-9)
    np.testing.assert_allclose(two.predict_proba(X), one.predict_proba(X), rtol=1e-9)


EVERYTHING = {
    "class_weight": "balanced",
    "alpha": 1e-3,
    "clip_norm": 0.5,
    "average": 5,
    "accumulate": 2,
    "validation": 0.25,
    "evaluate": "both",
    "record_every": 7,
    "order": "stratified",
    "batch_size": 12,
    "epochs": 4,
    "learning_rate": "cosine(0.2, steps=40)",
}


@pytest.mark.parametrize("rule", ["sgd(momentum=0.9)", "adam"])
def test_everything_of_fit_agrees_between_backends(backend, rule):
    result = schuss.fit(X, Y, loss="multinomial", rule=rule, backend=backend, **EVERYTHING)
    reference = schuss.fit(X, Y, loss="multinomial", rule=rule, backend="reference", **EVERYTHING)
    np.testing.assert_allclose(result.coef, reference.coef, atol=1e-10)
    np.testing.assert_allclose(result.intercept, reference.intercept, atol=1e-10)
    for column in ("train_loss", "validation_loss", "grad_norm", "running_loss"):
        mine, theirs = result.history[column], reference.history[column]
        np.testing.assert_allclose(mine, theirs, rtol=1e-8, err_msg=column)


@pytest.mark.parametrize("y", ["classes", "numbers"])
@pytest.mark.parametrize("batch_size", [1, 16])
def test_resume_is_bitwise(backend, tmp_path, y, batch_size):
    settings = {
        "rule": "sgd(momentum=0.5)" if batch_size > 1 else "sgd",
        "loss": "multinomial" if y == "classes" else "huber",
        "batch_size": batch_size,
        "average": True,
        "learning_rate": 0.05,
        "backend": backend,
    }
    data = X, Y if y == "classes" else TARGETS
    path = tmp_path / "run.ckpt"
    whole = schuss.fit(*data, epochs=3, **settings)
    for epochs in (1, 2, 3):
        checkpoint = schuss.data.Checkpoint(path, every=7)
        resumed = schuss.fit(*data, epochs=epochs, checkpoint=checkpoint, **settings)
    assert resumed.coef.tobytes() == whole.coef.tobytes()
    assert resumed.intercept.tobytes() == whole.intercept.tobytes()
    np.testing.assert_array_equal(resumed.history.train_loss, whole.history.train_loss)


def test_class_weights_multiply_the_losses():
    weights = {"autumn": 2.0, "winter": 0.5}
    by_class = schuss.fit(X, Y, loss="multinomial", epochs=3, class_weight=weights)
    sample_weight = [weights.get(label, 1.0) for label in Y]
    by_sample = schuss.fit(X, Y, loss="multinomial", epochs=3, sample_weight=sample_weight)
    np.testing.assert_array_equal(by_class.coef, by_sample.coef)


def test_balanced_classes_have_the_same_total():
    counts = {label: np.count_nonzero(label == Y) for label in NAMES}
    weights = {label: len(Y) / (4 * count) for label, count in counts.items()}
    balanced = schuss.fit(X, Y, loss="multinomial", epochs=2, class_weight="balanced")
    by_hand = schuss.fit(X, Y, loss="multinomial", epochs=2, class_weight=weights)
    np.testing.assert_array_equal(balanced.coef, by_hand.coef)


@pytest.mark.parametrize(
    ("order", "settings"),
    [
        ("shuffle", {}),
        ("replacement", {}),
        ("weighted", {"class_weight": "balanced"}),
        ("stratified", {}),
        ("stratified(balanced=True)", {}),
        ("blocks(rows=16)", {}),
    ],
)
def test_every_order(order, settings):
    result = schuss.fit(X, Y, loss="multinomial", order=order, epochs=10, **settings)
    assert result.score(X, Y) > 0.6
    assert result.history.train_loss[-1] < result.history.train_loss[0]


def test_order_by_labels_needs_labels():
    with pytest.raises(InvalidArgument, match="order='stratified' needs class labels"):
        schuss.fit(X, TARGETS, order="stratified")


def test_init_goes_on_and_moments_hold_rows():
    first = schuss.fit(X, Y, loss="multinomial", epochs=1, learning_rate=0.1)
    seen = []
    again = schuss.fit(
        X, Y, loss="multinomial", epochs=1, learning_rate=1e-9, init=first, callbacks=seen.append
    )
    np.testing.assert_allclose(again.coef, first.coef, atol=1e-6)
    assert seen[0].coef.shape == (4, 6) and seen[0].intercept.shape == (4,)
    pair = schuss.fit(
        X,
        Y,
        loss="multinomial",
        epochs=1,
        learning_rate=1e-9,
        init=(first.coef.tolist(), first.intercept.tolist()),
    )
    np.testing.assert_array_equal(pair.coef, again.coef)


def test_validation_data_are_coded_by_the_training_labels():
    result = schuss.fit(
        X, Y, loss="multinomial", epochs=2, validation=(X[:5], np.full(5, "winter"))
    )
    expected = result.loss(result.margin(X[:5]), np.full(5, 3)).mean()
    assert result.history.validation_loss[-1] == pytest.approx(expected)


def test_gradient_has_the_shape_of_coef(backend):
    coef, intercept = TRUE, np.arange(4.0)
    loss, grad_coef, grad_intercept = schuss.gradient(
        X, Y, coef, intercept, loss="multinomial", rows=[3, 5, 5], backend=backend
    )
    member = np.searchsorted(NAMES, Y)[[3, 5, 5]]
    margin = X[[3, 5, 5]] @ coef.T + intercept
    slopes = schuss.losses.multinomial().derivative(margin, member)
    assert loss == pytest.approx(schuss.losses.multinomial()(margin, member).mean())
    np.testing.assert_allclose(grad_coef, slopes.T @ X[[3, 5, 5]] / 3, atol=1e-12)
    np.testing.assert_allclose(grad_intercept, slopes.mean(axis=0), atol=1e-12)
    at_zero = schuss.gradient(X, TARGETS, np.zeros((4, 6)), backend=backend)
    np.testing.assert_allclose(at_zero[2], -TARGETS.mean(axis=0), atol=1e-12)


@pytest.mark.parametrize("y", ["classes", "numbers"])
def test_saved_model_predicts_the_same(tmp_path, y):
    data = (X, Y) if y == "classes" else (X, TARGETS)
    loss = "multinomial(label_smoothing=0.1)" if y == "classes" else "huber"
    result = schuss.fit(*data, loss=loss, epochs=2)
    result.save(tmp_path / "model.npz")
    loaded = schuss.load(tmp_path / "model.npz")
    assert loaded.loss == result.loss
    np.testing.assert_array_equal(loaded.predict(X), result.predict(X))
    np.testing.assert_array_equal(loaded.intercept, result.intercept)


def test_custom_losses_of_several_outputs():
    log_cosh = schuss.losses.custom(
        lambda m, y: np.logaddexp(m - y, y - m) - np.log(2.0), lambda m, y: np.tanh(m - y)
    )
    made = [
        schuss.fit(X, TARGETS, loss=log_cosh, epochs=2, learning_rate=0.1, backend=name)
        for name in ("reference", "jit")
    ]
    np.testing.assert_allclose(made[0].coef, made[1].coef, atol=1e-10)


def test_probabilities():
    multinomial = schuss.fit(X, Y, loss="multinomial", epochs=5)
    shares = multinomial.predict_proba(X)
    assert shares.shape == (240, 4) and shares.dtype == np.float64
    np.testing.assert_allclose(shares.sum(axis=1), 1)
    np.testing.assert_array_equal(NAMES[shares.argmax(axis=1)], multinomial.predict(X))
    binary = schuss.fit(X, Y > "spring", loss="log_loss", epochs=5)
    shares = binary.predict_proba(X)
    assert shares.shape == (240, 2)
    np.testing.assert_array_equal(shares[:, 1] > 0.5, binary.predict(X))
    np.testing.assert_allclose(shares[:, 1], 1 / (1 + np.exp(-binary.margin(X))))
    rest = schuss.Result.one_against_rest(
        [schuss.fit(X, label == Y, loss="log_loss", epochs=2) for label in NAMES], NAMES
    )
    np.testing.assert_allclose(rest.predict_proba(X).sum(axis=1), 1)
    assert np.isfinite(multinomial.predict_proba(1e5 * X)).all()
    for loss, y in (("hinge", Y > "spring"), ("squared_error", TARGETS)):
        with pytest.raises(InvalidArgument, match=f"loss='{loss}' has no probabilities"):
            schuss.fit(X, y, loss=loss, epochs=1).predict_proba(X)


def test_divergence_reports_and_keeps_the_last_finite_state(backend):
    with pytest.raises(DivergenceError, match="stability limit") as caught:
        schuss.fit(X, TARGETS, learning_rate=50.0, epochs=200, backend=backend)
    result = caught.value.result
    assert result.coef.shape == (4, 6) and np.isfinite(result.coef).all()
    assert 0 < caught.value.limit < 50


def test_first_step_at_the_automatic_rate_does_not_overshoot():
    for y, loss in ((Y, "multinomial"), (TARGETS, "squared_error")):
        result = schuss.fit(X, y, loss=loss, batch_size="full", epochs=20, evaluate="full")
        assert (np.diff(result.history.train_loss) < 0).all()


# ---------------------------------------------------------------------------------- bad input

NAN = np.where(np.arange(240)[:, None] == [[3, -1]], np.nan, 0.0)


@pytest.mark.parametrize(
    ("y", "settings", "message"),
    [
        (NAN, {}, r"y\[3, 0\] is nan"),
        (TARGETS[:-1], {}, "y: has 239 rows but X has 240 rows"),
        (TARGETS[:, :1], {}, r"y: expected one dimension, got shape \(240, 1\); pass y.ravel\(\)"),
        (TARGETS[:, :, None], {}, "y: expected one dimension, got shape"),
        (-np.abs(TARGETS), {"loss": "poisson"}, r"y\[0, 0\] is -.*'poisson' accepts numbers >= 0"),
        (TARGETS, {"loss": "log_loss"}, "y: .*labels are one column"),
        (TARGETS, {"loss": "multinomial"}, "y: .*labels are one column"),
        (TARGETS[:, 0], {"loss": "multinomial"}, "240 distinct values .* not a continuous target"),
        (np.ones(240), {"loss": "multinomial"}, r"two or more label values, got 1 \(1.0\)"),
        (Y, {"loss": "hinge"}, r"got 4 \('autumn', .*\); more than two .* loss='multinomial'"),
        (np.where(Y == "winter", np.nan, 1), {"loss": "multinomial"}, r"y\[\d+\] is nan"),
        (Y, {"loss": "multinomial", "class_weight": {"may": 1.0}}, "'may' is not a class"),
        (
            Y,
            {"loss": "multinomial", "validation": (X, np.full(240, "may"))},
            r"validation y: label 'may' was not among the classes \['autumn', .*'winter'\]",
        ),
        (TARGETS, {"validation": (X, TARGETS[:, :2])}, r"validation y: has shape \(240, 2\)"),
        (TARGETS, {"validation": (X, TARGETS[:, 0])}, r"validation y: has shape \(240,\)"),
        (TARGETS, {"init": (np.zeros(6), 0.0)}, r"init: coef: has shape \(6,\); .* \(4, 6\)"),
        (
            TARGETS,
            {"init": (np.zeros((4, 6)), np.zeros(3))},
            r"init: intercept: has shape \(3,\); expected \(n_outputs,\) = \(4,\)",
        ),
    ],
)
def test_bad_input_is_named(y, settings, message):
    with pytest.raises((DataError, InvalidArgument), match=message):
        schuss.fit(X, y, **settings)


def test_class_that_is_held_out_whole_is_named():
    y = np.where(np.arange(240) == 17, "rare", Y)
    outcomes = set()
    for seed in range(8):
        try:
            schuss.fit(X, y, loss="multinomial", validation=0.5, seed=seed, epochs=1)
            outcomes.add("trained")
        except DataError as error:
            assert "all rows with the label 'rare' are held out" in str(error)
            outcomes.add("refused")
    assert outcomes == {"trained", "refused"}


def test_native_refuses_wrong_sizes(native):
    from schuss import _native

    X, y = np.ones((4, 3)), np.zeros(4)
    theta, total = np.zeros(2 * 4), np.zeros(2 * 4)
    number = len(_native.losses())

    def add(y=y, theta=theta, total=total, loss=number, outputs=2):
        data = _native.Data(X, y, np.empty(0), np.zeros(1), loss, True, outputs)
        return _native.outputs_add_gradient_float64(data, (0, 4), theta, total, 1)

    assert add() == pytest.approx(4 * np.log(2))
    for wrong in (
        {"y": y[:3]},
        {"theta": theta[:7]},
        {"total": total[:7]},
        {"outputs": 0},
        {"outputs": 3},
        {"loss": 0},  # a loss of one margin wants two targets for each row
    ):
        with pytest.raises(ValueError, match=r"expected"):
            add(**wrong)
    with pytest.raises(IndexError, match="no such row"):
        add(loss=number + 1)


def test_second_process_finds_the_jit_kernels_in_the_cache(tmp_path):
    """The kernels for several outputs are kept on disk, like the others."""
    backend_or_skip("jit")
    code = """
        import numpy as np
        from schuss.backends import choose, jit
        margin = choose("jit").margin(np.eye(2), np.arange(6.0), (0, 2))
        assert margin.tolist() == [[2, 8], [3, 9]]
        stats = jit.JitKernels().outputs._kernels()[0].margin.stats
        print(sum(stats.cache_hits.values()), sum(stats.cache_misses.values()))
    """
    environment = {"NUMBA_CACHE_DIR": str(tmp_path)}
    assert run_python(code, 300, **environment) == "0 1"
    assert run_python(code, 300, **environment) == "1 0"
