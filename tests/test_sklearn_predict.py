"""Predictions of plain arrays go past scikit-learn's checks: same numbers, same errors."""

from __future__ import annotations

import copy
import pickle
import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.8")
from scipy import sparse
from sklearn.base import clone
from sklearn.exceptions import NotFittedError

import schuss.sklearn as ours
from schuss.sklearn.parts import plan_for
from schuss.sklearn.plain import SHORT

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 5))
MODELS = {
    "regressor": lambda: ours.SGDRegressor(random_state=0).fit(X, X[:, 0]),
    "two classes": lambda: ours.SGDClassifier(loss="log_loss", random_state=0).fit(X, X[:, 0] > 0),
    "text": lambda: ours.SGDClassifier(random_state=0).fit(X, np.where(X[:, 1] > 0, "a", "bc")),
    "four classes": lambda: ours.SGDClassifier(random_state=0).fit(X, np.arange(60) % 4),
    "one class": lambda: ours.SGDOneClassSVM(random_state=0).fit(X),
}
BAD = {
    "NaN": np.where(np.arange(5) == 2, np.nan, X),
    "infinity": np.where(np.arange(5) == 2, np.inf, X),
    "too narrow": X[:, :4],
    "a vector": X[0],
    "no rows": X[:0],
    "text": np.full((3, 5), "x"),
}
GOOD = {
    "one row": X[:1],
    "float32": X.astype("f4"),
    "integers": np.arange(10).reshape(2, 5),
    "by columns": np.asfortranarray(X),
    "backwards": X[::-1, ::-1],
    "lists": X.tolist(),
    "sparse": sparse.csr_array(X),
    "sums overflow": np.full((2, 5), 1e308),
    "big-endian": X.astype(">f8"),
    "float16": X.astype("f2"),
}


def outcomes(model, rows) -> list:
    """What each method makes of the rows: numbers, or the error and its text."""
    found = []
    for name in ("predict", "decision_function", "predict_proba", "score_samples"):
        if hasattr(model, name):
            try:
                found.append(getattr(model, name)(rows))
            except Exception as error:
                found.append((type(error), str(error)))
    return found


@pytest.mark.parametrize("name", MODELS)
def test_the_same_as_scikit_learn(name):
    model = MODELS[name]()
    twin = ours.to_sklearn(model)
    for label, rows in {**GOOD, **BAD}.items():
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            pairs = zip(outcomes(model, rows), outcomes(twin, rows), strict=True)
            for mine, theirs in pairs:
                if isinstance(theirs, tuple):
                    said = theirs[1].replace(type(twin).__name__, type(model).__name__)
                    assert mine == (theirs[0], said), label
                else:
                    np.testing.assert_array_equal(mine, theirs, err_msg=label)
                    assert mine.dtype == theirs.dtype and mine.shape == theirs.shape, label


def test_sparse_coefficients():
    model = MODELS["four classes"]()
    before = model.predict(X)
    np.testing.assert_array_equal(model.sparsify().predict(X), before)
    np.testing.assert_array_equal(model.densify().predict(X), before)


def test_names_of_columns_are_missed():
    frame = pytest.importorskip("pandas").DataFrame(X, columns=list("abcde"))
    model = ours.SGDRegressor(random_state=0).fit(frame, X[:, 0])
    with pytest.warns(UserWarning, match="does not have valid feature names"):
        model.predict(X)


def test_not_fitted():
    for make in (ours.SGDRegressor, ours.SGDClassifier, ours.SGDOneClassSVM):
        with pytest.raises((NotFittedError, AttributeError)):
            make().predict(X)


def test_a_decision_function_of_one_s_own_is_asked():
    class Turned(ours.SGDClassifier):
        def decision_function(self, X):
            return -super().decision_function(X)

    y = X[:, 0] > 0
    straight, turned = (kind(random_state=0).fit(X, y) for kind in (ours.SGDClassifier, Turned))
    np.testing.assert_array_equal(turned.predict(X), ~straight.predict(X))


# --------------------------------------------------------------------- partial_fit of plain arrays


LABELS = {
    "regressor": X[:, 0],
    "two classes": X[:, 0] > 0,
    "text": np.where(X[:, 1] > 0, "a", "bc"),
    "four classes": np.arange(60) % 4,
    "one class": None,
}


@pytest.mark.parametrize("average", [False, 10])
@pytest.mark.parametrize("name", MODELS)
def test_parts_are_those_of_the_long_way(name, average):
    """The same order, the same draws, the same numbers as with sample weights of 1."""
    y = LABELS[name]
    fitted = MODELS[name]()
    fitted.set_params(average=average, shuffle=True)
    short, long = (type(fitted)(**fitted.get_params()) for _ in range(2))
    classes = {} if y is None or name == "regressor" else {"classes": np.unique(y)}
    for k in range(4):
        part = slice(15 * k, 15 * k + 15)
        labels = None if y is None else y[part]
        short.partial_fit(X[part], labels, **classes)
        long.partial_fit(X[part], labels, **classes, sample_weight=np.ones(15))
    np.testing.assert_allclose(short.coef_, long.coef_, rtol=1e-12)
    assert short.coef_.shape == long.coef_.shape and short.coef_.dtype == long.coef_.dtype
    assert (short.t_, short.n_iter_, short.backend_) == (long.t_, long.n_iter_, long.backend_)


@pytest.mark.parametrize("rows", BAD.values(), ids=BAD)
def test_parts_that_are_refused(rows):
    """As by scikit-learn: the message names what is wrong; the model stays as it was."""
    for name in ("regressor", "two classes"):
        model = MODELS[name]()
        before, labels = model.coef_.copy(), LABELS[name][: len(rows)]
        with pytest.raises(ValueError):
            model.partial_fit(rows, labels)
        np.testing.assert_array_equal(model.coef_, before)


def test_labels_that_are_refused():
    model = MODELS["two classes"]()
    for y in (np.arange(60), LABELS["two classes"][:50], np.full(60, np.nan)):
        with pytest.raises(ValueError):
            model.partial_fit(X, y)
    with pytest.raises(ValueError, match="not the same as on last call"):
        model.partial_fit(X, LABELS["two classes"], classes=[0, 1, 2])


CHANGES = {
    "penalty": {"penalty": "l1", "alpha": 0.01},
    "strength": {"alpha": 0.1},
    "nu": {"nu": 0.1},
    "rates": {"learning_rate": "constant", "eta0": 0.05},
    "power of time": {"learning_rate": "invscaling", "power_t": 0.7},
    "loss": {"loss": "huber"},
    "no intercept": {"fit_intercept": False},
    "slow intercept": {"intercept_decay": 0.5},
    "seed": {"random_state": 7},
    "stored order": {"shuffle": False},
    "another order": {"order": "sequential"},
    "batches": {"batch_size": 4},
    "rule": {"rule": "sgd(momentum=0.5)"},
    "clipping": {"clip_norm": 0.1},
    "backend": {"backend": "reference"},
    "dtype": {"dtype": "float32"},
    "average": {"average": True},
}
CHANGED = [
    (name, change)
    for name in MODELS
    for change, parameters in CHANGES.items()
    if parameters.keys() <= MODELS[name]().get_params().keys()
]


def in_parts(name, change, sample_weight=None, dtype="f8"):
    """The model after two parts, the change, and two more of rows in ``dtype``."""
    model, y = MODELS[name](), LABELS[name]
    classes = {"classes": np.unique(y)} if hasattr(model, "classes_") else {}
    for k in range(4):
        part, rows = slice(15 * k, 15 * k + 15), X if k < 2 else X.astype(dtype)
        labels = None if y is None else y[part]
        model = change(model) if k == 2 else model
        model.partial_fit(rows[part], labels, **classes, sample_weight=sample_weight)
    return model


def weights(model):
    last = model.offset_ if hasattr(model, "offset_") else model.intercept_
    return np.append(model.coef_, last)


def assert_twins(short, long):
    np.testing.assert_allclose(weights(short), weights(long), rtol=1e-12)
    assert short.coef_.dtype == long.coef_.dtype
    assert vars(short).keys() == vars(long).keys()
    assert (short.t_, short.n_iter_, short.backend_) == (long.t_, long.n_iter_, long.backend_)
    for column in ("epoch", "updates", "samples", "learning_rate"):
        np.testing.assert_array_equal(short.history_[column], long.history_[column])


@pytest.mark.parametrize(("name", "change"), CHANGED)
def test_parameters_that_change_between_parts(name, change):
    def changed(model):
        return model.set_params(**CHANGES[change])

    short = in_parts(name, changed)
    assert_twins(short, in_parts(name, changed, np.ones(15)))
    unchanged = in_parts(name, lambda model: model)
    same = np.allclose(weights(short), weights(unchanged), rtol=1e-9, atol=0)
    assert same == (change == "backend")


@pytest.mark.parametrize(
    "copied", [clone, copy.deepcopy, lambda model: pickle.loads(pickle.dumps(model))]
)
@pytest.mark.parametrize("name", MODELS)
def test_copies_between_parts(name, copied):
    assert_twins(in_parts(name, copied), in_parts(name, copied, np.ones(15)))


@pytest.mark.parametrize("name", MODELS)
def test_rows_of_another_dtype_between_parts(name):
    short, long = (in_parts(name, lambda model: model, w, "f4") for w in (None, np.ones(15)))
    assert_twins(short, long)


@pytest.mark.parametrize("name", MODELS)
def test_plans_are_made_once(name):
    model = MODELS[name]()
    plan = plan_for(model, X)
    assert plan is not None
    assert plan_for(MODELS[name](), X[:7]) is plan_for(copy.deepcopy(model), X) is plan
    assert plan_for(model.set_params(eta0=0.5), X) not in (None, plan)


@pytest.mark.parametrize("name", MODELS)
def test_parts_that_take_the_long_way(name):
    for parameters in ({"average": 3}, {"verbose": 1}, {"threads": []}):
        assert plan_for(MODELS[name]().set_params(**parameters), X) is None, parameters
    long = np.zeros((SHORT // 5 + 1, 5))  # Ctrl-C is served between segments
    for rows in (X.astype("f4"), np.asfortranarray(X), np.where(X > 2, np.nan, X), long):
        assert plan_for(MODELS[name](), rows) is None
