"""Predictions of plain arrays go past scikit-learn's checks: same numbers, same errors."""

from __future__ import annotations

import warnings

import numpy as np
import pytest

pytest.importorskip("sklearn", minversion="1.8")
from scipy import sparse
from sklearn.exceptions import NotFittedError

import schuss.sklearn as ours

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
