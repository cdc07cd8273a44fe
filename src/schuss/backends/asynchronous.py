"""Threads that train the same weights at once, without a lock (Hogwild!).

F. Niu, B. Recht, C. Ré, S. J. Wright, Hogwild!: A Lock-Free Approach to Parallelizing Stochastic
Gradient Descent, NIPS 2011.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from schuss.backends.compiled import CompiledBackend, Memory, Objective, Steps
from schuss.backends.protocol import Problem, Rows, Segment, State, length, take
from schuss.errors import InvalidArgument

__all__ = ["AsynchronousBackend", "scales_of"]

# Rows that pay for another thread.
ROWS_PER_THREAD = 64
# A run of steps ends where the product of their decays falls below this.
LEAST_SCALE = 1e-9


class AsynchronousBackend(CompiledBackend):
    """A compiled backend whose threads take rows as they come and share the weights.

    Parameters
    ----------
    inner : CompiledBackend
    """

    def __init__(self, inner: CompiledBackend) -> None:
        super().__init__(inner.name, inner.kernels, inner.threads)
        self.used = 1  # threads, at most
        self.looked_at = self.conflicts = self.delay = self.longest = 0

    def report(self) -> dict[str, Any]:
        """What the threads found: see ``Result.asynchrony``."""
        looked_at = max(1, self.looked_at)
        return {
            "threads": self.used,
            "observed": self.looked_at,
            "conflict_rate": self.conflicts / looked_at,
            "mean_staleness": self.delay / looked_at,
            "max_staleness": self.longest,
        }

    def descend(self, problem: Problem, state: State, segment: Segment) -> tuple[float, float]:
        """Run the segment's steps, one for each row, on all threads at once."""
        n, total = segment.n_rows, 0.0
        if n == 0:
            self._descend_freely(problem, state, segment, np.ones(1))
            return 0.0, 0.0
        rates = np.broadcast_to(segment.learning_rate, n)
        begin = 0
        while begin < n:
            scales = scales_of(rates[begin:] * problem.penalty.l2, state.step)
            end = begin + scales.size - 1
            total += self._descend_freely(problem, state, segment.steps(begin, end), scales)
            state.step += end - begin
            begin = end
        return total, self._norm(problem, state, take(segment.rows, n - 1, n))

    def _descend_freely(
        self, problem: Problem, state: State, segment: Segment, scales: np.ndarray
    ) -> float:
        steps = Steps(problem, state, segment.learning_rate, segment.n_steps)
        threads = max(1, min(self.threads, segment.n_rows // ROWS_PER_THREAD))
        loss, looked_at, conflicts, delay, longest = self.kernels.sparse.descend_freely(
            Objective(problem), segment.rows, steps, Memory(state), scales, threads
        )
        self.used = max(self.used, threads)
        self.looked_at += looked_at
        self.conflicts += conflicts
        self.delay += delay
        self.longest = max(self.longest, longest)
        return loss

    def _norm(self, problem: Problem, state: State, row: Rows) -> float:
        """Norm of a row's gradient, at the parameters after its step."""
        _, gradient = self.gradient(problem, state.theta, row)
        gradient /= length(row)
        gradient[:-1] += problem.penalty.l2 * state.theta[:-1]
        return float(np.linalg.norm(gradient))


def scales_of(decays: np.ndarray, step: int) -> np.ndarray:
    """Products of 1 - decay up to each step, from 1 on, as far as they stay above LEAST_SCALE.

    Parameters
    ----------
    decays : ndarray of float64, shape (n_steps,)
        Learning rate times L2 penalty of each step.
    step : int
        Number of the first.
    """
    if 1 - decays[0] < LEAST_SCALE:
        raise InvalidArgument(
            f"asynchronous=True: learning_rate * alpha is {decays[0]:g} at step {step}; expected "
            "less than 1."
        )
    scales = np.concatenate([[1.0], np.cumprod(1 - decays)])
    below = scales < LEAST_SCALE
    return scales[: int(np.argmax(below))] if below.any() else scales
