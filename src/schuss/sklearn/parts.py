"""One epoch over a part of the data, as ``partial_fit`` makes it: what it takes, and no more.

The rows are plain ones (``plain.ready``), without weights. It is the epoch that the whole training
would make, which takes three times as long to set up.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from sklearn.utils import check_random_state

from schuss.backends import Problem, Segment
from schuss.backends.classic import ClassicState
from schuss.data import order as orders
from schuss.sklearn.attributes import MAX_INT, keep_coef
from schuss.sklearn.classic import at, check_finite
from schuss.sklearn.journal import Journal
from schuss.sklearn.options import history_of
from schuss.sklearn.recipe import Recipe, recipe_of

__all__ = ["go_on"]


def go_on(
    model: Any,
    X: np.ndarray,
    y: np.ndarray,
    alpha: float,
    intercept: np.ndarray,
    own: np.ndarray | None = None,
    drift: float = 0.0,
) -> np.ndarray:
    """Train the model's coefficients on one more part; returns the intercepts.

    Parameters
    ----------
    model : estimator
        Without averages.
    X : ndarray, shape (n_samples, n_features)
    y : ndarray of X's dtype, shape (n_samples,)
    alpha : float
    intercept : ndarray, shape (n_outputs,)
    own : ndarray of X's dtype, shape (n_outputs,), or None
        As in ``ClassicState``.
    drift : float
        As in ``ClassicStep``.
    """
    n, done = X.shape[0], int(model.t_) - 1
    recipe = recipe_of(model, n, False, alpha, drift)
    outputs = intercept.size
    state = ClassicState(
        model.coef_.reshape(outputs, -1).copy(),
        intercept.astype(np.float64),
        own,
        np.arange(outputs),
        np.ones(outputs),
        np.zeros(outputs),
        np.zeros((outputs, X.shape[1] if recipe.penalty.l1 else 0), X.dtype),
    )
    drawn = _seed_of_number if isinstance(model.random_state, int) else _seed
    seed = drawn(model.random_state, outputs)
    segment = Segment(_rows(model, recipe, n, seed, done), _rates(recipe, done, n), 1)
    problem = Problem(X, y, None, recipe.loss, recipe.penalty, bool(model.fit_intercept))
    losses = recipe.engine.descend_classic(problem, recipe.step, state, segment)
    check_finite(state, 1)
    journal = Journal(n, history_of(model))
    rate = float(segment.learning_rate[-1])
    journal.note(at(state, 0, done + n), float(losses.mean()) / n, np.nan, rate)
    model.history_ = journal.finish()
    vars(model).pop("_memory", None)  # of steps of another rule
    keep_coef(model, state.coef)
    model.t_ += n
    model.n_iter_ = 1
    model.backend_ = recipe.engine.name
    return state.intercept.astype(X.dtype)


def _seed(random_state: Any, outputs: int) -> int:
    """The first of as many draws as scikit-learn makes; one is made quicker by itself."""
    draw = check_random_state(random_state).randint
    return int(draw(MAX_INT) if outputs == 1 else draw(MAX_INT, size=outputs)[0])


# A number begins a generator anew at each call, which takes as long as the training.
_seed_of_number = lru_cache(maxsize=64)(_seed)


def _rows(model: Any, recipe: Recipe, n: int, seed: int, done: int) -> Any:
    """All rows in the order of the epoch that begins after so many updates."""
    if not model.shuffle:
        return 0, n
    facts = orders.Facts(n, seed=seed, permute=recipe.engine.permute)
    return orders.shuffle().bind(facts).indices(done, 0, n)


def _rates(recipe: Recipe, done: int, n: int) -> np.ndarray:
    rates: np.ndarray = recipe.schedule(np.arange(done, done + n))
    return rates
