"""The loop of scikit-learn's SGD over the classic step: one weight vector, or one for each class.

All are trained in one pass over the rows, in the same order; each stops, and lowers its rates, by
itself.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from schuss.backends import Segment, State
from schuss.backends.classic import ClassicState, ClassicStep
from schuss.data.order import Visits
from schuss.formulas import rules
from schuss.loop import visited
from schuss.sklearn.journal import Journal
from schuss.sklearn.plain import finite
from schuss.sklearn.training import Average, Outcome, Patience, Training, overflow

__all__ = ["ClassicTraining", "check_finite"]


def check_finite(state: ClassicState, epoch: int) -> None:
    """Refuse weights that have become infinite or none."""
    if finite(state.coef) and finite(state.intercept):  # as a rule, and quicker
        return
    if not (np.isfinite(state.coef).all() and np.isfinite(state.intercept).all()):
        raise overflow(epoch)


def at(state: ClassicState, k: int, updates: int) -> State:
    """One weight vector, after so many updates, as journals take it."""
    average = None if state.average is None else state.average[k]
    made = State.start(state.theta(k), rules.sgd())
    return replace(made, step=updates, average=average, averaged=state.averaged)


def outcome(state: ClassicState, k: int, epochs: int, updates: int, journal: Journal) -> Outcome:
    """What the training of one weight vector has come to."""
    return Outcome(state.theta(k), epochs, updates, journal.finish(), state.averaged)


@dataclass(frozen=True)
class ClassicTraining(Training):
    """The training of several weight vectors.

    Attributes
    ----------
    step : ClassicStep
    own : ndarray of y's dtype, shape (n_outputs,), or None
        As in ``ClassicState``.
    scores : sequence of callables, or None
        As ``score``, one for each output.
    """

    step: ClassicStep = field(default_factory=ClassicStep)
    own: np.ndarray | None = None
    scores: Sequence[Callable[[np.ndarray, float], float]] | None = None

    def run_all(
        self,
        theta: np.ndarray,
        updates: int,
        max_iter: int,
        journals: Sequence[Journal],
        average: Average | None = None,
        outputs: np.ndarray | None = None,
    ) -> list[Outcome]:
        """Go on from ``theta``, shape (n_outputs, n_features + 1), after ``updates`` updates.

        Only ``outputs`` are trained; None: all. Each has its own of the ``journals``. Ctrl-C ends
        the training early.

        Raises
        ------
        schuss.errors.DataError
            If weights are no longer finite.
        """
        visits = self.visits()
        state = ClassicState.start(theta, self.own, self.problem.penalty.l1 > 0)
        trained = state.active if outputs is None else outputs
        state.active = trained
        patience = [Patience(self) for _ in theta]
        outcomes: dict[int, Outcome] = {}
        after = self._penalties(state)
        for epoch in range(1, max_iter + 1):
            for k in state.active:
                journals[k].begin()
            before, began = after, time.perf_counter()
            first = (epoch - 1) * visits.length
            losses, done = self._walk(visits, updates + first, state, average, journals[0])
            check_finite(state, epoch)
            made = first + done
            if done < visits.length:
                outcomes |= {
                    int(k): outcome(state, k, epoch - 1, made, journals[k]) for k in state.active
                }
                break
            seconds = time.perf_counter() - began
            after = self._penalties(state)
            penalties = (before + after) / 2
            step = updates + made
            for k in state.active:
                loss, score = losses[k] / visits.length, np.nan
                reached = -(loss + penalties[k])
                if self.scores:
                    w = state.theta(k)
                    reached = score = self.scores[k](w[:-1], w[-1])
                moment, rate = at(state, k, step), self.last_rate(step, patience[k])
                wish = journals[k].note(moment, loss, score, rate, seconds)
                if patience[k].ends(reached) or wish or epoch == max_iter:
                    outcomes[int(k)] = outcome(state, k, epoch, made, journals[k])
            state.active = np.array([k for k in state.active if k not in outcomes], np.int64)
            state.factor = np.array([one.shrink for one in patience])
            if not state.active.size:
                break
        return [outcomes[k] for k in trained]

    def _penalties(self, state: ClassicState) -> np.ndarray:
        """What the penalty adds to the mean loss of each output; passive steps know none."""
        if self.step.passive:
            return np.zeros(len(state.coef))
        return np.array([self.problem.penalty(w) for w in state.coef])

    def _walk(
        self,
        visits: Visits,
        first: int,
        state: ClassicState,
        average: Average | None,
        journal: Journal,
    ) -> tuple[np.ndarray, int]:
        """Visit every row once, from update ``first`` on: summed losses of all outputs, and rows.

        Ctrl-C ends it between two segments.
        """
        n, done, losses = visits.length, 0, np.zeros(len(state.coef))
        # Segments end where they do whichever outputs are trained: so do the bits.
        elements = self.problem.row_elements * len(state.coef)
        longest = self.backend.segment_rows(elements, 1)
        while done < n and not journal.interrupted:
            end = min(done + longest, n)
            if average is not None and (before := average.updates_before(state, first + done)):
                end = min(end, done + before)
            rates = self.schedule(np.arange(first + done, first + end))
            rows = visited(visits, first, done, end, self.rows)
            segment = Segment(rows, rates, 1)
            losses += self.backend.descend_classic(self.problem, self.step, state, segment)
            done = end
        return losses, done
