"""Trainings by scikit-learn's own steps, one for each row: from an estimator's data to weights."""

from __future__ import annotations

import logging
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from schuss.backends import Problem
from schuss.data.sparse import as_rows, is_sparse
from schuss.signals import served
from schuss.sklearn.classic import ClassicTraining
from schuss.sklearn.columns import Columns
from schuss.sklearn.options import journal_of
from schuss.sklearn.recipe import Recipe, recipe_of
from schuss.sklearn.training import Average, Outcome, SlopesCutOff, Training

__all__ = ["Setting", "train"]

log = logging.getLogger("schuss")


@dataclass(frozen=True)
class Setting:
    """What is trained on, and how: the same for all weight vectors of a model.

    Attributes
    ----------
    recipe : Recipe
    rows : ndarray or CSR
    among : ndarray of int, or None
        Rows to train on; None: all.
    max_iter : int
    seed : int
    """

    recipe: Recipe
    rows: Any
    among: np.ndarray | None
    max_iter: int
    seed: int

    @classmethod
    def of_data(
        cls,
        model: Any,
        X: Any,
        held_out: np.ndarray,
        alpha: float,
        max_iter: int,
        seed: int,
        drift: float = 0.0,
    ) -> Setting:
        """That of a model and its data."""
        recipe = recipe_of(model, X.shape[0], is_sparse(X), alpha, drift)
        model.backend_ = recipe.engine.name
        among = np.flatnonzero(~held_out) if held_out.any() else None
        return cls(recipe, as_rows(X, X.dtype), among, max_iter, seed)

    @property
    def n_rows(self) -> int:
        """Rows of an epoch."""
        return int(self.rows.shape[0] if self.among is None else self.among.size)

    def of(self, model: Any, y: np.ndarray, weights: np.ndarray | None) -> dict[str, Any]:
        """The fields of a :class:`Training` for these labels and weights."""
        recipe, intercept = self.recipe, bool(model.fit_intercept)
        return {
            "backend": recipe.engine,
            "problem": Problem(self.rows, y, weights, recipe.loss, recipe.penalty, intercept),
            "rows": self.among,
            "schedule": recipe.schedule,
            "adaptive": model.learning_rate == "adaptive",
            "shuffle": model.shuffle,
            "seed": self.seed,
            "n_iter_no_change": int(model.n_iter_no_change),
            "tol": -np.inf if model.tol is None else model.tol,
        }


def by_descend(model: Any, training: Training, setting: Setting) -> bool:
    """Whether ``descend``, which is faster, makes these steps and finds where they end."""
    problem, recipe = training.problem, setting.recipe
    step, penalty = recipe.step, recipe.penalty
    counted = problem.sample_weight is None or training.score is not None or model.tol is None
    return bool(
        counted
        and penalty.l1 == 0
        and not step.passive
        and step.drift == 0
        and (step.intercept_decay == 1 or not problem.fit_intercept)
        and recipe.falling
        and recipe.schedule(np.array([model.t_ - 1]))[0] * penalty.l2 <= 1
    )


def train(
    model: Any,
    setting: Setting,
    y: np.ndarray,
    weights: np.ndarray | None,
    start: np.ndarray,
    average: Average | None,
    score: Any = None,
) -> list[Outcome]:
    """Train one weight vector, and the mean of its iterates, as the model says."""
    columns = Columns.of(model, setting.rows, start, average, setting.max_iter)
    narrow = replace(setting, rows=columns.rows(setting.rows))
    mean = columns.mean(average)
    made = _train(model, narrow, y, weights, columns.kept(start), mean, columns.score(score))
    columns.put_mean(mean, average)
    return columns.whole(made, start)


def _train(
    model: Any,
    setting: Setting,
    y: np.ndarray,
    weights: np.ndarray | None,
    start: np.ndarray,
    average: Average | None,
    score: Any,
) -> list[Outcome]:
    """The same on all columns that the rows have."""
    updates, fields = int(model.t_) - 1, setting.of(model, y, weights)
    training, journal = Training(**fields, score=score), journal_of(model, setting.n_rows)
    with served(model._asked, terminate=False):
        if by_descend(model, training, setting):
            mean = None if average is None else average.of(average.theta[0].copy())
            try:
                made = training.run(start[0], updates, setting.max_iter, journal, mean)
            except SlopesCutOff:
                log.debug("%s: begins anew, with slopes cut off", type(model).__name__)
                journal.restart()
            else:
                if average is not None and mean is not None:
                    average.theta[0] = mean.theta
                return [made]
        scores = None if score is None else [score]
        classic = ClassicTraining(**fields, step=setting.recipe.step, scores=scores)
        return classic.run_all(start, updates, setting.max_iter, [journal], average)
