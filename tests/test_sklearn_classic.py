"""What only the classic step trains, beside scikit-learn: each feature on each kind of rows."""

from __future__ import annotations

import itertools
import warnings

import numpy as np
import pytest
from support import BACKENDS, backend_or_skip

pytest.importorskip("sklearn", minversion="1.8")
import sklearn.linear_model as theirs
from scipy import sparse
from sklearn.exceptions import ConvergenceWarning
from sklearn.utils.estimator_checks import parametrize_with_checks

import schuss.sklearn as ours

RNG = np.random.default_rng(0)
X = RNG.normal(size=(160, 7))
SCORES = X @ RNG.normal(size=7) + 0.3 * RNG.normal(size=160)
WEIGHT = RNG.uniform(size=160)
HOLES = np.where(RNG.uniform(size=X.shape) < 0.5, 0, X)
ROWS = {"dense": lambda A: A, "csr": sparse.csr_array}
TARGETS = {
    "regression": ("SGDRegressor", SCORES),
    "two classes": ("SGDClassifier", SCORES > 0),
    "four classes": ("SGDClassifier", np.digitize(SCORES, [-1, 0, 1])),
    "one class": ("SGDOneClassSVM", None),
}
FEATURES = {
    "l1": {"penalty": "l1", "alpha": 0.01},
    "elastic net": {"penalty": "elasticnet", "alpha": 0.01, "l1_ratio": 0.4},
    "pa1": {"learning_rate": "pa1", "eta0": 0.3},
    "pa2": {"learning_rate": "pa2", "eta0": 0.3, "penalty": "elasticnet"},
    "weights": {"sample_weight": WEIGHT, "tol": 1e-3},
    "balanced": {"class_weight": "balanced", "sample_weight": WEIGHT},
    "beyond 1/alpha": {"alpha": 3.0, "eta0": 0.5},
    "growing rates": {"learning_rate": "invscaling", "power_t": -0.2},
    "average": {"average": 30, "alpha": 0.01},
    "adaptive": {"learning_rate": "adaptive", "n_iter_no_change": 1, "tol": 0.01, "penalty": "l1"},
    "no intercept": {"fit_intercept": False, "penalty": "l1"},
    "optimal": {"learning_rate": "optimal", "alpha": 0.3},
}
PASSIVE = {"SGDRegressor": "epsilon_insensitive", "SGDClassifier": "hinge"}


@pytest.fixture(autouse=True)
def no_warnings():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        warnings.simplefilter("ignore", FutureWarning)
        yield


def parameters_of(name: str, feature: str) -> dict | None:
    """The estimator's parameters for a feature, None where it has no such."""
    changes = {"learning_rate": "constant", "tol": None, "max_iter": 6, **FEATURES[feature]}
    changes |= {"shuffle": False, "random_state": 0}
    passive = changes["learning_rate"].startswith("pa")
    if name == "SGDOneClassSVM":
        if passive or "class_weight" in changes:
            return None
        known = theirs.SGDOneClassSVM().get_params()
        changes["nu"] = min(1.0, changes.get("alpha", 0.3))
        return {k: v for k, v in changes.items() if k in known or k == "sample_weight"}
    if "class_weight" in changes and name != "SGDClassifier":
        return None
    if passive:
        changes["loss"] = PASSIVE[name]
    elif name == "SGDClassifier":
        changes["loss"] = "squared_hinge"  # without a jump in its slope, at which digits decide
    return changes


def both(target: str, feature: str, rows, **given):
    """The fitted estimators: scikit-learn's and ours; None where there is no such."""
    name, y = TARGETS[target]
    parameters = parameters_of(name, feature)
    if parameters is None:
        return None
    weight = parameters.pop("sample_weight", None)
    made = getattr(theirs, name)(**parameters), getattr(ours, name)(**parameters, **given)
    return tuple(model.fit(rows, y, sample_weight=weight) for model in made)


def assert_same(a, b, rtol: float = 1e-9) -> None:
    scale = rtol * np.abs(a.coef_).max()
    np.testing.assert_allclose(b.coef_, a.coef_, rtol=0, atol=scale)
    for name in ("intercept_", "offset_"):
        if hasattr(a, name):
            np.testing.assert_allclose(getattr(b, name), getattr(a, name), rtol=0, atol=scale)
    assert b.coef_.shape == a.coef_.shape and b.coef_.dtype == a.coef_.dtype
    assert (b.n_iter_, b.t_) == (a.n_iter_, a.t_)


CASES = [
    pytest.param(target, feature, id=f"{target}, {feature}")
    for target, feature in itertools.product(TARGETS, FEATURES)
    if parameters_of(TARGETS[target][0], feature) is not None
]


@pytest.mark.parametrize("name", BACKENDS)
@pytest.mark.parametrize("kind", ROWS)
@pytest.mark.parametrize(("target", "feature"), CASES)
def test_the_same_coefficients(target, feature, kind, name):
    backend_or_skip(name)
    for dtype, rtol in ((np.float64, 1e-9), (np.float32, 2e-4)):
        rows = ROWS[kind](HOLES.astype(dtype))
        a, b = both(target, feature, rows, backend=name)
        assert b.backend_ == name
        assert_same(a, b, rtol)


@pytest.mark.parametrize("set_name", ["baseline", "avx2", "avx512"])
@pytest.mark.parametrize(("target", "feature"), CASES)
def test_on_every_instruction_set(target, feature, set_name, native, instruction_set):
    instruction_set(set_name)
    for make in ROWS.values():
        assert_same(*both(target, feature, make(HOLES), backend="native"))


@pytest.mark.parametrize("target", TARGETS)
def test_part_by_part(target):
    name, y = TARGETS[target]
    for kind, average in itertools.product(ROWS.values(), (False, 50)):
        if name == "SGDClassifier" and average:
            continue  # their averages of a classifier do not go on
        parameters = {"shuffle": False, "learning_rate": "invscaling", "average": average}
        models = [getattr(room, name)(**parameters) for room in (theirs, ours)]
        classes = {"classes": np.unique(y)} if name == "SGDClassifier" else {}
        for start in range(0, 160, 40):
            part = slice(start, start + 40)
            labels = None if y is None else y[part]
            for model in models:
                model.partial_fit(kind(HOLES[part]), labels, **classes)
            assert_same(*models)


def test_the_mean_of_iterates_under_l1():
    """Is a mean; scikit-learn 1.9 takes what L1 shrinks off all iterates before as well."""
    rng = np.random.default_rng(0)
    A = rng.normal(size=(2000, 3))
    y = A @ [1.0, -2.0, 0.0]
    parameters = {"penalty": "l1", "alpha": 0.05, "learning_rate": "constant", "tol": None}
    for make in ROWS.values():
        fits = [
            room.SGDRegressor(average=True, max_iter=10, random_state=0, **parameters).fit(
                make(A), y
            )
            for room in (theirs, ours)
        ]
        assert np.abs(fits[1].coef_ - [0.95, -1.95, 0]).max() < 0.02
        assert np.abs(fits[0].coef_ - [0.95, -1.95, 0]).max() > 1


def test_classes_stop_one_by_one():
    """An easy class stops early and keeps its weights; as many epochs as the last takes."""
    y = np.where(X[:, 0] > 1, 0, np.digitize(SCORES, [0]) + 1)
    parameters = {"learning_rate": "adaptive", "eta0": 0.01, "max_iter": 60, "shuffle": False}
    for kind in ROWS.values():
        a, b = (
            room.SGDClassifier(loss="log_loss", tol=5e-3, n_iter_no_change=2, **parameters).fit(
                kind(X), y
            )
            for room in (theirs, ours)
        )
        assert_same(a, b)
        for k in range(3):
            alone = ours.SGDClassifier(
                loss="log_loss", tol=5e-3, n_iter_no_change=2, **parameters
            ).fit(kind(X), y == k)
            np.testing.assert_allclose(alone.coef_[0], b.coef_[k], rtol=1e-8)


def test_one_order_for_all_classes():
    y = np.digitize(SCORES, [-1, 1])
    fit = {"random_state": 3, "max_iter": 3, "learning_rate": "constant"}
    one = ours.SGDClassifier(**fit).fit(X, y)
    two = ours.SGDClassifier(n_jobs=2, **fit).fit(X, y)
    np.testing.assert_array_equal(one.coef_, two.coef_)


def test_the_intercept_s_own_factor():
    rows = sparse.csr_array(HOLES)
    fit = {"shuffle": False, "learning_rate": "constant", "tol": None, "max_iter": 4}
    dense = ours.SGDRegressor(**fit).fit(HOLES, SCORES)
    same = ours.SGDRegressor(intercept_decay=1.0, **fit).fit(rows, SCORES)
    assert_same(dense, same)
    slow = ours.SGDRegressor(intercept_decay=0.01, **fit).fit(HOLES, SCORES)
    assert_same(ours.SGDRegressor(**fit).fit(rows, SCORES), slow)
    for bad in (0, 2, "fast"):
        with pytest.raises(ValueError, match="The 'intercept_decay' parameter"):
            ours.SGDRegressor(intercept_decay=bad).fit(X, SCORES)


@pytest.mark.parametrize("name", ["SGDRegressor", "SGDClassifier", "SGDOneClassSVM"])
def test_overflow_is_told_with_its_epoch(name):
    y = np.digitize(SCORES, [-1, 1]) if name == "SGDClassifier" else SCORES
    fit = {"learning_rate": "constant", "eta0": 1e300, "shuffle": False, "random_state": 0}
    messages = []
    for room in (theirs, ours):
        with pytest.raises(ValueError, match="under-/overflow occurred at epoch #") as caught:
            getattr(room, name)(**fit).fit(X * 1e30, y)
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_rows_of_zeros_under_pa1():
    """Make no step, not even of the mean."""
    A = X.copy()
    A[::3] = 0
    fit = {"loss": "epsilon_insensitive", "learning_rate": "pa1", "shuffle": False, "max_iter": 2}
    for make, average in itertools.product(ROWS.values(), (False, True)):
        a, b = (
            room.SGDRegressor(average=average, tol=None, penalty=None, **fit).fit(make(A), SCORES)
            for room in (theirs, ours)
        )
        if average:  # theirs counts the first epoch's zeros on in the second
            continue
        assert_same(a, b)


def test_one_class_becomes_the_other_s():
    model = ours.SGDOneClassSVM(random_state=0, average=5).fit(X)
    again = ours.from_sklearn(ours.to_sklearn(model))
    for made in (ours.to_sklearn(model), again):
        np.testing.assert_array_equal(made.predict(X), model.predict(X))
        made.partial_fit(X)
    assert type(again) is ours.SGDOneClassSVM
    ours.patch()
    assert theirs.SGDOneClassSVM is ours.SGDOneClassSVM
    ours.unpatch()
    assert theirs.SGDOneClassSVM is not ours.SGDOneClassSVM


def test_held_out_rows_have_room_for_each_class():
    y = np.arange(15) % 4
    model = ours.SGDClassifier(early_stopping=True, random_state=0).fit(X[:15], y)
    assert model.t_ == 1 + 11 * model.n_iter_
    with pytest.raises(ValueError, match="test_size = 2"):
        theirs.SGDClassifier(early_stopping=True).fit(X[:15], y)


@pytest.mark.parametrize("target", TARGETS)
def test_a_part_changes_the_coefficients_where_they_lie(target):
    """As scikit-learn's: who keeps the array sees them change; ``fit`` makes new ones."""
    name, y = TARGETS[target]
    for rows in (X, sparse.csr_array(X)):
        model = getattr(ours, name)(random_state=0).fit(rows, y)
        before = model.coef_
        model.partial_fit(rows, y)
        assert model.coef_ is before
        model.fit(rows, y)
        assert model.coef_ is not before


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [ours.SGDOneClassSVM(), ours.SGDClassifier(penalty="l1"), ours.SGDRegressor(average=True)],
    expected_failed_checks=lambda model: {
        "check_sample_weight_equivalence_on_dense_data": "a row of weight 2 is one step",
        "check_sample_weight_equivalence_on_sparse_data": "a row of weight 2 is one step",
    },
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)


@pytest.mark.parametrize("name", ["native", "jit", "reference"])
def test_intercepts_that_come_back_to_zero(name):
    """Rows without entries then have a margin of exactly 0, which a perceptron steps at."""
    backend_or_skip(name)
    rows = sparse.random(1000, 50, 0.06, format="csr", random_state=1)
    y = (np.asarray(rows.sum(axis=1)).ravel() > 1.5).astype(int)
    options = {"loss": "perceptron", "shuffle": False, "max_iter": 3, "tol": None}
    options |= {"learning_rate": "constant", "random_state": 0}
    expected = theirs.SGDClassifier(**options).fit(rows, y)
    made = ours.SGDClassifier(**options, backend=name).fit(rows, y)
    np.testing.assert_allclose(made.intercept_, expected.intercept_, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(made.coef_, expected.coef_, rtol=1e-9, atol=1e-12)
