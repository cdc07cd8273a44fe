"""The loop of mini-batches: scikit-learn's rates and stopping, over steps of any rows and rule."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from schuss.backends import Backend, Problem, Segment, State
from schuss.backends.protocol import Rows, changes_all_weights
from schuss.data.order import Visits
from schuss.loop import visited
from schuss.plan import segment_steps
from schuss.sklearn.journal import Journal
from schuss.sklearn.training import Average, Outcome, Patience, overflow

__all__ = ["Batches"]

# Sparse rows of several outputs are written out in pieces of so many numbers.
DENSE_ELEMENTS = 1 << 21


def put_back(state: State, kept: State) -> None:
    """Make the state what it was; the mean in its own array, which the model's is a view of."""
    state.theta, state.slots = kept.theta, kept.slots
    if state.average is not None and kept.average is not None:
        state.average[:] = kept.average
    state.step, state.averaged = kept.step, kept.averaged


@dataclass(frozen=True)
class Batches:
    """One training by mini-batches, of one output or of several together.

    Attributes
    ----------
    backend : Backend
    problem : Problem
    rows : ndarray of int, or None
        Rows of X to train on; None: all.
    batch_size : int
        Rows of a step; the last of an epoch takes what is left.
    visits : Visits
        Which of those rows is visited when.
    schedule : callable
        Rates by update.
    adaptive : bool
        Whether the rate is divided by 5 instead of stopping.
    n_iter_no_change : int
    tol : float
        -inf: never stop before ``max_iter``.
    score : callable or None
        ``score(theta)`` on held-out rows, to be maximised instead of the objective.
    """

    backend: Backend
    problem: Problem
    rows: np.ndarray | None
    batch_size: int
    visits: Visits
    schedule: Callable[[Any], Any]
    adaptive: bool
    n_iter_no_change: int
    tol: float
    score: Callable[[np.ndarray], float] | None = None

    @property
    def n_rows(self) -> int:
        """Rows of an epoch."""
        return int(self.problem.X.shape[0] if self.rows is None else self.rows.size)

    def run(
        self,
        state: State,
        max_iter: int,
        journal: Journal,
        average: Average | None = None,
        first: int = 0,
    ) -> Outcome:
        """Go on from the state, which is changed, with the epoch of the order numbered ``first``.

        Raises
        ------
        schuss.errors.DataError
            If a weight or the loss is no longer finite.
        """
        before, n = state.step, self.n_rows
        steps, patience = -(-n // self.batch_size), Patience(self)
        for epoch in range(1, max_iter + 1):
            journal.begin()
            penalty = self._penalty(state)
            loss, rate = self._epoch(first + epoch - 1, patience.shrink, state, average, journal)
            if not (np.isfinite(loss) and np.isfinite(state.theta).all()):
                raise overflow(epoch)
            if state.step - before < epoch * steps:
                break
            score = np.nan if self.score is None else self.score(state.theta)
            objective = loss / n + (penalty + self._penalty(state)) / 2
            reached = -objective if self.score is None else score
            if journal.note(state, loss / n, score, rate) or patience.ends(reached):
                break
        made = state.step - before
        history = journal.finish()
        return Outcome(state.theta, made // steps, made, history, state.averaged, state.slots)

    def _penalty(self, state: State) -> float:
        return self.problem.penalty(state.theta.reshape(self.problem.n_outputs, -1)[:, :-1])

    def _epoch(
        self, number: int, shrink: float, state: State, average: Average | None, journal: Journal
    ) -> tuple[float, float]:
        """Visit every row once: their summed loss, each before its step, and the last rate.

        Ctrl-C ends it between two segments, or within one, which then has not been.
        """
        loss, done, size = 0.0, 0, self.batch_size
        rates = np.zeros(1)
        longest = self._segment_rows(state, average)
        while done < self.n_rows and not journal.interrupted:
            end = min(done + longest, self.n_rows)
            if average is not None and (before := average.updates_before(state, state.step)):
                end = min(end, done + before * size)
            steps = np.arange(state.step, state.step - (done - end) // size)
            rates = shrink * self.schedule(steps)
            problem, rows = self._ready(visited(self.visits, number, done, end, self.rows))
            kept = state.copy()
            try:
                with journal.asked.may_raise(), np.errstate(all="ignore"):
                    loss += self.backend.descend(problem, state, Segment(rows, rates, size))[0]
            except KeyboardInterrupt:
                put_back(state, kept)
            done = end
        return loss, float(rates[-1])

    def _ready(self, rows: Rows) -> tuple[Problem, Rows]:
        """The problem as a kernel has it; sparse rows of several outputs are written out."""
        problem = self.problem
        if not problem.is_sparse or problem.n_outputs == 1 or isinstance(rows, tuple):
            return problem, rows
        weights = None if problem.sample_weight is None else problem.sample_weight[rows]
        X = problem.X.take(rows).to_dense()
        dense = replace(problem, X=X, y=problem.y[rows], sample_weight=weights)
        return dense, (0, rows.size)

    def _segment_rows(self, state: State, average: Average | None) -> int:
        l1 = self.problem.penalty.l1
        everywhere = changes_all_weights(state.rule, bool(state.clip_norm), average is not None, l1)
        size = self.batch_size
        if self.problem.is_sparse and self.problem.n_outputs > 1:
            return max(1, DENSE_ELEMENTS // (self.problem.n_features * size)) * size
        return segment_steps(self.backend, self.problem, size, everywhere) * size
