"""``minimize``: orders, schedules, rules and history for a gradient function of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from schuss.backends import Backend, Problem, Segment, State, choose
from schuss.checks import (
    DEFAULT_BATCH_SIZE,
    check_batch_size,
    check_callbacks,
    check_clip,
    check_flags,
    check_limits,
    check_optional,
    check_seed,
    checkpoint_facts,
    progress_of,
    visits_of,
)
from schuss.data import order as orders
from schuss.data.arrays import FLOATS, as_array, check_finite
from schuss.data.checkpoint import Checkpoint, fingerprint
from schuss.errors import DataError, DataTypeError, InvalidArgument, InvalidType
from schuss.formulas import losses, rules, schedules
from schuss.formulas.rules import Rule
from schuss.formulas.spec import digest_of
from schuss.history import History
from schuss.loop import Run
from schuss.plan import Moment, Plan
from schuss.rates import check_schedule

__all__ = ["minimize"]


class FunctionBackend:
    """Runs steps by calling the user's function, and a backend's rule kernel.

    Parameters
    ----------
    inner : Backend
        Applies the rule.
    grad_fn, loss_fn : callable
        Functions of (theta, *batch).
    shape : tuple of int
        Shape of theta as the user sees it.
    data : tuple of ndarray
        Arrays whose rows make the batches.
    """

    def __init__(
        self,
        inner: Backend,
        grad_fn: Callable[..., Any],
        loss_fn: Callable[..., Any] | None,
        shape: tuple[int, ...],
        data: tuple[np.ndarray, ...],
    ) -> None:
        self.name = inner.name
        self.inner = inner
        self.grad_fn = grad_fn
        self.loss_fn = loss_fn
        self.shape = shape
        self.data = data

    def segment_rows(self, n_features: int, batch_size: int) -> int:
        """One step: the function's cost is not known, and an interrupt must lose none of it."""
        return batch_size

    def descend(self, problem: Problem, state: State, segment: Segment) -> tuple[float, float]:
        """Run the segment's steps."""
        rows, size = segment.rows, segment.batch_size
        assert isinstance(rows, np.ndarray)
        total = norm = 0.0
        slots = [list(state.slots)]
        for k in range(segment.n_steps):
            chosen = rows[k * size : (k + 1) * size]
            batch = [array[chosen] for array in self.data]
            seen = state.theta.reshape(self.shape)
            total += self._loss(seen, batch) * chosen.size
            gradient = self._gradient(seen, batch)
            norm = float(np.linalg.norm(gradient))
            if state.clip_norm and norm > state.clip_norm:
                gradient *= state.clip_norm / norm
            lr = segment.learning_rate[k if segment.learning_rate.size > 1 else 0]
            self.inner.apply(state.rule, [state.theta], [gradient], slots, state.step, float(lr))
            state.step += 1
        return total, norm

    def _loss(self, theta: np.ndarray, batch: list[np.ndarray]) -> float:
        """The user's loss, 0 where there is none."""
        if self.loss_fn is None:
            return 0.0
        loss = np.asarray(self.loss_fn(theta, *batch))
        if loss.size != 1 or loss.dtype.kind not in "fiub":
            raise InvalidArgument(
                f"loss_fn: returned shape {loss.shape} of {loss.dtype}; expected one real number."
            )
        return float(loss.item())

    def _gradient(self, theta: np.ndarray, batch: list[np.ndarray]) -> np.ndarray:
        """The user's gradient as a vector of its own."""
        gradient = np.asarray(self.grad_fn(theta, *batch))
        if gradient.shape != self.shape or gradient.dtype.kind not in "fiub":
            raise InvalidArgument(
                f"grad_fn: returned shape {gradient.shape} of {gradient.dtype}; expected real "
                f"numbers in theta's shape {self.shape}."
            )
        return gradient.astype(theta.dtype).reshape(-1)


def minimize(
    grad_fn: Callable[..., Any],
    theta0: Any,
    data: Any,
    loss_fn: Callable[..., Any] | None = None,
    batch_size: int | str = DEFAULT_BATCH_SIZE,
    learning_rate: Any = 0.01,
    epochs: int = 10,
    rule: str | Rule = "sgd",
    order: Any = "shuffle",
    drop_last: bool = False,
    clip_norm: float | None = None,
    record_every: int | None = None,
    updates: int | None = None,
    time_limit: float | None = None,
    tol: float | None = None,
    patience: int = 5,
    gtol: float | None = None,
    seed: int = 0,
    backend: str | Backend = "auto",
    callbacks: Callable[[Moment], Any] | Sequence[Callable[[Moment], Any]] = (),
    checkpoint: Checkpoint | None = None,
    progress: Any = False,
) -> tuple[np.ndarray, History]:
    """Minimise any function by mini-batch gradient descent, given its gradient.

    Parameters
    ----------
    grad_fn : callable
        ``grad_fn(theta, *batch)``: gradient of the batch's mean loss, in theta's shape. A Python
        function, or one compiled with ``numba.njit``. It must not change theta.
    theta0 : array-like of float32 or float64, any shape
        Where to start; never written.
    data : tuple of array-like
        Arrays with one row per sample, such as (X, y); each batch holds the same rows of each.
    loss_fn : callable, optional
        ``loss_fn(theta, *batch)``: the batch's mean loss, for the history; NaN there without it.
    batch_size : int or "full", default=32
        Rows per gradient, 1 ... n_samples; the default shrinks to smaller data.
    learning_rate : float, str, Schedule or callable, default=0.01
        As in :func:`schuss.fit`, without "auto".
    epochs, updates, time_limit, tol, patience, gtol
        When to stop, as in :func:`schuss.fit`; ``gtol`` looks at the last batch's gradient.
    rule : str or Rule, default="sgd"
        Weight decay falls on all of theta.
    order : str or Order, default="shuffle"
        Which row is visited when.
    drop_last : bool, default=False
        Leave out the last, shorter batch of an epoch.
    clip_norm : float, optional
        Largest norm of a gradient.
    record_every : int, optional
        Updates between rows of the history; once per epoch by default.
    seed : int, default=0
        Determines the order.
    backend : str or Backend, default="auto"
        Applies the rule.
    callbacks, checkpoint, progress
        As in :func:`schuss.fit`.

    Returns
    -------
    theta : ndarray
        In theta0's shape and dtype.
    history : History
        One row per epoch, or per ``record_every`` updates.

    Raises
    ------
    schuss.errors.SchussError
        For bad arguments, or a gradient of the wrong shape.
    schuss.errors.DivergenceError
        If the loss or theta became non-finite.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> X = np.random.default_rng(0).normal(size=(1000, 2))
    >>> y = X @ [1.0, -2.0]
    >>> def grad(w, Xb, yb):
    ...     return Xb.T @ (Xb @ w - yb) / len(yb)
    >>> w, history = schuss.minimize(grad, np.zeros(2), (X, y), learning_rate=0.1)
    >>> w.round(3)
    array([ 1., -2.])
    """
    for name, function in (("grad_fn", grad_fn), ("loss_fn", loss_fn)):
        if not callable(function) and (name == "grad_fn" or function is not None):
            raise InvalidType(f"{name}={function!r}: expected a function of (theta, *batch).")
    check_flags(drop_last=drop_last)
    start = parameters(theta0)
    columns = columns_of(data)
    n = columns[0].shape[0]
    seed = check_seed(seed)
    step_rows = check_batch_size(batch_size, n)
    the_rule = rules.get(rule)
    if isinstance(learning_rate, str) and learning_rate == "auto":
        raise InvalidArgument(
            "learning_rate='auto': minimize does not know the function's curvature; give a number "
            "or a schedule."
        )
    limits = check_limits(epochs, updates, time_limit, tol, patience, gtol)
    if limits.tol is not None and loss_fn is None:
        raise InvalidArgument(f"tol={tol!r}: needs loss_fn, or there is no loss to watch.")
    epoch_rows = n // step_rows * step_rows if drop_last else n
    steps_per_epoch = -(-epoch_rows // step_rows)
    schedule = schedules.get(learning_rate).bind(steps_per_epoch)
    check_schedule(schedule, limits.total_updates(steps_per_epoch))
    inner = choose(backend)
    engine = FunctionBackend(inner, grad_fn, loss_fn, start.shape, columns)
    the_order = orders.get(order)
    labels = columns[1] if len(columns) > 1 and columns[1].ndim == 1 else None
    row_bytes = sum(column.nbytes for column in columns) // n
    facts = orders.Facts(n, step_rows, seed, labels, None, inner.permute, inner.mix, row_bytes)
    config: dict[str, Any] = {
        "format": 1,
        "rule": str(the_rule),
        "learning_rate": schedule.identity,
        "order": str(the_order),
        "batch_size": step_rows,
        "drop_last": bool(drop_last),
        "clip_norm": check_clip(clip_norm),
        "record_every": check_optional("record_every", record_every),
        "tol": limits.tol,
        "patience": limits.patience,
        "gtol": limits.gtol,
        "seed": seed,
        "backend": inner.name,
    }
    if checkpoint is not None:
        config |= checkpoint_facts(inner, checkpoint, np.ascontiguousarray(start))
        config["functions"] = digest_of(grad_fn, *([loss_fn] if loss_fn else []))
        config["data"] = fingerprint(*(plain(column, k) for k, column in enumerate(columns)))

    def make_result(theta: np.ndarray, run: Run) -> tuple[np.ndarray, History]:
        return theta.reshape(start.shape).copy(), run.history

    def explain() -> tuple[float, str]:
        return float("nan"), "Use a smaller learning_rate, or clip_norm."

    # The loop needs a problem only for its size; the function holds the mathematics.
    size = np.empty((1, start.size), start.dtype)
    plan = Plan(
        backend=engine,  # type: ignore[arg-type]
        problem=Problem(size, size[0, :1], None, losses.squared_error()),
        visits=visits_of(the_order, facts),
        train_rows=None,
        epoch_rows=epoch_rows,
        step_rows=step_rows,
        schedule=schedule,
        limits=limits,
        record_every=config["record_every"],
        average_from=None,
        evaluate=None,
        evaluation="running",
        knows_loss=loss_fn is not None,
        validate=None,
        config=config,
        make_result=make_result,
        explain=explain,
    )
    state = State.start(start.reshape(-1), the_rule, check_clip(clip_norm))
    run = Run(plan, state, check_callbacks(callbacks), checkpoint, progress_of(progress))
    result: tuple[np.ndarray, History] = run.execute()
    return result


def parameters(theta0: Any) -> np.ndarray:
    """theta0 as a float array."""
    theta = as_array(theta0, "theta0")
    if theta.dtype.kind in "iub":
        theta = theta.astype(np.float64)
    theta = theta.astype(theta.dtype.newbyteorder("="), copy=False)
    if theta.dtype not in FLOATS:
        raise DataTypeError(f"theta0: dtype {theta.dtype} is not accepted; use float32 or float64.")
    if theta.size == 0:
        raise DataError(f"theta0: is empty (shape {theta.shape}).")
    check_finite(np.ascontiguousarray(theta), "theta0")
    return theta


def columns_of(data: Any) -> tuple[np.ndarray, ...]:
    """The data as arrays with equally many rows."""
    if not isinstance(data, (tuple, list)) or not data:
        raise InvalidType(
            f"data: expected a tuple of arrays such as (X, y), got {type(data).__name__}."
        )
    columns = tuple(as_array(column, f"data[{k}]") for k, column in enumerate(data))
    for k, column in enumerate(columns):
        if column.ndim == 0 or column.shape[0] == 0:
            raise DataError(f"data[{k}]: expected at least one row, got shape {column.shape}.")
        if column.shape[0] != columns[0].shape[0]:
            raise DataError(
                f"data[{k}]: has {column.shape[0]} rows, data[0] has {columns[0].shape[0]}."
            )
    return columns


def plain(column: np.ndarray, k: int) -> np.ndarray:
    """A column whose bytes can be told from another's."""
    if column.dtype.hasobject:
        raise DataTypeError(
            f"data[{k}]: a checkpoint cannot tell arrays of dtype {column.dtype} apart; convert it."
        )
    return np.ascontiguousarray(column)
