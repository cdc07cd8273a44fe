"""One epoch over a part of the data, as ``partial_fit`` makes it: what it takes, and no more.

The rows are plain ones, without weights. It is the epoch that the whole training would make, which
takes five times as long to set up. What follows from the parameters alone is a :class:`Plan`, made
once for the same parameters, by whichever model they come: so no model has to forget one.
"""

from __future__ import annotations

import operator
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, cast

import numpy as np
from sklearn.utils import check_random_state

from schuss.backends import Problem, Segment
from schuss.backends.classic import ClassicState
from schuss.formulas.bijection import round_keys
from schuss.sklearn.attributes import MAX_INT, keep_coef
from schuss.sklearn.classic import check_finite
from schuss.sklearn.journal import recorded
from schuss.sklearn.options import departs, history_of
from schuss.sklearn.plain import SHORT, finite, plain
from schuss.sklearn.recipe import Recipe, recipe_of

__all__ = ["Plan", "go_on", "plan_for"]

# Of models that have these, more is to be done: callbacks are told, averages are kept.
FURTHER = frozenset(("_skl_callbacks", "_standard_coef"))


@dataclass(frozen=True, eq=False)
class Plan:
    """What is the same for all parts that a model with these parameters is given.

    Attributes
    ----------
    recipe : Recipe
    shuffle, fit_intercept : bool
    active : ndarray of int64, shape (n_outputs,)
    factor : ndarray of float64, shape (n_outputs,)
        As in ``ClassicState``; kernels read them.
    paid : tuple of int
        The shape of that array there.
    """

    recipe: Recipe
    shuffle: bool
    fit_intercept: bool
    active: np.ndarray
    factor: np.ndarray
    paid: tuple[int, int]

    def start(
        self, coef: np.ndarray, intercept: np.ndarray, own: np.ndarray | None
    ) -> ClassicState:
        """State before the part's first step; arrays are copied."""
        outputs = self.active.size
        return ClassicState(
            coef.reshape(outputs, -1).copy(),
            intercept.astype(np.float64),
            own,
            self.active,
            self.factor,
            np.zeros(outputs),
            np.zeros(self.paid, coef.dtype),
        )


def plan_for(model: Any, X: Any) -> Plan | None:
    """The plan by which a fitted model can go on with X as it is; None if it takes the long way."""
    learnt = vars(model)
    if not plain(model, X) or X.size > SHORT or not X.flags.c_contiguous:
        return None
    if "t_" not in learnt or not FURTHER.isdisjoint(learnt) or learnt.get("callbacks"):
        return None
    coef, kind = learnt["coef_"], cast(Any, type(model))
    if X.dtype != coef.dtype:
        return None
    shape = coef.reshape(-1, X.shape[1]).shape
    try:
        plan = _made(kind, X.dtype, *shape, *_parameters(kind)(model))
    except TypeError:  # a parameter that has no hash
        return None
    return plan if plan and finite(X) else None


def _names(kind: type[Any]) -> list[str]:
    """Parameters that plans depend on: all but those that may hold much, or change unseen."""
    return [name for name in kind._get_param_names() if name not in ("random_state", "callbacks")]


@lru_cache(maxsize=128)
def _parameters(kind: type[Any]) -> Callable[[Any], tuple[Any, ...]]:
    """What reads the parameters of models of this class."""
    return operator.attrgetter(*_names(kind))


@lru_cache(maxsize=128)
def _made(
    kind: type[Any], dtype: np.dtype[Any], outputs: int, width: int, *values: Any
) -> Plan | None:
    """The plan for parameters in the order of their names; None if they ask for the long way."""
    model = kind(**dict(zip(_names(kind), values, strict=True)))
    if (
        model.dtype not in ("auto", dtype.name)
        or model.early_stopping
        or getattr(model, "class_weight", None) is not None
        or model.average
        or model.verbose
        or departs(model)
    ):
        return None
    drift = getattr(model, "nu", 0.0)  # of one class
    recipe = recipe_of(model, 0, False, getattr(model, "nu", model.alpha), drift)
    return Plan(
        recipe,
        model.shuffle,
        bool(model.fit_intercept),
        np.arange(outputs),
        np.ones(outputs),
        (outputs, width if recipe.penalty.l1 else 0),
    )


def go_on(
    model: Any,
    plan: Plan,
    X: np.ndarray,
    y: np.ndarray,
    intercept: np.ndarray,
    own: np.ndarray | None = None,
) -> np.ndarray:
    """Train the model's coefficients on one more part; returns the intercepts.

    Parameters
    ----------
    model : estimator
    plan : Plan
        The one for it and X.
    X : ndarray, shape (n_samples, n_features)
    y : ndarray of X's dtype, shape (n_samples,)
    intercept : ndarray, shape (n_outputs,)
    own : ndarray of X's dtype, shape (n_outputs,), or None
        As in ``ClassicState``.
    """
    began = time.perf_counter()
    n, done, recipe = X.shape[0], int(model.t_) - 1, plan.recipe
    engine, outputs = recipe.engine, plan.active.size
    draw = _drawn_from_number if type(model.random_state) is int else _drawn
    seed = draw(model.random_state, outputs)
    rows = engine.permute(n, round_keys(seed, done), 0, n) if plan.shuffle else (0, n)
    rates = recipe.schedule(np.arange(done, done + n, dtype=np.float64))
    problem = Problem(X, y, None, recipe.loss, recipe.penalty, plan.fit_intercept)
    state = plan.start(model.coef_, intercept, own)
    losses = engine.descend_classic(problem, recipe.step, state, Segment(rows, rates, 1))
    check_finite(state, 1)
    seconds, rate = time.perf_counter() - began, float(rates[-1])
    loss = float(losses.mean() if outputs > 1 else losses[0]) / n
    history = history_of(model)
    row = (n, done + n, loss, np.nan, rate, seconds)
    model.history_ = recorded(history, history.last, *row)
    vars(model).pop("_memory", None)  # of steps of another rule
    keep_coef(model, state.coef)
    model.t_ += n
    model.n_iter_ = 1
    model.backend_ = engine.name
    return state.intercept.astype(X.dtype)


def _drawn(random_state: Any, outputs: int) -> int:
    """The first of as many draws as scikit-learn makes; one is drawn quicker by itself."""
    draw = check_random_state(random_state).randint
    return int(draw(MAX_INT) if outputs == 1 else draw(MAX_INT, size=outputs)[0])


# To start a generator from a number takes longer than a part of few rows.
_drawn_from_number = lru_cache(maxsize=128)(_drawn)
