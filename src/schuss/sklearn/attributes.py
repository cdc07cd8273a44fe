"""Between an estimator's attributes and weight vectors: where training starts, what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from schuss.sklearn.training import Average, Outcome

__all__ = ["MAX_INT", "MEANS", "keep", "keep_coef", "start_of", "weights_of"]

# Seeds are drawn below this, as scikit-learn draws them.
MAX_INT = np.iinfo(np.int32).max

# What holds the last iterates and their means, where means are kept.
MEANS = [f"_{kind}_{part}" for kind in ("standard", "average") for part in ("coef", "intercept")]


def weights_of(sample_weight: np.ndarray, per_row: Any = 1.0) -> np.ndarray | None:
    """Weights of the rows; None where all are 1."""
    weights = (sample_weight * per_row).astype(sample_weight.dtype)
    return None if (weights == 1).all() else weights


def start_of(model: Any, dtype: Any) -> tuple[np.ndarray, Average | None]:
    """The weight vectors to go on from, and the means of their iterates where they are kept.

    Both have the shape (n_outputs, n_features + 1), intercepts last; means are float64. Where
    ``average`` was set on a model that had been trained without, they begin.
    """

    def thetas(name: str) -> np.ndarray:
        coef, intercept = (getattr(model, name.format(part)) for part in ("coef", "intercept"))
        return np.column_stack([np.atleast_2d(coef), np.atleast_1d(intercept)])

    if not model.average:
        return thetas("{}_").astype(dtype), None
    start = int(model.average)
    if not hasattr(model, "_standard_coef"):
        theta = thetas("{}_").astype(dtype)
        return theta, Average(start, np.zeros(theta.shape))
    # Of a model that was scikit-learn's, as many as it counts.
    held = 0 if model.t_ == 1 else getattr(model, "_averaged", max(0, int(model.t_) - start))
    mean = Average(start, thetas("_average_{}").astype(np.float64), held)
    return thetas("_standard_{}").astype(dtype), mean


def keep_coef(model: Any, coef: np.ndarray) -> None:
    """Write coefficients over those of the part before, where they fit, as scikit-learn does."""
    old = model.coef_
    if old.dtype == coef.dtype and old.size == coef.size and old.flags.writeable:
        old[...] = coef.reshape(old.shape)
    else:
        model.coef_ = coef.reshape(old.shape)


def keep(model: Any, made: Sequence[Outcome], average: Average | None) -> None:
    """Make attributes of what was trained: one weight vector, or one for each output.

    Raises
    ------
    KeyboardInterrupt
        If Ctrl-C came before the first update: the model stays what it was.
    """

    def parts(thetas: Any) -> tuple[np.ndarray, np.ndarray]:
        theta = np.stack(thetas).astype(made[0].theta.dtype)
        coef, intercept = theta[:, :-1].copy(), theta[:, -1].copy()
        return (coef if is_classifier(model) or len(made) > 1 else coef[0]), intercept

    going_on, updates = model.t_ > 1, max(one.updates for one in made)
    if not updates:
        raise KeyboardInterrupt
    model.n_iter_ = max(one.epochs for one in made)
    model.t_ += updates
    coef, model.intercept_ = parts([one.theta for one in made])
    if going_on and average is None:
        keep_coef(model, coef)
    else:
        model.coef_ = coef
    if average is None:
        for name in (*MEANS, "_averaged"):
            vars(model).pop(name, None)
        return
    model._standard_coef, model._standard_intercept = model.coef_, model.intercept_
    model._average_coef, model._average_intercept = parts(average.theta)
    model._averaged = max(average.held, *(one.averaged for one in made))
    if model._averaged and model.average <= model.t_ - 1:
        model.coef_, model.intercept_ = model._average_coef, model._average_intercept
