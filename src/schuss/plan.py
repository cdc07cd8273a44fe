"""What a run is made of: fixed before its first step."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from schuss.backends.protocol import Backend, Problem
from schuss.data.order import Visits
from schuss.formulas.schedules import Schedule
from schuss.history import History

if TYPE_CHECKING:
    from schuss.loop import Run

__all__ = ["Limits", "Moment", "Plan", "segment_steps"]


@dataclasses.dataclass(frozen=True)
class Limits:
    """When to stop; None means never for that reason.

    Attributes
    ----------
    epochs : int
        Ignored where ``updates`` is given.
    updates : int or None
    time_limit : float or None
        Seconds.
    tol, patience
        Stop after ``patience`` records that did not improve the loss by more than ``tol``.
    gtol : float or None
        Stop when the gradient's norm is at most this.
    """

    epochs: int
    updates: int | None = None
    time_limit: float | None = None
    tol: float | None = None
    patience: int = 5
    gtol: float | None = None

    def total_updates(self, steps_per_epoch: int) -> int:
        """Updates of a run that no other reason stops."""
        return self.epochs * steps_per_epoch if self.updates is None else self.updates


@dataclasses.dataclass(frozen=True)
class Plan:
    """Everything a run is made of, checked and fixed before the first step.

    Attributes
    ----------
    backend : Backend
    problem : Problem
    visits : Visits
        The order, over the training rows.
    train_rows : ndarray of int, shape (n_train,), or None
        Where the training rows stand in X; None: they are all of them.
    epoch_rows : int
        Rows visited per epoch.
    step_rows : int
        Rows of one update: batch size times accumulated batches.
    schedule : Schedule
    limits : Limits
    record_every : int or None
        Updates between two rows of the history; None: once per epoch.
    average_from : int or None
        First update whose iterate joins the average; None: no average.
    evaluate : callable or None
        Full training loss and gradient norm at some parameters.
    evaluation : {"running", "full", "both"}
        What the history's training loss is; with "both", the running loss has its own column.
    validate : callable or None
        Validation loss at some parameters.
    knows_loss : bool
        Whether the backend knows the loss, not only its gradient.
    changes_all_weights : bool
        Whether a step on sparse rows goes over all weights.
    config : dict
        Settings that a checkpoint must share.
    make_result : callable
        ``(theta, run)`` to what the caller gets.
    explain : callable
        Stability limit of the learning rate and a hint, for a diverged run.
    """

    backend: Backend
    problem: Problem
    visits: Visits
    train_rows: np.ndarray | None
    epoch_rows: int
    step_rows: int
    schedule: Schedule
    limits: Limits
    record_every: int | None
    average_from: int | None
    evaluate: Callable[[np.ndarray], tuple[float, float]] | None
    evaluation: str
    validate: Callable[[np.ndarray], float] | None
    config: dict[str, Any]
    make_result: Callable[[np.ndarray, Run], Any]
    explain: Callable[[], tuple[float, str]]
    knows_loss: bool = True
    changes_all_weights: bool = False

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.epoch_rows // self.step_rows)

    @property
    def total_updates(self) -> int:
        return self.limits.total_updates(self.steps_per_epoch)

    @property
    def segment_steps(self) -> int:
        return segment_steps(self.backend, self.problem, self.step_rows, self.changes_all_weights)


def segment_steps(
    backend: Backend, problem: Problem, step_rows: int, changes_all_weights: bool
) -> int:
    """Steps of a segment, which lasts tens of milliseconds."""
    width = problem.row_elements * problem.n_outputs
    if problem.is_sparse and changes_all_weights:
        width += problem.n_features // step_rows
    return max(1, backend.segment_rows(width, step_rows) // step_rows)


@dataclasses.dataclass(frozen=True)
class Moment:
    """What a callback sees: the run as it stands after a row of the history.

    Attributes
    ----------
    epoch, updates : int
        Finished epochs and updates.
    history : History
    coef : ndarray, shape (n_features,) or (n_outputs, n_features)
        A copy of the coefficients (of their average, where one is kept).
    intercept : float, or ndarray of shape (n_outputs,)
    """

    epoch: int
    updates: int
    history: History
    coef: np.ndarray
    intercept: Any
