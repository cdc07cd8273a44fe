"""Sparse rows of many columns: training on those that hold entries is the same training."""

from __future__ import annotations

import numpy as np
import pytest

scipy_sparse = pytest.importorskip("scipy.sparse")
pytest.importorskip("sklearn")

from schuss.sklearn import SGDClassifier, SGDOneClassSVM, SGDRegressor, columns  # noqa: E402

WIDTH, ROWS = 1 << 14, 120


@pytest.fixture(scope="module")
def data():
    rng = np.random.default_rng(0)
    entries = 20
    places = rng.choice(600, (ROWS, entries)) * (WIDTH // 600)
    indptr = np.arange(0, ROWS * entries + 1, entries)
    shape = (ROWS, WIDTH)
    X = scipy_sparse.csr_matrix(
        (rng.standard_normal(ROWS * entries), places.ravel(), indptr), shape
    )
    X.sum_duplicates()
    margin = X @ rng.standard_normal(WIDTH)
    return X, margin, np.digitize(margin, np.quantile(margin, [0.3, 0.6]))


def trained(make, X, y, parts: int, monkeypatch, many: int):
    """A model after a fit, or after several parts, with all columns or few of them trained."""
    monkeypatch.setattr(columns, "MANY", many)
    model = make()
    if not parts:
        return model.fit(*((X,) if y is None else (X, y)))
    for rows in np.array_split(np.arange(ROWS), parts):
        labels = () if y is None else (y[rows],)
        classes = {"classes": np.unique(y)} if isinstance(model, SGDClassifier) else {}
        model.partial_fit(X[rows], *labels, **classes)
    return model


@pytest.mark.parametrize("parts", [0, 4])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"penalty": "l1", "alpha": 1e-3},
        {"penalty": "elasticnet", "alpha": 1e-2},
        {"average": True},
        {"average": 30, "learning_rate": "constant", "eta0": 0.01},
        {"penalty": None, "learning_rate": "adaptive", "eta0": 0.01},
        {"alpha": 0.1},
    ],
    ids=str,
)
@pytest.mark.parametrize("kind", [SGDRegressor, SGDClassifier, "two classes", SGDOneClassSVM])
def test_few_columns_train_as_all(data, kind, options, parts, monkeypatch):
    X, margin, classes = data
    options = {"random_state": 3, "max_iter": 5, "tol": None} | options
    if kind is SGDOneClassSVM:
        renamed = {k: v for k, v in options.items() if k not in ("penalty", "alpha")}
        make, y = (lambda: SGDOneClassSVM(nu=0.4, **renamed)), None
    elif kind is SGDRegressor:
        make, y = (lambda: SGDRegressor(**options)), margin
    else:
        y = classes if kind is SGDClassifier else classes > 1
        make = lambda: SGDClassifier(**options)  # noqa: E731
    if parts:
        make_all = make
        make = lambda: make_all().set_params(max_iter=5)  # noqa: E731
    few = trained(make, X, y, parts, monkeypatch, 16)
    everything = trained(make, X, y, parts, monkeypatch, 1 << 62)
    np.testing.assert_allclose(few.coef_, everything.coef_, rtol=1e-10, atol=1e-14)
    intercept = "offset_" if y is None else "intercept_"
    np.testing.assert_allclose(
        getattr(few, intercept), getattr(everything, intercept), rtol=1e-10, atol=1e-14
    )
    assert (few.t_, few.n_iter_) == (everything.t_, everything.n_iter_)
    first, second = few.history_.to_dict(), everything.history_.to_dict()
    np.testing.assert_allclose(first["train_loss"], second["train_loss"], rtol=1e-9)


@pytest.mark.parametrize("classes", [2, 3])
def test_scores_see_the_whole_model(data, classes, monkeypatch):
    X, _, labels = data
    y = np.minimum(labels, classes - 1)
    make = lambda: SGDClassifier(  # noqa: E731
        early_stopping=True, random_state=1, max_iter=30, validation_fraction=0.3
    )
    few = trained(make, X, y, 0, monkeypatch, 16)
    everything = trained(make, X, y, 0, monkeypatch, 1 << 62)
    np.testing.assert_allclose(few.coef_, everything.coef_, rtol=1e-10, atol=1e-14)
    assert few.n_iter_ == everything.n_iter_


def test_callbacks_see_all_columns(data):
    X, margin, _ = data
    seen = []
    model = SGDRegressor(max_iter=2, tol=None, callbacks=[lambda m: seen.append(m.coef.shape)])
    model.fit(X, margin)
    assert seen == [(WIDTH,)] * 2


def test_a_warm_start_keeps_what_no_row_holds(data, monkeypatch):
    X, margin, _ = data
    kept = np.random.default_rng(1).standard_normal(WIDTH)
    models = []
    for many in (16, 1 << 62):
        monkeypatch.setattr(columns, "MANY", many)
        model = SGDRegressor(penalty=None, max_iter=3, tol=None, random_state=0)
        models.append(model.fit(X, margin, coef_init=kept))
    np.testing.assert_allclose(models[0].coef_, models[1].coef_, rtol=1e-12)
    unused = np.flatnonzero(np.bincount(X.indices, minlength=WIDTH) == 0)
    np.testing.assert_array_equal(models[0].coef_[unused], kept[unused])
