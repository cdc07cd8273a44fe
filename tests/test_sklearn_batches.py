"""Mini-batches, rules, orders and several outputs of the estimators of schuss.sklearn."""

from __future__ import annotations

import numpy as np
import pytest

import schuss

pytest.importorskip("sklearn", minversion="1.8")
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import (
    check_sample_weight_equivalence_on_dense_data,
    check_sample_weight_equivalence_on_sparse_data,
    parametrize_with_checks,
)

import schuss.sklearn as ours

pytestmark = pytest.mark.filterwarnings("ignore::sklearn.exceptions.ConvergenceWarning")

RNG = np.random.default_rng(0)
X = RNG.normal(size=(160, 7))
MAP = RNG.normal(size=(3, 7))
OUTPUTS = X @ MAP.T + 0.1 * RNG.normal(size=(160, 3))
SCORES = OUTPUTS[:, 0]
CLASSES = np.array(["a", "b", "c"])[OUTPUTS.argmax(axis=1)]


def by_fit(model, X, y, **changes):
    """What schuss.fit makes of the estimator's settings, rows in the order they are stored."""
    settings = {
        "loss": model.loss,
        "batch_size": model.batch_size,
        "learning_rate": model.eta0,
        "epochs": model.max_iter,
        "rule": model.rule,
        "alpha": model.alpha,
        "order": model.order or "sequential",
        "clip_norm": model.clip_norm,
        **changes,
    }
    return schuss.fit(X, y, **settings)


def regressor(**parameters):
    settings = {"learning_rate": "constant", "shuffle": False, "max_iter": 5, "tol": None}
    return ours.SGDRegressor(**{**settings, **parameters})


def classifier(**parameters):
    settings = {"learning_rate": "constant", "shuffle": False, "max_iter": 5, "tol": None}
    return ours.SGDClassifier(**{**settings, **parameters})


STEPS = [
    {"batch_size": 16},
    {"batch_size": 7},
    {"batch_size": "full", "max_iter": 20},
    {"batch_size": 16, "rule": "adam"},
    {"rule": schuss.rules.sgd(momentum=0.9, nesterov=True)},
    {"batch_size": 5, "clip_norm": 0.1},
    {"batch_size": 5, "order": schuss.orders.blocks(rows=3, buffer=2), "random_state": 0},
]


@pytest.mark.parametrize("steps", STEPS)
def test_the_steps_are_those_of_fit(steps):
    model = regressor(**steps).fit(X, SCORES)
    seed = int(np.random.RandomState(0).randint(0, np.iinfo(np.int32).max))
    result = by_fit(model, X, SCORES, seed=seed)
    np.testing.assert_array_equal(model.coef_, result.coef)
    assert model.intercept_ == result.intercept and model.t_ == 1 + result.history.updates[-1]


@pytest.mark.parametrize("rows", [X, sparse.csr_array(X)], ids=["dense", "csr"])
def test_l1_makes_exact_zeros(rows):
    model = regressor(batch_size="full", penalty="l1", alpha=0.3, eta0=0.1, max_iter=100)
    model.fit(rows, SCORES)
    assert 0 < np.count_nonzero(model.coef_) < 7
    result = by_fit(model, X, SCORES, l1_ratio=1.0)
    np.testing.assert_allclose(model.coef_, result.coef, atol=1e-12)


@pytest.mark.parametrize("backend", ["native", "jit", "reference"])
def test_classes_together(backend):
    if schuss.backends.available()[backend]:
        pytest.skip(f"no {backend} backend")
    model = classifier(loss="log_loss", multi_class="multinomial", batch_size=8, backend=backend)
    model.fit(X, CLASSES)
    result = by_fit(model, X, CLASSES, loss="multinomial", backend=backend)
    np.testing.assert_array_equal(model.coef_, result.coef)
    np.testing.assert_allclose(model.predict_proba(X), result.predict_proba(X))
    np.testing.assert_allclose(np.exp(model.predict_log_proba(X)), model.predict_proba(X))
    assert model.coef_.shape == (3, 7) and model.score(X, CLASSES) > 0.85


def test_two_classes_together_have_one_margin():
    made = [
        classifier(loss="log_loss", multi_class=kind, batch_size=8).fit(X, SCORES > 0)
        for kind in ("ovr", "multinomial")
    ]
    np.testing.assert_array_equal(made[0].coef_, made[1].coef_)
    assert made[0].coef_.shape == (1, 7)


def test_each_class_against_the_rest():
    model = classifier(batch_size=8).fit(X, CLASSES)
    for k, label in enumerate("abc"):
        result = by_fit(model, X, label == CLASSES)
        np.testing.assert_array_equal(model.coef_[k], result.coef)


@pytest.mark.parametrize("batch_size", [1, 16])
def test_several_outputs(batch_size):
    model = regressor(batch_size=batch_size, max_iter=30).fit(X, OUTPUTS)
    assert model.coef_.shape == (3, 7) and model.intercept_.shape == (3,)
    assert model.predict(X).shape == (160, 3) and model.score(X, OUTPUTS) > 0.95
    for k in range(3):
        alone = regressor(batch_size=batch_size, max_iter=30).fit(X, OUTPUTS[:, k])
        np.testing.assert_allclose(model.coef_[k], alone.coef_, rtol=1e-9)


def test_several_outputs_start_where_they_are_told():
    start = (np.ones((3, 7)), np.ones(3))
    model = regressor(max_iter=1, eta0=1e-9).fit(X, OUTPUTS, *start)
    np.testing.assert_allclose(model.coef_, 1, atol=1e-5)
    assert (start[0] == 1).all()
    with pytest.raises(ValueError, match=r"coef_init: has shape \(7, 3\)"):
        regressor().fit(X, OUTPUTS, np.ones((7, 3)))
    with pytest.raises(ValueError, match="y: has 2 columns"):
        model.partial_fit(X, OUTPUTS[:, :2])
    with pytest.raises(ValueError, match="y: has 1 columns"):
        model.partial_fit(X, SCORES)
    with pytest.raises(ValueError, match="y: has 3 columns"):
        regressor().partial_fit(X, SCORES).partial_fit(X, OUTPUTS)


MODELS = [
    (regressor, {"rule": "adam", "batch_size": 8}, SCORES),
    (regressor, {"rule": "sgd(momentum=0.9)"}, OUTPUTS),
    (classifier, {"rule": "sgd(momentum=0.9)", "batch_size": 4, "average": 20}, CLASSES),
    (
        classifier,
        {"rule": "adam", "batch_size": 8, "multi_class": "multinomial", "loss": "log_loss"},
        CLASSES,
    ),
]


@pytest.mark.parametrize(("make", "parameters", "y"), MODELS)
def test_parts_of_a_run_are_the_run(make, parameters, y):
    """The rule's memory, ``t_``, the mean and the history go on."""
    more = {"classes": np.unique(y)} if make is classifier else {}
    whole = make(**parameters).partial_fit(X, y, **more)
    parts = make(**parameters)
    for start, stop in ((0, 16), (16, 96), (96, 160)):
        parts.partial_fit(X[start:stop], y[start:stop], **more)
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-9)
    assert parts.t_ == whole.t_ and list(parts.history_.epoch) == [1, 2, 3]
    assert parts.history_.samples[-1] == 160 and parts.history_.updates[-1] == parts.t_ - 1
    again = parts.fit(X, y).coef_
    np.testing.assert_array_equal(again, make(**parameters).fit(X, y).coef_)


def test_another_rule_begins_without_memory():
    model = regressor(rule="sgd(momentum=0.9)").partial_fit(X, SCORES)
    model.set_params(rule="adam").partial_fit(X, SCORES)
    many = classifier(rule="adam", loss="log_loss", multi_class="multinomial")
    many.partial_fit(X, CLASSES, classes=np.unique(CLASSES))
    many.set_params(multi_class="ovr").partial_fit(X, CLASSES)
    assert np.isfinite(model.coef_).all() and np.isfinite(many.coef_).all()


def test_orders_go_on_from_call_to_call():
    """The epochs of ``fit`` and those of ``partial_fit`` are numbered alike."""
    settings = {"batch_size": 8, "order": "stratified(balanced=True)", "random_state": 0}
    whole = classifier(**settings, max_iter=3).fit(X, SCORES > 1)
    parts = classifier(**settings)
    for _ in range(3):
        parts.partial_fit(X, SCORES > 1, classes=[False, True])
    np.testing.assert_allclose(parts.coef_, whole.coef_, rtol=1e-12)


def test_blocks_of_any_size():
    model = regressor(batch_size=32)
    for size in (1, 3, 32, 33, 91):
        model.partial_fit(X[:size], SCORES[:size])
    assert model.t_ == 1 + 1 + 1 + 1 + 2 + 3


@pytest.mark.parametrize("parameters", [{}, {"class_weight": "balanced"}])
def test_weights_of_rows_and_classes(parameters):
    weight = RNG.uniform(size=160)
    model = classifier(batch_size=8, loss="log_loss", **parameters)
    model.fit(X, SCORES > 0.5, sample_weight=weight)
    counts = np.bincount(SCORES > 0.5)
    each = 160 / (2 * counts) if parameters else np.ones(2)
    weights = weight / weight.mean() * each[(SCORES > 0.5).astype(int)]
    result = by_fit(model, X, SCORES > 0.5, sample_weight=weights)
    np.testing.assert_allclose(model.coef_[0], result.coef, rtol=1e-12)
    many = classifier(batch_size=8, loss="log_loss", multi_class="multinomial", **parameters)
    assert many.fit(X, CLASSES, sample_weight=weight).score(X, CLASSES) > 0.8


def test_the_weight_of_a_block_counts():
    """``partial_fit`` does not bring weights to mean 1: a block's share is the caller's."""
    one, two = (regressor(batch_size=8).partial_fit(X, SCORES, [w] * 160) for w in (1.0, 2.0))
    assert abs(two.coef_).sum() > 1.5 * abs(one.coef_).sum()


@pytest.mark.parametrize("average", [False, True, 11])
def test_stopping(average):
    model = ours.SGDRegressor(batch_size=8, average=average, early_stopping=True, random_state=0)
    model.fit(X, SCORES)
    assert model.n_iter_ < 1000 and model.t_ == 1 + 18 * model.n_iter_
    assert model.history_.validation_score[-1] > 0.9
    falling = ours.SGDRegressor(batch_size=8, learning_rate="adaptive").fit(X, SCORES)
    rates = falling.history_.learning_rate
    assert rates[0] == 0.01 and rates[-1] <= 5e-6 and falling.score(X, SCORES) > 0.95
    joint = ours.SGDRegressor(early_stopping=True, random_state=0).fit(X, OUTPUTS)
    assert joint.history_.validation_score[-1] > 0.9
    many = ours.SGDClassifier(
        "log_loss", batch_size=8, multi_class="multinomial", early_stopping=True, random_state=0
    ).fit(X, CLASSES)
    assert many.history_.validation_score[-1] > 0.7


def test_warm_starts_go_on():
    cold = regressor(batch_size=8, max_iter=10).fit(X, SCORES)
    warm = regressor(batch_size=8, warm_start=True).fit(X, SCORES).fit(X, SCORES)
    np.testing.assert_allclose(warm.coef_, cold.coef_, rtol=1e-12)
    with pytest.warns(ConvergenceWarning):
        ours.SGDRegressor(batch_size=8, max_iter=1).fit(X, SCORES)


BAD = [
    ({"batch_size": 0}, "The 'batch_size' parameter of SGDClassifier must be"),
    ({"rule": "adan"}, "rule='adan' is not known .did you mean 'adam'"),
    ({"order": "shufle"}, "order='shufle' is not known .did you mean 'shuffle'"),
    ({"clip_norm": 0.0}, "The 'clip_norm' parameter of SGDClassifier must be"),
    ({"batch_size": 2, "learning_rate": "pa1"}, "learning_rate='pa1': a passive-aggressive step"),
    ({"rule": "adam", "penalty": "l1"}, "penalty='l1': an L1 penalty needs rule='sgd'"),
    ({"multi_class": "multinomial"}, "multi_class='multinomial' .* expected loss='log_loss'"),
]


@pytest.mark.parametrize(("changes", "message"), BAD)
def test_bad_parameters(changes, message):
    with pytest.raises(ValueError, match=message):
        ours.SGDClassifier(**changes).fit(X, CLASSES)


@pytest.mark.parametrize("steps", [{"batch_size": 8}, {"batch_size": "full"}, {"rule": "adam"}])
def test_sparse_rows_of_several_outputs(steps):
    thin = np.where(RNG.uniform(size=X.shape) < 0.5, 0, X)
    joint = {"loss": "log_loss", "multi_class": "multinomial"}
    weight = 1 + X[:, 0] ** 2
    for make, more, y in ((classifier, joint, CLASSES), (regressor, {}, OUTPUTS)):
        dense, sparsely = (
            make(**more, **steps).fit(rows, y, sample_weight=weight)
            for rows in (thin, sparse.csr_array(thin))
        )
        np.testing.assert_allclose(sparsely.coef_, dense.coef_, rtol=1e-12)
        np.testing.assert_array_equal(sparsely.predict(thin), dense.predict(thin))


def test_sparse_rows_too_wide_to_be_written_out(monkeypatch):
    monkeypatch.setattr("schuss.sklearn.options.MOST_DENSE_BYTES", 20 * 7 * 8)
    assert regressor(batch_size=20).fit(sparse.csr_array(X), OUTPUTS).score(X, OUTPUTS) > 0.1
    for size in (21, "full"):
        with pytest.raises(ValueError, match=r"batch_size=.* take .* GiB; expected 1 \.\.\. 20"):
            regressor(batch_size=size).fit(sparse.csr_array(X), OUTPUTS)


def test_overflow_is_an_error_with_the_epoch():
    with pytest.raises(ValueError, match="under-/overflow occurred at epoch #"):
        regressor(batch_size=8, eta0=10.0, max_iter=1000).fit(X * 1e3, SCORES)


NOT_EQUIVALENT = [
    "check_sample_weight_equivalence_on_dense_data",
    "check_sample_weight_equivalence_on_sparse_data",
]
FULL = [
    ours.SGDRegressor(batch_size="full", learning_rate="constant", eta0=0.1),
    ours.SGDClassifier(batch_size="full", learning_rate="adaptive", eta0=0.1),
]


@pytest.mark.parametrize("model", FULL)
@pytest.mark.parametrize(
    "check",
    [
        check_sample_weight_equivalence_on_dense_data,
        check_sample_weight_equivalence_on_sparse_data,
    ],
)
def test_in_full_batches_a_weight_is_a_number_of_rows(model, check):
    check(type(model).__name__, model)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [
        *FULL,
        ours.SGDRegressor(batch_size=16, rule="adam", learning_rate="constant"),
        ours.SGDClassifier(batch_size=16, loss="log_loss", multi_class="multinomial"),
    ],
    expected_failed_checks=lambda model: (
        {} if model.batch_size == "full" else dict.fromkeys(NOT_EQUIVALENT, "steps are not those")
    ),
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)
