"""The loop of scikit-learn's SGD over schuss's kernels: epochs, learning rates, when to stop."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from schuss.backends import Backend, Problem, Segment, State
from schuss.data import order as orders
from schuss.errors import DataError, unknown_name
from schuss.formulas import losses, rules, schedules
from schuss.formulas.losses import Loss
from schuss.formulas.penalties import Penalty
from schuss.history import History
from schuss.loop import visited
from schuss.sklearn.journal import Journal

__all__ = [
    "Average",
    "Outcome",
    "Patience",
    "SlopesCutOff",
    "Training",
    "formula_of",
    "overflow",
    "schedule_of",
    "strength_of",
]

# Beyond this summed loss scikit-learn may have cut a slope off at 1e12.
LARGEST_LOSS = 1e23

# Learning rates that begin, or stay, at eta0.
CONSTANT = ("constant", "adaptive", "pa1", "pa2")

# A learning rate that is divided by 5 stops at this.
LEAST_RATE = 1e-6


def schedule_of(name: str, eta0: float, power_t: float, alpha: float) -> Callable[[Any], Any]:
    """The rates of scikit-learn's ``learning_rate``; those of "adaptive" as it begins."""
    if name == "optimal":
        return schedules.optimal(alpha)
    if name == "invscaling" and power_t < 0:
        return lambda t: eta0 * (1.0 + t) ** -power_t
    if name == "invscaling":
        return schedules.invscaling(eta0, power_t)
    if name not in CONSTANT:
        raise unknown_name("learning_rate", name, ["optimal", "invscaling", *CONSTANT])
    return schedules.constant(eta0)


def formula_of(loss: str, epsilon: float) -> Loss:
    """Schuss's loss of scikit-learn's ``loss`` and ``epsilon``."""
    row: Any = losses.LOSSES.rows[loss]
    formula: Loss = row(epsilon) if "epsilon" in row.__dataclass_fields__ else row()
    return formula


def strength_of(penalty: str | None, alpha: float, l1_ratio: float | None) -> Penalty:
    """The penalty of scikit-learn's parameters of that name."""
    ratio = {None: 0.0, "l2": 0.0, "l1": 1.0, "elasticnet": l1_ratio}[penalty]
    return Penalty.elastic_net(0.0 if penalty is None else alpha, ratio or 0.0)


def overflow(epoch: int) -> DataError:
    """What is raised of weights or losses that are no longer finite; scikit-learn's words."""
    return DataError(
        f"Floating-point under-/overflow occurred at epoch #{epoch}. Scaling input data with "
        "StandardScaler or MinMaxScaler might help."
    )


class SlopesCutOff(Exception):
    """Losses so large that scikit-learn may have cut off a slope, which ``descend`` does not."""


class Patience:
    """When one weight vector's training ends, and by how much its rates are lowered until then.

    Parameters
    ----------
    training : Training or Batches
        Whose ``tol``, ``n_iter_no_change``, ``adaptive`` and ``schedule`` are used.
    """

    def __init__(self, training: Any) -> None:
        self.training = training
        self.best, self.waited, self.shrink = -np.inf, 0, 1.0

    def ends(self, reached: float) -> bool:
        """Take one more epoch's score in; True when the training ends with it."""
        training = self.training
        self.waited = self.waited + 1 if reached < self.best + training.tol else 0
        self.best = max(self.best, reached)
        if self.waited < training.n_iter_no_change:
            return False
        rate = float(training.schedule(np.array([0]))[0]) * self.shrink
        if not (training.adaptive and rate > LEAST_RATE):
            return True
        self.shrink, self.waited = self.shrink / 5, 0
        return False


@dataclass
class Average:
    """The mean of the iterates, and from which update on it is taken.

    Attributes
    ----------
    start : int
        The first update whose iterate counts, from 1 on.
    theta : ndarray of float64, shape (n_features + 1,), or with a row for each output
        The mean so far.
    held : int
        How many iterates it holds.
    """

    start: int
    theta: np.ndarray
    held: int = 0

    def of(self, theta: np.ndarray) -> Average:
        """The same, of other weights that the mean is kept of as well."""
        return replace(self, theta=theta)

    def updates_before(self, state: Any, made: int) -> int:
        """Updates to come without the mean after ``made``; where it is due, ``state`` gets it.

        So a segment that ends there has the mean in all of its steps or in none.
        """
        before = self.start - 1 - made
        if before <= 0 and state.average is None:
            state.average, state.averaged = self.theta, self.held
        return max(before, 0)


@dataclass(frozen=True)
class Outcome:
    """What a training made.

    Attributes
    ----------
    theta : ndarray, shape (n_features + 1,)
        Coefficients, then the intercept.
    epochs, updates : int
        Epochs are whole ones.
    history : History
    averaged : int
        How many iterates the mean holds; 0 where it has not begun.
    slots : ndarray, shape (n_slots, n_features + 1), or None
        What the rule remembers.
    """

    theta: np.ndarray
    epochs: int
    updates: int
    history: History
    averaged: int = 0
    slots: np.ndarray | None = None


@dataclass(frozen=True)
class Training:
    """One weight vector's training, as scikit-learn's ``_plain_sgd`` runs it.

    Attributes
    ----------
    backend : Backend
    problem : Problem
    rows : ndarray of int, or None
        Rows of X to train on; None: all.
    schedule : callable
        Rates by update.
    adaptive : bool
        Whether the rate is divided by 5 instead of stopping.
    shuffle : bool
    seed : int
    n_iter_no_change : int
    tol : float
        -inf: never stop before ``max_iter``.
    score : callable or None
        ``score(coef, intercept)`` on held-out rows, to be maximised instead of the objective.
    """

    backend: Backend
    problem: Problem
    rows: np.ndarray | None
    schedule: Callable[[Any], Any]
    adaptive: bool
    shuffle: bool
    seed: int
    n_iter_no_change: int
    tol: float
    score: Callable[[np.ndarray, float], float] | None = None

    def run(
        self,
        theta: np.ndarray,
        updates: int,
        max_iter: int,
        journal: Journal,
        average: Average | None = None,
    ) -> Outcome:
        """Go on from ``theta``, which ``updates`` updates have led to; Ctrl-C ends it early.

        Raises
        ------
        SlopesCutOff
            If weights are no longer finite, or losses so large that slopes have to be cut off.
        """
        problem = self.problem
        state = State.start(theta, rules.sgd())
        state.step = updates
        visits, patience = self.visits(), Patience(self)
        n = visits.length
        for epoch in range(1, max_iter + 1):
            journal.begin()
            penalty = problem.penalty(state.theta[:-1])
            loss = self._epoch(visits, n, patience.shrink, state, average, journal)
            if not (np.isfinite(state.theta).all() and loss < LARGEST_LOSS):
                raise SlopesCutOff
            if state.step - updates < epoch * n:
                break
            if self.score is not None:
                reached = self.score(state.theta[:-1], state.theta[-1])
            else:
                reached = -(loss / n + (penalty + problem.penalty(state.theta[:-1])) / 2)
            score = np.nan if self.score is None else reached
            rate = self.last_rate(state.step, patience)
            if journal.note(state, loss / n, score, rate) or patience.ends(reached):
                break
        made = state.step - updates
        return Outcome(state.theta, made // n, made, journal.finish(), state.averaged)

    def last_rate(self, updates: int, patience: Patience) -> float:
        """The learning rate of the update made last."""
        return patience.shrink * float(self.schedule(np.array([updates - 1]))[0])

    def visits(self) -> orders.Visits:
        """Which row is visited when."""
        X = self.problem.X
        n = X.shape[0] if self.rows is None else self.rows.size
        facts = orders.Facts(
            n,
            1,
            self.seed,
            None,
            None,
            self.backend.permute,
            self.backend.mix,
            X.nbytes // X.shape[0],
        )
        return (orders.shuffle() if self.shuffle else orders.sequential()).bind(facts)

    def _epoch(
        self,
        visits: orders.Visits,
        n: int,
        shrink: float,
        state: State,
        average: Average | None,
        journal: Journal,
    ) -> float:
        """Visit every row once; returns their summed loss, each as its turn came.

        Ctrl-C ends it between two segments.
        """
        number, loss, done = state.step, 0.0, 0
        longest = self.backend.segment_rows(self.problem.n_features, 1)
        while done < n and not journal.interrupted:
            end = min(done + longest, n)
            if average is not None and (before := average.updates_before(state, state.step)):
                end = min(end, done + before)
            rates = shrink * self.schedule(np.arange(state.step, state.step + end - done))
            rows = visited(visits, number, done, end, self.rows)
            loss += self.backend.descend(self.problem, state, Segment(rows, rates, 1))[0]
            done = end
        return loss
