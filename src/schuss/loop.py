"""The training loop: order -> kernel -> rule -> history, one segment at a time.

A segment is a run of steps that a kernel makes in one call. Its boundaries are a pure function of
the run's settings, never of time, so that results do not depend on what happens between segments:
progress, callbacks, checkpoints, signals.
"""

from __future__ import annotations

import dataclasses
import logging
import os
import signal
import time
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from schuss.backends.compiled import CompiledBackend, work_per_row
from schuss.backends.protocol import Rows, Segment, State, coef_and_intercept
from schuss.data.checkpoint import Checkpoint, Clock, same_run
from schuss.data.order import Visits
from schuss.errors import (
    CheckpointError,
    CheckpointWarning,
    DivergenceError,
    InterruptedWarning,
)
from schuss.formulas.bijection import index_dtype
from schuss.history import COLUMNS, History, plain_columns
from schuss.plan import Moment, Plan
from schuss.rates import rates_of
from schuss.signals import Asked, served

__all__ = ["Run", "Stopper", "visited"]

log = logging.getLogger("schuss.compile")


@dataclasses.dataclass
class Stopper:
    """Patience: counts records without an improvement of more than ``tol``."""

    tol: float
    patience: int
    best: float = float("inf")
    bad: int = 0

    def stop(self, loss: float) -> bool:
        """Take one more loss in; True when patience is at an end."""
        if loss < self.best - self.tol:
            self.best, self.bad = loss, 0
        else:
            self.bad += 1
        return self.bad >= self.patience


def visited(
    visits: Visits, epoch: int, start: int, stop: int, among: np.ndarray | None = None
) -> Rows:
    """Rows at positions start <= p < stop of an epoch.

    ``among`` says where the training rows stand in X; None: they are all of them.
    """
    rows = visits.indices(epoch, start, stop)
    return rows if among is None else among[rows]


class Run:
    """One training run.

    Parameters
    ----------
    plan : Plan
    state : State
        Changed as the run goes.
    callbacks : sequence of callables
        Each called with a :class:`Moment` after every row of the history; True stops the run.
    checkpoint : Checkpoint or None
    progress : object or None
        With methods ``start``, ``update`` and ``stop``.
    """

    def __init__(
        self,
        plan: Plan,
        state: State,
        callbacks: tuple[Callable[[Moment], Any], ...] = (),
        checkpoint: Checkpoint | None = None,
        progress: Any = None,
    ) -> None:
        self.plan = plan
        self.state = state
        self.callbacks = callbacks
        self.checkpoint = checkpoint
        self.progress = progress
        self.history = History((*COLUMNS, "running_loss") if plan.evaluation == "both" else COLUMNS)
        limits = plan.limits
        self.stopper = None if limits.tol is None else Stopper(limits.tol, limits.patience)
        self.epoch = 0  # finished epochs
        self.step = 0  # steps made in the epoch at hand
        self.samples = 0
        self.loss_sum = 0.0  # since the last record
        self.loss_rows = 0
        self.learning_rate = float("nan")
        self.gradient_norm = float("nan")
        self.elapsed = 0.0  # seconds before this process took the run over
        self.recorded_at = (0, 0.0)  # samples and seconds at the last record
        self.pending = False  # a row of the history is due at the state at hand
        self.advanced = False  # whether this call has made a segment
        self.stop_reason = ""
        self.asked = Asked()

    # ---- The loop ----

    def execute(self) -> Any:
        """Train until a limit is reached; return what the plan makes of the state."""
        self._resume()
        self._warm_up()
        self.began = time.perf_counter()
        self.clock = Clock(self.state.step)
        plan = self.plan
        if self.progress:
            self.progress.start(plan.total_updates)
        try:
            with served(self.asked, terminate=self.checkpoint is not None):
                while not self._finished():
                    if not self.pending:
                        self._advance()
                    self._note()
                self._wind_up()
        finally:
            if self.progress:
                self.progress.stop()
        if self.asked.termination:
            os.kill(os.getpid(), signal.SIGTERM)
        if self.stop_reason == "interrupted":
            warnings.warn(
                f"training was interrupted after {self.state.step} updates; the result holds the "
                "state it had reached.",
                InterruptedWarning,
                stacklevel=3,
            )
        return plan.make_result(self.theta, self)

    def _warm_up(self) -> None:
        """Have kernels that are compiled at first use compiled before the clock starts."""
        plan, began = self.plan, time.perf_counter()
        nothing = np.empty(0, index_dtype(plan.visits.length))
        segment = Segment(nothing, np.zeros(1), plan.step_rows)
        plan.backend.descend(plan.problem, self.state.copy(), segment)
        if plan.evaluate is not None or plan.validate is not None:
            plan.backend.gradient(plan.problem, self.state.theta, np.zeros_like(nothing, shape=1))
        seconds = time.perf_counter() - began
        if seconds > 1:
            log.info("compiled the %s kernels in %.1f s", plan.backend.name, seconds)
        if isinstance(plan.backend, CompiledBackend):
            rows = min(plan.step_rows, plan.epoch_rows)
            threads = plan.backend.crew(rows, work_per_row(plan.problem))
            logging.getLogger("schuss").debug("threads: %d for steps of %d rows", threads, rows)

    @property
    def theta(self) -> np.ndarray:
        """The parameters to return: the average where one is kept, else the last iterate."""
        state = self.state
        if state.average is not None and state.averaged:
            return state.average.astype(state.theta.dtype)
        return state.theta

    @property
    def running_loss(self) -> float:
        """Mean loss over the steps since the last row of the history; NaN where not known."""
        if not (self.plan.knows_loss and self.loss_rows):
            return float("nan")
        return self.loss_sum / self.loss_rows

    @property
    def seconds(self) -> float:
        """Training time so far, that of the process before a resume included."""
        return self.elapsed + time.perf_counter() - self.began

    def _finished(self) -> bool:
        limits = self.plan.limits
        if self.stop_reason:
            return True
        if self.asked.interrupt or self.asked.termination:
            self.stop_reason = "interrupted"
        elif self.pending:
            return False
        elif limits.updates is not None and self.state.step >= limits.updates:
            self.stop_reason = "updates"
        elif limits.updates is None and self.epoch >= limits.epochs:
            self.stop_reason = "epochs"
        elif limits.time_limit is not None and self._time_is_up(limits.time_limit):
            self.stop_reason = "time_limit"
        return bool(self.stop_reason)

    def _time_is_up(self, limit: float) -> bool:
        """Whether this call has trained for ``limit`` seconds, and a segment at least."""
        return self.advanced and self.seconds - self.elapsed >= limit

    def _advance(self) -> None:
        """Run one segment."""
        plan, state = self.plan, self.state
        stop = self._segment_end()
        start_row = self.step * plan.step_rows
        stop_row = min(stop * plan.step_rows, plan.epoch_rows)
        rows = visited(plan.visits, self.epoch, start_row, stop_row, plan.train_rows)
        segment = Segment(rows, self._rates(stop - self.step), plan.step_rows)
        if plan.average_from == state.step and state.average is None:
            state.average = np.zeros(state.theta.size)
        before = state.copy()
        try:
            with self.asked.may_raise(), np.errstate(all="ignore"):
                loss, norm = plan.backend.descend(plan.problem, state, segment)
        except KeyboardInterrupt:
            self.state = before
            return
        if not (np.isfinite(loss) and np.isfinite(state.theta).all()):
            self._diverge(before, segment)
        self.gradient_norm = norm
        self.learning_rate = float(segment.learning_rate[-1])
        self.loss_sum += loss
        self.loss_rows += segment.n_rows
        self.samples += segment.n_rows
        self.step, self.advanced = stop, True
        if self.step == plan.steps_per_epoch:
            self.epoch, self.step = self.epoch + 1, 0
        every = plan.record_every
        self.pending = state.step % every == 0 if every else self.step == 0

    def _segment_end(self) -> int:
        """Step of this epoch at which the segment that begins now ends."""
        plan, done = self.plan, self.state.step
        size = plan.segment_steps
        stop = min((self.step // size + 1) * size, plan.steps_per_epoch)
        cuts = [plan.limits.updates, plan.average_from]
        if plan.record_every:
            cuts.append((done // plan.record_every + 1) * plan.record_every)
        for cut in cuts:
            if cut is not None and cut > done:
                stop = min(stop, self.step + cut - done)
        return stop

    def _rates(self, count: int) -> np.ndarray:
        """Learning rates of the next ``count`` steps; one value where they are all the same."""
        schedule, first = self.plan.schedule, self.state.step
        if schedule.is_constant:
            return np.array([float(schedule(0))])
        return rates_of(schedule, first, count)

    # ---- Records and stopping ----

    def _note(self) -> None:
        """What happens between segments."""
        if self.pending:
            try:
                self._record()
            except KeyboardInterrupt:
                return
            self._judge()
        if self.progress:
            self._show()
        if self.checkpoint and self.checkpoint.due(
            self.state.step, self.clock.updates, self.clock.seconds
        ):
            self._try_to_write()

    def _record(self, evaluate: bool = True) -> None:
        """Append a row to the history; without evaluating anything where time is short."""
        plan, theta = self.plan, self.theta
        running = self.running_loss
        loss, norm, validation = running, self.gradient_norm, float("nan")
        if evaluate:
            with self.asked.may_raise():
                if plan.evaluate is not None:
                    full, norm = plan.evaluate(theta)
                    loss = running if plan.evaluation == "running" else full
                if plan.validate is not None:
                    validation = plan.validate(theta)
        self.pending = False
        seconds = self.seconds
        samples, since = self.samples - self.recorded_at[0], seconds - self.recorded_at[1]
        row = {
            "epoch": self.epoch,
            "updates": self.state.step,
            "samples": self.samples,
            "train_loss": loss,
            "validation_loss": validation,
            "learning_rate": self.learning_rate,
            "grad_norm": norm,
            "seconds": seconds,
            "samples_per_second": samples / since if since > 0 else float("nan"),
        }
        if plan.evaluation == "both":
            row["running_loss"] = running
        self.history.append(**row)
        self.loss_sum, self.loss_rows = 0.0, 0
        self.recorded_at = (self.samples, self.seconds)

    def _judge(self) -> None:
        """Stop if the newest row of the history, or a callback, says so."""
        row, limits = self.history.last, self.plan.limits
        watched = "validation_loss" if self.plan.validate else "train_loss"
        if self.stopper and self.stopper.stop(row[watched]):
            self.stop_reason = "tol"
        if limits.gtol is not None and row["grad_norm"] <= limits.gtol:
            self.stop_reason = "gtol"
        if self.callbacks:
            moment = Moment(
                self.epoch,
                self.state.step,
                self.history,
                *coef_and_intercept(self.theta, self.plan.problem.n_outputs),
            )
            try:
                wishes = [callback(moment) for callback in self.callbacks]
            except KeyboardInterrupt:
                self.asked.interrupt = True
                return
            if any(isinstance(wish, (bool, np.bool_)) and wish for wish in wishes):
                self.stop_reason = "callback"

    def _show(self) -> None:
        row = self.history.last
        running = self.running_loss if self.loss_rows else row.get("train_loss", float("nan"))
        samples, since = self.recorded_at
        fresh, passed = self.samples - samples, self.seconds - since
        speed = fresh / passed if fresh and passed > 0 else row.get("samples_per_second", 0.0)
        self.progress.update(
            self.state.step,
            self.epoch,
            running,
            row.get("validation_loss") if self.plan.validate else None,
            self.learning_rate,
            speed,
        )

    def _wind_up(self) -> None:
        """The last checkpoint; the last row of the history, where the run ended between two.

        In this order, because a run that goes on from the checkpoint does not have that row.
        """
        if self.checkpoint:
            self._try_to_write()
        if self.samples > self.recorded_at[0]:
            try:
                self._record(evaluate=self.stop_reason != "interrupted")
            except KeyboardInterrupt:
                self._record(evaluate=False)

    # ---- Divergence ----

    def _diverge(self, before: State, segment: Segment) -> None:
        """Find the step that went wrong, and raise with the state before it."""
        plan = self.plan
        good, last = self._last_finite(before, segment)
        rates = segment.learning_rate
        rate = float(rates[good if rates.size > 1 else 0])
        self.state = last
        self.stop_reason = "diverged"
        limit, hint = plan.explain()
        error = DivergenceError(
            f"training diverged at epoch {self.epoch}, step {last.step}, learning rate {rate:g}: "
            f"the loss or a coefficient is not finite. {hint}"
        )
        error.epoch, error.step, error.learning_rate, error.limit = (
            self.epoch,
            last.step,
            rate,
            limit,
        )
        error.result = plan.make_result(self.theta, self)
        raise error

    def _last_finite(self, state: State, segment: Segment) -> tuple[int, State]:
        """Steps of the segment that can be made with a finite result, and the state after them."""
        plan, low, high = self.plan, 0, segment.n_steps
        while high - low > 1:
            middle = (low + high) // 2
            trial = state.copy()
            piece = segment.steps(low, middle)
            with np.errstate(all="ignore"):
                loss, _ = plan.backend.descend(plan.problem, trial, piece)
            if np.isfinite(loss) and np.isfinite(trial.theta).all():
                low, state = middle, trial
            else:
                high = middle
        return low, state

    # ---- Checkpoint and resume ----

    def _try_to_write(self) -> None:
        """A checkpoint: where it fails, training goes on, and its result is not lost."""
        try:
            self._write()
        except OSError as error:
            assert self.checkpoint is not None
            self.clock = Clock(self.state.step)
            warnings.warn(
                f"checkpoint {str(self.checkpoint.path)!r} could not be written "
                f"({error.strerror or error}); training goes on.",
                CheckpointWarning,
                stacklevel=5,
            )

    def _write(self) -> None:
        assert self.checkpoint is not None
        state = self.state
        arrays = {"theta": state.theta, "slots": state.slots}
        if state.average is not None:
            arrays["average"] = state.average
        stopper = self.stopper
        header = {
            "config": self.plan.config,
            "updates": state.step,
            "averaged": state.averaged,
            "epoch": self.epoch,
            "step": self.step,
            "pending": self.pending,
            "samples": self.samples,
            "loss_sum": float(self.loss_sum),
            "loss_rows": self.loss_rows,
            "learning_rate": self.learning_rate,
            "gradient_norm": float(self.gradient_norm),
            "seconds": self.seconds,
            "recorded_at": list(self.recorded_at),
            "stopper": [stopper.best, stopper.bad] if stopper else None,
            "stop_reason": "" if self.stop_reason == "interrupted" else self.stop_reason,
            "history": plain_columns(self.history.to_dict()),
        }
        self.checkpoint.write(arrays, header)
        self.clock = Clock(state.step)

    def _check_reached(self, updates: int, epoch: int) -> None:
        """Refuse a checkpoint of a run that is already past this one's end."""
        assert self.checkpoint is not None
        limits = self.plan.limits
        wanted, reached = ("epochs", limits.epochs), epoch
        if limits.updates is not None:
            wanted, reached = ("updates", limits.updates), updates
        if reached > wanted[1]:
            raise CheckpointError(
                f"checkpoint {str(self.checkpoint.path)!r} has {reached} {wanted[0]} behind it, "
                f"{wanted[0]}={wanted[1]} asks for fewer; raise {wanted[0]}, or give another path."
            )

    def _resume(self) -> None:
        found = self.checkpoint.read() if self.checkpoint else None
        if found is None:
            return
        assert self.checkpoint is not None
        arrays, header = found
        same_run(header["config"], self.plan.config, self.checkpoint)
        self._check_reached(header["updates"], header["epoch"])
        state = self.state
        state.theta, state.slots = arrays["theta"], arrays["slots"]
        state.average = arrays.get("average")
        state.step, state.averaged = header["updates"], header["averaged"]
        self.epoch, self.step = header["epoch"], header["step"]
        self.pending = header["pending"]
        self.samples = header["samples"]
        self.loss_sum, self.loss_rows = header["loss_sum"], header["loss_rows"]
        self.learning_rate = header["learning_rate"]
        self.gradient_norm = header["gradient_norm"]
        self.elapsed = header["seconds"]
        self.recorded_at = (header["recorded_at"][0], header["recorded_at"][1])
        self.history = History.from_dict(header["history"])
        if self.stopper and header["stopper"]:
            self.stopper.best, self.stopper.bad = header["stopper"]
        # A run that a limit or a callback ended may go on under others; tol and gtol are final.
        if header["stop_reason"] in ("tol", "gtol"):
            self.stop_reason = header["stop_reason"]
