"""The estimators of schuss.sklearn beside scikit-learn's own, and held to its checks."""

from __future__ import annotations

import pickle
import warnings

import numpy as np
import pytest

import schuss

pytest.importorskip("sklearn", minversion="1.8")
import sklearn.linear_model as theirs
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import ConvergenceWarning
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import parametrize_with_checks
from support import run_python

import schuss.sklearn as ours

RNG = np.random.default_rng(0)
X = RNG.normal(size=(160, 7))
SCORES = X @ RNG.normal(size=7) + 0.3 * RNG.normal(size=160)
TARGETS = {
    "SGDRegressor": [SCORES],
    "SGDClassifier": [SCORES > 0, np.digitize(SCORES, [-1, 1])],
}
WHY = "a row of weight 2 is one step, two rows are two: scikit-learn's SGD does not pass it either"
NOT_EQUIVALENT = {
    "check_sample_weight_equivalence_on_dense_data": WHY,
    "check_sample_weight_equivalence_on_sparse_data": WHY,
}


@pytest.fixture(autouse=True)
def few_epochs():
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        yield


def both(name: str, X=X, which: int = 0, sample_weight=None, **parameters):
    """The fitted estimators: scikit-learn's and ours."""
    y = TARGETS[name][which][: X.shape[0]]
    parameters = {"shuffle": False, "random_state": 0, "max_iter": 7, **parameters}
    made = getattr(theirs, name)(**{k: v for k, v in parameters.items() if k != "backend"})
    own = getattr(ours, name)(**parameters)
    return tuple(model.fit(X, y, sample_weight=sample_weight) for model in (made, own))


def assert_same(a, b, rtol: float = 1e-9) -> None:
    scale = rtol * np.abs(a.coef_).max()
    np.testing.assert_allclose(b.coef_, a.coef_, rtol=0, atol=scale)
    np.testing.assert_allclose(b.intercept_, a.intercept_, rtol=0, atol=scale)
    assert b.coef_.shape == a.coef_.shape and b.coef_.dtype == a.coef_.dtype
    assert b.intercept_.shape == a.intercept_.shape and b.n_iter_ == a.n_iter_


CASES = [
    ("SGDRegressor", 0, "squared_error huber epsilon_insensitive squared_epsilon_insensitive"),
    ("SGDClassifier", 0, "hinge log_loss modified_huber squared_hinge perceptron squared_error"),
    ("SGDClassifier", 1, "hinge log_loss perceptron"),
]


@pytest.mark.parametrize("backend", ["native", "jit", "reference"])
@pytest.mark.parametrize(
    ("name", "which", "loss"),
    [(name, which, loss) for name, which, losses in CASES for loss in losses.split()],
)
def test_the_same_coefficients(name, which, loss, backend):
    if schuss.backends.available()[backend]:
        pytest.skip(f"no {backend} backend")
    for changes in (
        {"learning_rate": "constant"},
        {"learning_rate": "invscaling", "average": True, "penalty": None},
        {"learning_rate": "adaptive", "average": 200, "n_iter_no_change": 1},
        {"learning_rate": "constant", "fit_intercept": False, "epsilon": 0.3, "alpha": 0.1},
    ):
        a, b = both(name, which=which, loss=loss, backend=backend, **changes)
        assert_same(a, b)
        assert b.backend_ == backend and b.t_ == a.t_


@pytest.mark.parametrize("name", TARGETS)
def test_rates_that_fall_with_alpha(name):
    loss = {"SGDRegressor": "epsilon_insensitive", "SGDClassifier": "hinge"}[name]
    a, b = both(name, loss=loss, learning_rate="optimal", average=30)
    assert_same(a, b)


@pytest.mark.parametrize("name", TARGETS)
def test_float32_stays_float32(name):
    a, b = both(name, X.astype("f4"), learning_rate="constant")
    assert b.coef_.dtype == np.float32
    assert_same(a, b, 1e-4)


def test_weights():
    weight = RNG.uniform(size=160)
    a, b = both("SGDRegressor", sample_weight=weight, tol=None)
    assert_same(a, b)
    assert b.backend_ != "scikit-learn"
    for which in (0, 1):
        a, b = both(
            "SGDClassifier",
            which=which,
            loss="log_loss",
            learning_rate="constant",
            class_weight="balanced",
            sample_weight=weight,
            tol=None,
        )
        assert_same(a, b)


def test_sparse_rows():
    rows = sparse.csr_array(np.where(RNG.uniform(size=X.shape) < 0.5, 0, X))
    a, b = both("SGDRegressor", rows, fit_intercept=False)
    assert_same(a, b)
    assert b.backend_ != "scikit-learn"


@pytest.mark.parametrize("name", TARGETS)
def test_part_by_part_as_scikit_learn(name):
    average = 50 if name == "SGDRegressor" else False
    models = [
        room(shuffle=False, learning_rate="invscaling", average=average)
        for room in (getattr(theirs, name), getattr(ours, name))
    ]
    y = TARGETS[name][0]
    classes = {"classes": np.unique(y)} if name == "SGDClassifier" else {}
    for start in range(0, 160, 40):
        for model in models:
            model.partial_fit(X[start : start + 40], y[start : start + 40], **classes)
        assert_same(*models)
        assert models[1].t_ == models[0].t_


@pytest.mark.parametrize("which", [0, 1])
def test_averages_go_on_from_part_to_part(which):
    """Two parts of a run are the run; scikit-learn's classifier begins the intercept anew."""
    y = TARGETS["SGDClassifier"][which]
    parameters = {"shuffle": False, "learning_rate": "invscaling", "average": 50}
    whole, parts = (ours.SGDClassifier(**parameters) for _ in range(2))
    whole.partial_fit(X, y, classes=np.unique(y))
    for start in (0, 80):
        parts.partial_fit(X[start : start + 80], y[start : start + 80], classes=np.unique(y))
    assert_same(whole, parts)


def test_early_stopping_scores_the_weights_of_the_model():
    """Held-out rows are not trained on, and ``t_`` does not count them."""
    a, b = both("SGDRegressor", early_stopping=True, learning_rate="constant")
    assert_same(a, b)
    assert a.t_ == 1 + 160 * a.n_iter_ and b.t_ == 1 + 144 * b.n_iter_


def test_overflow_is_told_as_by_scikit_learn():
    big = X * 1e150
    for room in (theirs, ours):
        with pytest.raises(ValueError, match="under-/overflow occurred at epoch #1"):
            room.SGDRegressor(learning_rate="constant").fit(big, SCORES)


def test_a_fresh_permutation_each_epoch_from_the_seed():
    one, two, other = (
        ours.SGDRegressor(random_state=seed, max_iter=3).fit(X, SCORES).coef_ for seed in (1, 1, 2)
    )
    np.testing.assert_array_equal(one, two)
    assert (one != other).any()


def test_classes_side_by_side_give_the_same_bits():
    y = TARGETS["SGDClassifier"][1]
    one, two = (ours.SGDClassifier(random_state=0, n_jobs=jobs).fit(X, y) for jobs in (1, 2))
    np.testing.assert_array_equal(one.coef_, two.coef_)


def test_within_scikit_learn():
    model = make_pipeline(StandardScaler(), ours.SGDClassifier(loss="log_loss", random_state=0))
    y = TARGETS["SGDClassifier"][0]
    assert cross_val_score(model, X, y).mean() > 0.85
    search = GridSearchCV(model, {"sgdclassifier__alpha": [1e-4, 1e-2]}, n_jobs=2).fit(X, y)
    best = search.best_estimator_
    restored = pickle.loads(pickle.dumps(best))
    np.testing.assert_array_equal(restored.predict_proba(X), best.predict_proba(X))
    assert clone(ours.SGDRegressor(backend="jit", threads=1)).get_params()["backend"] == "jit"


def test_scripts_stay_as_they_are():
    ours.patch()
    try:
        from sklearn.linear_model import SGDClassifier

        assert SGDClassifier is ours.SGDClassifier
        assert SGDClassifier(random_state=0).fit(X, SCORES > 0).backend_ != "scikit-learn"
    finally:
        ours.unpatch()
    assert theirs.SGDClassifier is not ours.SGDClassifier


@pytest.mark.parametrize("name", TARGETS)
def test_fitted_models_become_each_other(name):
    a, b = both(name, alpha=0.01, average=True)
    for was, model in ((b, ours.to_sklearn(b)), (a, ours.from_sklearn(a))):
        assert model.alpha == 0.01
        np.testing.assert_array_equal(model.predict(X), was.predict(X))
        model.partial_fit(X, TARGETS[name][0])
    assert type(ours.to_sklearn(b)) is type(a) and type(ours.from_sklearn(a)) is type(b)
    assert not hasattr(ours.to_sklearn(b), "backend_")
    for convert, model in ((ours.to_sklearn, a), (ours.from_sklearn, b), (ours.to_sklearn, 3)):
        with pytest.raises(TypeError, match="model="):
            convert(model)


def test_slopes_are_cut_off_as_in_scikit_learn():
    """What would overflow begins anew, and goes astray as far as theirs: digits are chaos there."""
    a, b = both("SGDRegressor", X * 30, early_stopping=True, learning_rate="constant", eta0=1e-3)
    assert b.n_iter_ == a.n_iter_
    assert 0.2 < np.abs(b.coef_).max() / np.abs(a.coef_).max() < 5


def test_without_scikit_learn():
    code = """
        import sys
        if {old}:
            import sklearn
            sklearn.__version__ = "1.7.2"
        else:
            sys.modules["sklearn"] = None
        try:
            import schuss.sklearn
        except ImportError as error:
            print(error)
    """
    for old, what in ((False, "scikit-learn 1.8 or newer:"), (True, "found 1.7.2")):
        message = run_python(code.format(old=old))
        assert what in message and "pip install '.[sklearn]'" in message


@pytest.mark.parametrize("changes", [{"backend": "cuda"}, {"threads": 0}])
def test_bad_parameters(changes):
    (name,) = changes
    with pytest.raises(ValueError, match=f"The {name!r} parameter of SGDRegressor must be"):
        ours.SGDRegressor(**changes).fit(X, SCORES)


@pytest.mark.filterwarnings("ignore")
@parametrize_with_checks(
    [ours.SGDRegressor(), ours.SGDClassifier()],
    expected_failed_checks=lambda model: NOT_EQUIVALENT,
)
def test_checks_of_scikit_learn(estimator, check):
    check(estimator)
