"""Our own backends as they train, timed: the order is made, and the kernel called, per segment."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from schuss.backends import Problem, Segment, State, choose
from schuss.data import order as orders
from schuss.data.order import Facts, Visits
from schuss.errors import DivergenceError
from schuss.formulas import rules
from schuss.formulas.losses import Loss
from schuss.lab.contest import Pass
from schuss.lab.synthetic import safe_rate
from schuss.loop import visited

__all__ = ["Descent", "Task", "objective"]

CHECKED_ROWS = 20_000  # rows on which objectives are compared
TRIAL_SECONDS = 0.02


@dataclass(frozen=True)
class Task:
    """What everybody has to do: plain sgd at a constant rate on the same rows.

    Attributes
    ----------
    X : ndarray of shape (n_samples, n_features)
    y : ndarray of shape (n_samples,)
        Binary labels are -1 and +1.
    loss : Loss
    order : str
        Name or text form.
    batch_size : int
    threads : int
        Most threads to use.
    seed : int
    rate : float
        Learning rate; 0 for one at which no step overshoots.
    """

    X: np.ndarray
    y: np.ndarray
    loss: Loss
    order: str
    batch_size: int
    threads: int
    seed: int = 0
    rate: float = field(default=0.0)

    @property
    def n(self) -> int:
        """Rows."""
        return int(self.X.shape[0])

    @property
    def d(self) -> int:
        """Columns."""
        return int(self.X.shape[1])

    @cached_property
    def learning_rate(self) -> float:
        """The constant rate."""
        return self.rate or safe_rate(self.X, self.loss)

    @cached_property
    def problem(self) -> Problem:
        """The task as the backends take it."""
        return Problem(self.X, self.y, None, self.loss)

    def visits(self, backend: Any) -> Visits:
        """Which row comes when."""
        facts = Facts(
            n=self.n,
            batch_size=self.batch_size,
            seed=self.seed,
            labels=self.y,
            permute=backend.permute,
            mix=backend.mix,
            row_bytes=self.X.nbytes // self.n,
        )
        return orders.get(self.order).bind(facts)

    def start(self) -> State:
        """Zeros."""
        width = self.d + 1
        kind = self.X.dtype if self.X.dtype.itemsize >= 4 else np.dtype(np.float32)
        return State.start(np.zeros(width, kind), rules.sgd())


def objective(task: Task, theta: np.ndarray) -> float:
    """Mean loss over a sample of rows."""
    rows = slice(None, None, max(1, task.n // CHECKED_ROWS))
    part = task.X[rows].astype(np.float64)
    margin = part @ theta[:-1].astype(np.float64) + float(theta[-1])
    return float(np.mean(task.loss(margin, task.y[rows].astype(np.float64))))


class Descent:
    """A backend that descends for as long as asked, epoch after epoch.

    Timed are the making of the order and the kernel, as in :func:`schuss.fit`; not the checks of
    the data before training, nor compilation.

    Parameters
    ----------
    name : str
        Of the backend.
    task : Task
    """

    kind = "backend"

    def __init__(self, name: str, task: Task) -> None:
        self.name = name
        self.task = task
        self.backend = choose(name, task.loss, task.threads)
        self.visits = task.visits(self.backend)
        crew = getattr(self.backend, "crew", None)
        self.cores: int = crew(min(task.batch_size, task.n), task.d) if crew else 1
        if task.batch_size == 1:
            self.cores = 1
        self.state = task.start()
        self.position = self.epoch = 0
        self.verified: bool | None = None
        self.objective: float | None = None
        self.segment_rows = self.backend.segment_rows(task.d, task.batch_size)

    def warm_up(self) -> None:
        """Compile, compare with the reference, and find a segment that lasts not too long."""
        self.verified = self._agrees()
        if self.name == "reference":  # whose segments would last for minutes
            size = self.task.batch_size
            trial = Pass(*self._descend(size))
            trial = Pass(*self._descend(max(1, int(trial.speed * TRIAL_SECONDS) // size) * size))
            most = max(1, int(trial.speed * 4 * TRIAL_SECONDS) // size) * size
            self.segment_rows = min(self.segment_rows, most)
        self._descend(self.segment_rows)
        self.state = self.task.start()
        self.position = self.epoch = 0

    def run(self, seconds: float) -> Pass:
        """Whole segments until the time is up."""
        rows = updates = 0
        start = time.perf_counter()
        while True:
            count, steps, _ = self._descend(self.segment_rows)
            rows, updates = rows + count, updates + steps
            elapsed = time.perf_counter() - start
            if elapsed >= seconds:
                break
        self._check()
        return Pass(rows, updates, elapsed)

    def _descend(self, count: int) -> tuple[int, int, float]:
        """The next rows, at most to the end of the epoch: how many, updates, seconds."""
        start = time.perf_counter()
        stop = min(self.position + count, self.visits.length)
        rows = visited(self.visits, self.epoch, self.position, stop)
        segment = Segment(rows, np.array([self.task.learning_rate]), self.task.batch_size)
        self.backend.descend(self.task.problem, self.state, segment)
        self.position = stop
        if self.position == self.visits.length:
            self.epoch, self.position = self.epoch + 1, 0
        return segment.n_rows, segment.n_steps, time.perf_counter() - start

    def _check(self) -> None:
        if not np.isfinite(self.state.theta).all():
            raise DivergenceError(
                f"{self.name}: training diverged while it was timed, at learning rate "
                f"{self.task.learning_rate:g}; scale the columns of X."
            )

    def _agrees(self) -> bool:
        """Whether a few updates lead where the reference leads."""
        size = self.task.batch_size
        some = max(size, min(3 * size, CHECKED_ROWS) // size * size)
        rows = self.visits.indices(0, 0, min(self.visits.length, max(some, 50 // size * size)))
        ours = descend_rows(self.backend, self.task, rows)
        return close(ours, descend_rows(choose("reference"), self.task, rows))


def descend_rows(backend: Any, task: Task, rows: np.ndarray) -> np.ndarray:
    """Parameters after one pass over the rows, from zero."""
    state = task.start()
    segment = Segment(rows, np.array([task.learning_rate]), task.batch_size)
    backend.descend(task.problem, state, segment)
    return state.theta


def close(ours: np.ndarray, truth: np.ndarray) -> bool:
    """Equal up to what float32 loses in sums of some thousand rows."""
    ours, truth = np.asarray(ours, np.float64), np.asarray(truth, np.float64)
    return bool(np.linalg.norm(ours - truth) <= 1e-2 * np.linalg.norm(truth) + 1e-6)
