"""What an estimator's training records: a row for each epoch, told to whoever listens."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from schuss.backends.protocol import State, coef_and_intercept
from schuss.history import History
from schuss.plan import Moment
from schuss.signals import Asked

__all__ = ["Journal", "extended", "recorded"]

COLUMNS = (
    "epoch",
    "updates",
    "samples",
    "train_loss",
    "validation_score",
    "learning_rate",
    "seconds",
    "samples_per_second",
)


# Rows of a history, beyond which every second one is left out: a stream of blocks has no end.
MOST_ROWS = 10_000


class Journal:
    """The history of one training, and those who follow it and may end it.

    Parameters
    ----------
    rows : int
        Rows visited per epoch.
    history : History, optional
        What to go on from, which is changed; by default a new one.
    before : dict, optional
        The row before the first one of a new history.
    callbacks : sequence of callables
        As of :func:`schuss.fit`.
    verbose : int
        Whether to print each epoch as scikit-learn does.
    n_outputs : int
    watch : Epochs, optional
        Tells scikit-learn's callbacks.
    asked : Asked, optional
        What Ctrl-C has asked for.
    """

    def __init__(
        self,
        rows: int,
        history: History | None = None,
        before: dict[str, float] | None = None,
        callbacks: Sequence[Callable[[Moment], Any]] = (),
        verbose: int = 0,
        n_outputs: int = 1,
        watch: Any = None,
        asked: Asked | None = None,
    ) -> None:
        self.rows = rows
        self.history = History(COLUMNS) if history is None else history
        self.before = {} if before is None else before
        self.callbacks = callbacks
        self.verbose = verbose
        self.n_outputs = n_outputs
        self.watch = watch
        self.asked = Asked() if asked is None else asked
        self.began = self.noted = time.perf_counter()
        self._known = len(self.history)
        self._begun = self._ended = 0  # epochs of this training
        self._opened = self._told = 0  # those that listeners know of

    @property
    def interrupted(self) -> bool:
        """Whether the training is to end at once, and keep what it has come to."""
        return self.asked.interrupt

    def begin(self) -> None:
        """Take note that an epoch begins."""
        self._begun += 1
        if self.watch is not None and self._begun > self._opened:
            self.watch.begin()
        self._opened = max(self._opened, self._begun)

    def restart(self) -> None:
        """Take note that the training begins anew; listeners hear of no epoch twice."""
        rows = {name: values[: self._known] for name, values in self.history.to_dict().items()}
        self.history = History.from_dict(rows)
        self._begun = self._ended = 0

    def finish(self) -> History:
        """The history of a training that has ended."""
        if self.watch is not None:
            self.watch.finish()
        return self.history

    def note(
        self, state: State, loss: float, score: float, rate: float, seconds: float | None = None
    ) -> bool:
        """Record an epoch that has ended; True if it is to be the last one.

        Parameters
        ----------
        state : State
        loss : float
            Mean loss of the epoch's rows, each as its turn came.
        score : float
            Of held-out rows; NaN where there are none.
        rate : float
            Learning rate of the last update.
        seconds : float, optional
            What the epoch took; by default the time since the last one was noted.
        """
        now = time.perf_counter()
        seconds = now - self.noted if seconds is None else seconds
        last = self.history.last or self.before
        row = (self.rows, state.step, loss, score, rate, seconds)
        self.history = recorded(self.history, last, *row)
        self._ended += 1
        if self._ended <= self._told:
            return self.interrupted
        self._told = self._ended
        if self.verbose:
            self._tell(state.theta, now)
        wishes = self._wishes(state) if self.callbacks or self.watch is not None else []
        self.noted = time.perf_counter()  # callbacks' time is not training time
        stopped = any(isinstance(wish, (bool, np.bool_)) and wish for wish in wishes)
        return stopped or self.interrupted

    def _wishes(self, state: State) -> list[Any]:
        """What callbacks return, shown the mean of the iterates where one is kept."""
        theta = state.theta
        if state.average is not None and state.averaged:
            theta = state.average.astype(theta.dtype)
        parts = coef_and_intercept(theta, self.n_outputs)
        moment = Moment(int(self.history.last["epoch"]), state.step, self.history, *parts)
        hooks = [*self.callbacks, *([] if self.watch is None else [self.watch.end])]
        try:
            return [hook(moment) for hook in hooks]
        except KeyboardInterrupt:
            self.asked.interrupt = True
            return []

    def _tell(self, theta: np.ndarray, now: float) -> None:
        coef, intercept = coef_and_intercept(theta.astype(np.float64), self.n_outputs)
        bias = ", ".join(f"{number:.6f}" for number in np.atleast_1d(intercept))
        last = self.history.last
        print(
            f"-- Epoch {last['epoch']}\n"
            f"Norm: {np.linalg.norm(coef):.2f}, NNZs: {np.count_nonzero(coef)}, Bias: {bias}, "
            f"T: {last['updates']}, Avg. loss: {last['train_loss']:f}\n"
            f"Total training time: {now - self.began:.2f} seconds."
        )


def recorded(
    history: History,
    last: dict[str, float],
    rows: int,
    updates: int,
    loss: float,
    score: float,
    rate: float,
    seconds: float,
) -> History:
    """The history with one more epoch, over so many rows, after the ``last`` one."""
    history = short(history)
    history.append(
        epoch=last.get("epoch", 0) + 1,
        updates=updates,
        samples=last.get("samples", 0) + rows,
        train_loss=loss,
        validation_score=score,
        learning_rate=rate,
        seconds=last.get("seconds", 0.0) + seconds,
        samples_per_second=rows / max(seconds, 1e-9),
    )
    return history


def short(history: History) -> History:
    """The history, without every second row where it has grown long; the last row stays."""
    if len(history) < MOST_ROWS:
        return history
    return History.from_dict({name: v[1::2] for name, v in history.to_dict().items()})


def extended(history: History, trained: Sequence[History], together: bool) -> History:
    """The history with the epochs of trainings that stand side by side, one for each class.

    Losses and scores are means over the classes; a class whose training ended earlier stays as it
    was, and one that had not ended its first epoch when the training was interrupted is left out.
    Seconds are those of the longest if they were trained ``together``, in one pass over the rows,
    else their sum.
    """
    history = short(history)
    before = {"samples": 0, "seconds": 0.0} | history.last
    rows = [one.to_dict() for one in trained if len(one)]
    for epoch in range(max(map(len, trained))):
        now = [{name: v[min(epoch, len(v) - 1)] for name, v in row.items()} for row in rows]
        longest = max(now, key=lambda row: row["epoch"])
        spent = (max if together else sum)(row["seconds"] - before["seconds"] for row in now)
        visits = (max if together else sum)(row["samples"] - before["samples"] for row in now)
        history.append(
            epoch=longest["epoch"],
            updates=longest["updates"],
            samples=longest["samples"],
            train_loss=float(np.mean([row["train_loss"] for row in now])),
            validation_score=float(np.mean([row["validation_score"] for row in now])),
            learning_rate=longest["learning_rate"],
            seconds=before["seconds"] + spent,
            samples_per_second=visits / max(spent, 1e-9),
        )
    return history
