"""Trainings that depart from scikit-learn's loop: from an estimator's data to its attributes."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from sklearn.utils import check_random_state
from sklearn.utils.parallel import Parallel, delayed
from sklearn.utils.validation import _check_sample_weight, validate_data

from schuss.backends import Backend, choose
from schuss.data.arrays import as_parameters
from schuss.data.sparse import as_rows
from schuss.errors import DataError
from schuss.signals import served
from schuss.sklearn.attributes import MAX_INT, keep, start_of, weights_of
from schuss.sklearn.inputs import in_dtype
from schuss.sklearn.options import (
    check_departure,
    is_multinomial,
    loss_of,
    remember,
    train_batches,
)

__all__ = ["fit_outputs", "outputs_of", "score_of", "signs_of", "train_classes", "train_jointly"]

SIGNS = np.array([-1, 1])  # classes of a binary problem


def signs_of(numbers: np.ndarray, k: int, dtype: Any) -> np.ndarray:
    """+1 for the rows of class number ``k``, -1 for the others."""
    return np.where(numbers == k, 1, -1).astype(dtype)


def score_of(
    model: Any, held_out: np.ndarray, X: Any, signs: np.ndarray, sample_weight: np.ndarray
) -> Any:
    """What scores a class against the others on the held-out rows; None without them."""
    return model._make_validation_score_cb(held_out, X, signs, sample_weight, classes=SIGNS)


def engine_of(model: Any) -> Backend:
    """The backend that trains, also by its name in ``backend_``."""
    check_departure(model)
    engine = choose(model.backend, loss_of(model), model.threads)
    model.backend_ = engine.name
    return engine


def train_jointly(
    model: Any,
    X: Any,
    y: np.ndarray,
    targets: np.ndarray,
    per_row: Any = 1.0,
    *,
    sample_weight: np.ndarray,
    max_iter: int,
    classes: np.ndarray | None = None,
) -> None:
    """Train all outputs together; the targets are one column for each, or numbers of classes.

    Held-out rows are scored against ``y``, in which ``classes`` stand if it holds labels.
    """
    engine = engine_of(model)
    held_out = model._make_validation_split(y, sample_mask=sample_weight > 0)
    score = model._make_validation_score_cb(held_out, X, y, sample_weight, classes=classes)
    starts, average = start_of(model, X.dtype)
    with served(model._asked, terminate=False):
        made = train_batches(
            model,
            engine,
            as_rows(X, X.dtype),
            np.ascontiguousarray(targets, X.dtype),
            weights_of(sample_weight, per_row),
            starts.reshape(-1),
            None if average is None else average.of(average.theta.reshape(-1)),
            max_iter,
            held_out,
            score,
            check_random_state(model.random_state).randint(MAX_INT),
        )
    remember(model, [made])
    thetas = made.theta.reshape(starts.shape)
    keep(model, [dataclasses.replace(made, theta=theta) for theta in thetas], average)


def train_classes(
    model: Any, X: Any, y: np.ndarray, *, sample_weight: np.ndarray, max_iter: int, **_: Any
) -> None:
    """Train a classifier: two classes, or more as its ``multi_class`` says.

    What else scikit-learn hands down, ``alpha`` and the like, are the model's parameters.
    """
    given: dict[str, Any] = {"sample_weight": sample_weight, "max_iter": max_iter}
    weights, numbers = model._expanded_class_weight, np.searchsorted(model.classes_, y)
    if is_multinomial(model):
        train_jointly(model, X, y, numbers, weights[numbers], classes=model.classes_, **given)
    elif len(model.classes_) == 2:
        signs = signs_of(numbers, 1, X.dtype)
        train_jointly(model, X, signs, signs, weights[numbers], classes=SIGNS, **given)
    else:
        train_apart(model, X, numbers, **given)


def train_apart(
    model: Any,
    X: Any,
    numbers: np.ndarray,
    *,
    sample_weight: np.ndarray,
    max_iter: int,
) -> None:
    """Train each class against the rest, ``n_jobs`` of them at a time."""
    engine, rows = engine_of(model), as_rows(X, X.dtype)
    held_out = model._make_validation_split(numbers, sample_mask=sample_weight > 0)
    starts, average = start_of(model, X.dtype)
    # Drawn before the threads start, so that the draws do not depend on them.
    seeds = check_random_state(model.random_state).randint(MAX_INT, size=len(starts))

    def one(k: int) -> Any:
        signs = signs_of(numbers, k, X.dtype)
        score = score_of(model, held_out, X, signs, sample_weight)
        per_row = np.where(numbers == k, model._expanded_class_weight[k], 1.0)
        mean = None if average is None else average.of(average.theta[k])
        weights = weights_of(sample_weight, per_row)
        data = (rows, signs, weights, starts[k], mean, max_iter, held_out, score)
        return train_batches(model, engine, *data, seed=int(seeds[k]), row=k)

    jobs = Parallel(n_jobs=model.n_jobs, verbose=model.verbose, require="sharedmem")
    with served(model._asked, terminate=False):
        made = jobs(delayed(one)(k) for k in range(len(starts)))
    remember(model, made)
    keep(model, made, average)


# ---- Regression of several outputs ----


def outputs_of(y: Any) -> int:
    """Columns of the targets."""
    shape = y.shape if hasattr(y, "shape") else np.asarray(y).shape
    return int(shape[1]) if len(shape) == 2 else 1


def fit_outputs(
    model: Any,
    X: Any,
    y: Any,
    alpha: float,
    loss: str,
    learning_rate: str,
    max_iter: int,
    sample_weight: Any,
    coef_init: Any,
    intercept_init: Any,
) -> Any:
    """What scikit-learn's ``_partial_fit`` does for one output, for several."""
    first = getattr(model, "coef_", None) is None
    dtypes = [np.float64, np.float32]
    checks = {"accept_sparse": "csr", "dtype": dtypes, "order": "C", "reset": first}
    X, y = validate_data(model, X, y, multi_output=True, y_numeric=True, **checks)
    sample_weight = _check_sample_weight(sample_weight, X, dtype=X.dtype)
    shape = (y.shape[1] if y.ndim == 2 else 1, X.shape[1])
    if first or coef_init is not None:
        allocate(model, shape, X.dtype, coef_init, intercept_init)
    if model.coef_.shape != shape:
        raise DataError(
            f"y: has {shape[0]} columns and the model coefficients of shape {model.coef_.shape}."
        )
    model.t_ = getattr(model, "t_", 1.0)
    X, y, sample_weight = in_dtype(model, X, y, sample_weight)
    train_jointly(model, X, y, y, sample_weight=sample_weight, max_iter=max_iter)
    return model


def allocate(
    model: Any, shape: tuple[int, int], dtype: Any, coef_init: Any, intercept_init: Any
) -> None:
    """Where the weights of several outputs start, and their means."""

    def given(value: Any, shape: tuple[int, ...], name: str) -> np.ndarray:
        if value is None:
            return np.zeros(shape, dtype)
        return as_parameters(value, shape, name, "(n_outputs, ...)", dtype)

    model.coef_ = given(coef_init, shape, "coef_init")
    model.intercept_ = given(intercept_init, shape[:1], "intercept_init")
    if model.average:
        model._standard_coef, model._standard_intercept = model.coef_, model.intercept_
        model._average_coef, model._average_intercept = np.zeros(shape), np.zeros(shape[0])
