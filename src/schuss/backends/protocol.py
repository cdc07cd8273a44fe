"""What a backend is: a few verbs over plain data.

Formulas say what, a backend says how fast, the trainer says when. Everything here is data; nothing
decides.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from schuss.backends.classic import ClassicState, ClassicStep
from schuss.formulas.losses import Loss
from schuss.formulas.penalties import Penalty
from schuss.formulas.rules import Rule

__all__ = [
    "TILE_ROWS",
    "Backend",
    "Problem",
    "Rows",
    "Segment",
    "State",
    "coef_and_intercept",
]

# Rows of a tile: partial gradients are summed in the data's dtype per tile, and tiles are combined
# in float64, in ascending order (``tile_rows`` in csrc/cpu/problem.h).
TILE_ROWS = 64


# Row indices of shape (n_rows,), int32 or int64; or a pair (start, count) for a range.
Rows = np.ndarray | tuple[int, int]


@dataclass(frozen=True)
class Problem:
    """What is minimised: the mean loss over rows, plus the penalty.

    Attributes
    ----------
    X : ndarray of float32 or float64, shape (n_samples, n_features), C-contiguous
        Of one output also float16 or bfloat16, widened to float32 as they are read; or sparse
        rows, an object with ``data``, ``indices``, ``indptr`` and ``shape`` (schuss.data.sparse).
    y : ndarray of float32 or float64, shape (n_samples,) or (n_samples, n_outputs)
        Binary labels are -1 and +1, those of several classes the classes' numbers.
    sample_weight : ndarray of y's dtype, shape (n_samples,), or None
    loss : Loss
    penalty : Penalty
    fit_intercept : bool
    n_outputs : int
        Margins of a sample. A scalar loss is summed over them, each with its own column of y.
    """

    X: Any
    y: np.ndarray
    sample_weight: np.ndarray | None
    loss: Loss
    penalty: Penalty = field(default_factory=Penalty)
    fit_intercept: bool = True
    n_outputs: int = 1

    @property
    def n_features(self) -> int:
        return int(self.X.shape[1])

    @property
    def is_sparse(self) -> bool:
        """Whether X is of sparse rows."""
        return not isinstance(self.X, np.ndarray)

    @property
    def row_elements(self) -> int:
        """Numbers of X that a row has, on average where rows are sparse."""
        return int(self.X.row_elements) if self.is_sparse else self.n_features

    @property
    def dtype(self) -> np.dtype[Any]:
        """What is computed in: that of the parameters."""
        return self.y.dtype


@dataclass
class State:
    """The parameters, and what the rule and the average remember of them. Kernels change it.

    Attributes
    ----------
    theta : ndarray of X's dtype, shape (n_outputs * (n_features + 1),)
        For each output its coefficients, then its intercept.
    rule : Rule
    slots : ndarray of X's dtype, shape (n_slots, n_outputs * (n_features + 1))
    step : int
        Updates made so far.
    clip_norm : float
        Largest norm a step's gradient may have; 0 for no limit.
    average : ndarray of float64, in theta's shape, or None
        Running mean of the iterates.
    averaged : int
        How many iterates the mean holds.
    """

    theta: np.ndarray
    rule: Rule
    slots: np.ndarray
    step: int = 0
    clip_norm: float = 0.0
    average: np.ndarray | None = None
    averaged: int = 0

    @classmethod
    def start(cls, theta: np.ndarray, rule: Rule, clip_norm: float = 0.0) -> State:
        """State before the first update; ``theta`` is copied."""
        slots = np.empty((len(rule.slots), theta.size), dtype=theta.dtype)
        slots[:] = np.asarray(rule.slots, dtype=np.float64)[:, None]
        return cls(theta.copy(), rule, slots, clip_norm=clip_norm)

    def copy(self) -> State:
        """An independent copy."""
        average = None if self.average is None else self.average.copy()
        return State(
            self.theta.copy(),
            self.rule,
            self.slots.copy(),
            self.step,
            self.clip_norm,
            average,
            self.averaged,
        )


def changes_all_weights(rule: Rule, clipped: bool, averaged: bool, l1: float) -> bool:
    """Whether a step on sparse rows goes over all weights, not only those of its rows.

    Rules with memory move a weight whose gradient is 0, clipping takes the norm of all of them, and
    a mean of iterates that an L1 penalty shrinks has no sum that could be put off.
    """
    return rule.formula != "sgd" or clipped or (averaged and l1 > 0)


@dataclass(frozen=True)
class Segment:
    """A run of steps handed to a kernel in one call.

    Attributes
    ----------
    rows : ndarray of int32 or int64, shape (n_rows,), or (start, count)
        Rows in the order in which they are visited.
    learning_rate : ndarray of float64, shape (n_steps,) or (1,)
        One per step, or one for all.
    batch_size : int
        Rows per step; the last step takes what is left.
    """

    rows: Rows
    learning_rate: np.ndarray
    batch_size: int

    @property
    def n_rows(self) -> int:
        return length(self.rows)

    @property
    def n_steps(self) -> int:
        return -(-self.n_rows // self.batch_size)

    def steps(self, first: int, last: int) -> Segment:
        """The steps first <= k < last, as a segment of their own."""
        rates = self.learning_rate
        if rates.size > 1:
            rates = rates[first:last]
        rows = take(self.rows, first * self.batch_size, last * self.batch_size)
        return Segment(rows, rates, self.batch_size)


def length(rows: Rows) -> int:
    """How many rows."""
    return rows[1] if isinstance(rows, tuple) else int(rows.size)


def take(rows: Rows, start: int, stop: int) -> Rows:
    """The rows at places start <= p < stop."""
    if isinstance(rows, tuple):
        return rows[0] + start, min(stop, rows[1]) - start
    return rows[start:stop]


def coef_and_intercept(theta: np.ndarray, n_outputs: int) -> tuple[np.ndarray, Any]:
    """Copies of both in the shapes users see: (n_features,) and a number, or a row per output."""
    if n_outputs == 1:
        return theta[:-1].copy(), float(theta[-1])
    rows = theta.reshape(n_outputs, -1)
    return rows[:, :-1].copy(), rows[:, -1].copy()


class Backend(Protocol):
    """The verbs. Every backend has all of them, for float32 and float64."""

    name: str

    def supports(self, loss: Loss) -> str | None:
        """None if the backend can train with ``loss``, else why not."""

    def segment_rows(self, n_features: int, batch_size: int) -> int:
        """Rows of a segment: a pure function of its arguments that lasts tens of milliseconds."""

    def descend(self, problem: Problem, state: State, segment: Segment) -> tuple[float, float]:
        """Run the segment's steps on ``state``.

        Returns the summed weighted loss of its rows, each at the parameters before its step, and
        the norm of the last step's gradient, before clipping.
        """

    def descend_classic(
        self, problem: Problem, step: ClassicStep, state: ClassicState, segment: Segment
    ) -> np.ndarray:
        """Run the segment's steps, one for each row, on every active output of ``state``.

        Returns each output's summed loss, without weights, at the parameters before the steps.
        """

    def gradient(self, problem: Problem, theta: np.ndarray, rows: Rows) -> tuple[float, np.ndarray]:
        """Summed weighted loss and its gradient, float64 in theta's shape."""

    def apply(
        self,
        rule: Rule,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        slots: Sequence[Sequence[np.ndarray]],
        step: int,
        lr: float,
    ) -> None:
        """One rule step over a list of arrays, in place; weight decay falls on all of them."""

    def reduce(self, dst: np.ndarray, sources: Sequence[np.ndarray], scale: float) -> None:
        """``dst = scale * (dst + source + source ...)`` in the order given, in place."""

    def margin(self, X: Any, theta: np.ndarray, rows: Rows) -> np.ndarray:
        """Decision values, shape (n_rows,) or (n_rows, n_outputs), in X's dtype."""

    def variance(
        self, problem: Problem, theta: np.ndarray, rows: Rows
    ) -> tuple[float, np.ndarray, float]:
        """Summed loss, summed gradient, and summed squared norm of the samples' gradients."""

    def permute(self, n: int, keys: np.ndarray, start: int, stop: int) -> np.ndarray:
        """The index bijection at positions start <= i < stop (schuss.formulas.bijection)."""

    def mix(
        self,
        block: np.ndarray,
        row: np.ndarray,
        starts: np.ndarray,
        turned: np.ndarray,
        start: int,
        stop: int,
    ) -> np.ndarray:
        """Rows of buffers that are mixed by one pattern (schuss.formulas.bijection)."""
