"""Between an estimator's attributes and weight vectors: where training starts, what it leaves."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from sklearn.base import is_classifier

from schuss.sklearn.training import Outcome

__all__ = ["MAX_INT", "keep", "keep_coef", "start_of", "weights_of"]

# Seeds are drawn below this, as scikit-learn draws them.
MAX_INT = np.iinfo(np.int32).max


def weights_of(sample_weight: np.ndarray, per_row: Any = 1.0) -> np.ndarray | None:
    """Weights of the rows; None where all are 1."""
    weights = (sample_weight * per_row).astype(sample_weight.dtype)
    return None if (weights == 1).all() else weights


def start_of(model: Any, dtype: Any) -> tuple[np.ndarray, np.ndarray | None]:
    """The weight vectors to go on from, and the means of their iterates where they are kept.

    Both have the shape (n_outputs, n_features + 1), intercepts last; means are float64.
    """

    def thetas(name: str) -> np.ndarray:
        coef, intercept = (getattr(model, name.format(part)) for part in ("coef", "intercept"))
        return np.column_stack([np.atleast_2d(coef), np.atleast_1d(intercept)])

    if not model.average:
        return thetas("{}_").astype(dtype), None
    return thetas("_standard_{}").astype(dtype), thetas("_average_{}").astype(np.float64)


def keep_coef(model: Any, coef: np.ndarray) -> None:
    """Write coefficients over those of the part before, where they fit, as scikit-learn does."""
    old = model.coef_
    if old.dtype == coef.dtype and old.size == coef.size and old.flags.writeable:
        old[...] = coef.reshape(old.shape)
    else:
        model.coef_ = coef.reshape(old.shape)


def keep(model: Any, made: Sequence[Outcome], means: Any) -> None:
    """Make attributes of what was trained: one weight vector, or one for each output."""

    def parts(thetas: Any) -> tuple[np.ndarray, np.ndarray]:
        theta = np.stack(thetas).astype(made[0].theta.dtype)
        coef, intercept = theta[:, :-1].copy(), theta[:, -1].copy()
        return (coef if is_classifier(model) or len(made) > 1 else coef[0]), intercept

    going_on = model.t_ > 1
    model.n_iter_ = max(one.epochs for one in made)
    model.t_ += max(one.updates for one in made)
    coef, model.intercept_ = parts([one.theta for one in made])
    if going_on and not model.average:
        keep_coef(model, coef)
    else:
        model.coef_ = coef
    if model.average:
        model._standard_coef, model._standard_intercept = model.coef_, model.intercept_
        model._average_coef, model._average_intercept = parts(means)
        if model.average <= model.t_ - 1:
            model.coef_, model.intercept_ = model._average_coef, model._average_intercept
