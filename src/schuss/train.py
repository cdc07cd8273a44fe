"""``fit``: check everything, plan the run, run it."""

from __future__ import annotations

import dataclasses
import logging
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from schuss import curvature
from schuss.backends import Backend, Problem, State, choose
from schuss.backends.protocol import Rows
from schuss.data import arrays
from schuss.data import order as orders
from schuss.data.checkpoint import Checkpoint, fingerprint
from schuss.errors import (
    DataError,
    InvalidArgument,
    InvalidType,
    NotYet,
    ScalingWarning,
    SchussWarning,
    unknown_name,
)
from schuss.formulas import losses, rules, schedules
from schuss.formulas.bijection import index_dtype, permute, round_keys
from schuss.formulas.losses import Loss
from schuss.formulas.penalties import Penalty
from schuss.formulas.rules import Rule
from schuss.formulas.schedules import Schedule
from schuss.formulas.spec import check_number
from schuss.loop import Limits, Moment, Plan, Run
from schuss.result import Result

__all__ = ["batches", "fit", "gradient"]

log = logging.getLogger("schuss")

# Columns whose standard deviations differ by more than this ask for different learning rates.
WIDE_SPREAD = 100.0


class _Default(int):
    """A default that gives way to small data, where the same number given would be an error."""

    def __repr__(self) -> str:
        return int.__repr__(self)


def fit(
    X: Any,
    y: Any,
    loss: str | Loss = "squared_error",
    batch_size: int | str = _Default(32),
    learning_rate: Any = "auto",
    epochs: int = 10,
    rule: str | Rule = "sgd",
    alpha: float = 0.0,
    l1_ratio: float = 0.0,
    sample_weight: Any = None,
    class_weight: Any = None,
    fit_intercept: bool = True,
    order: Any = "shuffle",
    drop_last: bool = False,
    accumulate: int = 1,
    clip_norm: float | None = None,
    average: bool | int = False,
    validation: Any = None,
    evaluate: str = "running",
    record_every: int | None = None,
    updates: int | None = None,
    time_limit: float | None = None,
    tol: float | None = None,
    patience: int = 5,
    gtol: float | None = None,
    init: Any = None,
    seed: int = 0,
    dtype: Any = None,
    backend: str | Backend = "auto",
    threads: int | None = None,
    asynchronous: bool = False,
    comm: Any = None,
    callbacks: Callable[[Moment], Any] | Sequence[Callable[[Moment], Any]] = (),
    checkpoint: Checkpoint | None = None,
    progress: Any = False,
) -> Result:
    r"""Train a linear model by stochastic gradient descent.

    Minimises :math:`\tfrac1n \sum_i s_i\, \ell(x_i \cdot w + b, y_i) + \alpha(\rho \|w\|_1 +
    \tfrac{1-\rho}{2} \|w\|^2)` over w and b, with :math:`s_i` the sample weights and
    :math:`\rho` the ``l1_ratio``.

    Parameters
    ----------
    X : array-like of float32 or float64, shape (n_samples, n_features)
        Integers, booleans and float16 are converted; NaN and infinity are refused.
    y : array-like, shape (n_samples,)
        Targets; for a classification loss, exactly two label values of any sortable type.
    loss : str or Loss, default="squared_error"
        A name, a text form such as "huber(epsilon=1.35)", or an object of ``schuss.losses``.
    batch_size : int or "full", default=32
        Rows per gradient, 1 ... n_samples.
    learning_rate : float, str, Schedule or callable, default="auto"
        A number > 0, a text form such as "cosine(0.1, steps=1000)", an object of
        ``schuss.schedules``, or a function from step numbers to rates. "auto" measures the
        largest curvature on a sample of rows, takes half the stability limit for the batch size,
        and lets it fall by a cosine to zero (constant for full batches); adaptive rules get their
        usual rate.
    epochs : int, default=10
        Passes over the data.
    rule : str or Rule, default="sgd"
        A name, a text form, or an object of ``schuss.rules``.
    alpha : float, default=0.0
        Strength of the penalty, >= 0.
    l1_ratio : float, default=0.0
        Part of the penalty that is L1, 0 ... 1. L1 is a proximal step: weights become exactly 0.
    sample_weight : array-like, shape (n_samples,), optional
        Weights >= 0.
    class_weight : dict, "balanced" or None
        Weight of each class.
    fit_intercept : bool, default=True
        Whether to train b; it is never penalised.
    order : str or Order, default="shuffle"
        Which row is visited when: a name, a text form, or an object of ``schuss.orders``.
    drop_last : bool, default=False
        Leave out the last, shorter batch of an epoch.
    accumulate : int, default=1
        Batches whose gradients make one update, each weighted by the rows it held.
    clip_norm : float, optional
        Largest norm of a gradient (L2 penalty and intercept included); longer ones are scaled.
    average : bool or int, default=False
        Return the mean of the iterates, from the given update on.
    validation : float or (X, y) or (X, y, sample_weight), optional
        A held-out fraction of the rows, drawn by ``seed``, or data of its own.
    evaluate : {"running", "full", "both"}, default="running"
        Training loss in the history: mean over the epoch's own steps, at no extra cost; over all
        rows at the record's parameters, an extra pass; or both.
    record_every : int, optional
        Updates between rows of the history; once per epoch by default.
    updates : int, optional
        Train for this many updates, however many epochs that takes; ``epochs`` is then ignored.
    time_limit : float, optional
        Seconds after which to stop.
    tol : float, optional
        Stop when the validation loss (the training loss where there is none) has not improved by
        more than this for ``patience`` records.
    patience : int, default=5
    gtol : float, optional
        Stop when the norm of the objective's gradient is at most this; evaluated at each record.
    init : Result or (coef, intercept), optional
        Where to start; zeros by default.
    seed : int, default=0
        Determines the order and the validation split.
    dtype : {"float32", "float64"}, optional
        What to compute in; float32 data stay float32 by default, all else becomes float64.
    backend : {"auto", "reference", "jit", "native", "cuda"} or Backend, default="auto"
    threads : int, optional
        Most threads to use. Results do not depend on it.
    asynchronous : bool, default=False
        Not supported yet.
    comm : optional
        Not supported yet.
    callbacks : callable or sequence of callables
        Called with a ``Moment`` (epoch, updates, history, coef, intercept) after each record;
        returning True stops the run.
    checkpoint : schuss.data.Checkpoint, optional
        Resume from it if it exists, and write it as the run goes.
    progress : bool or object, default=False
        Show a progress bar, or report to an object with ``start``, ``update`` and ``stop``.

    Returns
    -------
    Result
        Coefficients, intercept, classes and history.

    Raises
    ------
    schuss.errors.SchussError
        For bad arguments and data, before training starts.
    schuss.errors.DivergenceError
        If the loss or a coefficient became non-finite; holds the last finite state.

    Notes
    -----
    Results are bitwise reproducible for one seed, backend, dtype and instruction set, for any
    number of threads, with or without progress, callbacks and checkpoints. Ctrl-C ends the run and
    returns the state it had reached.

    References
    ----------
    H. Robbins, S. Monro, A Stochastic Approximation Method, Ann. Math. Statist. 22 (1951).

    Examples
    --------
    >>> import numpy as np, schuss
    >>> X = np.random.default_rng(0).normal(size=(1000, 3))
    >>> y = X @ [1.0, 2.0, 3.0] + 4.0
    >>> result = schuss.fit(X, y, batch_size=10, epochs=20)
    >>> result.coef.round(3), round(result.intercept, 3)
    (array([1., 2., 3.]), 4.0)
    """
    refuse_unsupported(asynchronous, comm)
    the_loss, the_rule = losses.get(loss), rules.get(rule)
    penalty = check_penalty(alpha, l1_ratio, the_rule)
    matrix = arrays.as_matrix(X, arrays.resolve_dtype(dtype))
    n_all, n_features = matrix.shape
    targets, classes = encode(y, n_all, matrix.dtype, the_loss)
    weights = combine(
        arrays.as_weights(sample_weight, n_all, matrix.dtype),
        arrays.class_weights(class_weight, targets, classes),
    )
    check_number("seed", seed, {">=": 0}, integer=True)
    train_rows, held_out = split(validation, n_all, seed)
    n = n_all if train_rows is None else int(train_rows.size)
    rows_per_step = check_batch_size(batch_size, n)
    check_number("accumulate", accumulate, {">=": 1}, integer=True)
    engine = choose(backend, the_loss, threads)

    the_order = orders.get(order)
    objective = Problem(matrix, targets, weights, the_loss, penalty, bool(fit_intercept))
    problem = dataclasses.replace(objective, sample_weight=step_weights(the_order, weights))
    visits = the_order.bind(
        order_facts(engine, n, rows_per_step, seed, targets, weights, train_rows)
    )
    warn_if_sorted(the_order, targets, train_rows)
    whole_batches = n // rows_per_step * rows_per_step if drop_last else n
    step_rows = min(rows_per_step * accumulate, whole_batches)
    limits = check_limits(epochs, updates, time_limit, tol, patience, gtol)
    steps_per_epoch = -(-whole_batches // step_rows)
    total = limits.updates or limits.epochs * steps_per_epoch
    schedule = choose_schedule(
        learning_rate, engine, problem, train_rows, n, step_rows, the_rule, total
    ).bind(steps_per_epoch)

    state = State.start(
        starting_point(init, n_features, matrix.dtype), the_rule, check_clip(clip_norm)
    )
    config = {
        "format": 1,
        "loss": str(the_loss),
        "rule": str(the_rule),
        "learning_rate": str(schedule),
        "order": str(the_order),
        "batch_size": rows_per_step,
        "accumulate": accumulate,
        "drop_last": bool(drop_last),
        "alpha": float(alpha),
        "l1_ratio": float(l1_ratio),
        "fit_intercept": bool(fit_intercept),
        "clip_norm": state.clip_norm,
        "average": int(average),
        "evaluate": evaluate,
        "record_every": record_every,
        "tol": tol,
        "patience": patience,
        "gtol": gtol,
        "seed": seed,
        "dtype": matrix.dtype.name,
        "backend": engine.name,
        "validation": "given" if isinstance(validation, (tuple, list)) else validation,
    }
    held_data = validation_data(validation, held_out, objective, classes)
    if checkpoint is not None:
        facts = checkpoint_facts(engine, objective, held_data, state.theta, checkpoint)
        config = {**config, **facts}

    def make_result(theta: np.ndarray, run: Run) -> Result:
        return Result(
            theta[:-1].copy(),
            float(theta[-1]),
            classes,
            the_loss,
            run.history,
            run.stop_reason,
            engine.name,
            config,
        )

    def explain(rate: float) -> tuple[float, str]:
        return explain_divergence(engine, problem, train_rows, n, step_rows, the_rule)

    everywhere: Rows = (0, n_all) if train_rows is None else train_rows
    plan = Plan(
        backend=engine,
        problem=problem,
        visits=visits,
        train_rows=train_rows,
        epoch_rows=whole_batches,
        step_rows=step_rows,
        schedule=schedule,
        limits=limits,
        record_every=check_optional("record_every", record_every),
        average_from=check_average(average),
        evaluate=evaluator(evaluate, gtol, engine, objective, everywhere, the_rule),
        keep_running=evaluate == "both",
        validate=validator(engine, held_data),
        config=config,
        make_result=make_result,
        explain=explain,
    )
    run = Run(plan, state, check_callbacks(callbacks), checkpoint, progress_of(progress))
    result: Result = run.execute()
    return result


# ---- Checks ------------------------------------------------------------------------------------


def refuse_unsupported(asynchronous: bool, comm: Any) -> None:
    """Arguments whose time has not come."""
    if asynchronous:
        raise NotYet("asynchronous=True is not supported yet; leave it False.")
    if comm is not None:
        raise NotYet(f"comm={comm!r}: data-parallel training is not supported yet; leave it None.")


def check_penalty(alpha: float, l1_ratio: float, rule: Rule) -> Penalty:
    """The penalty, refused where the rule cannot apply it."""
    check_number("alpha", alpha, {">=": 0.0})
    check_number("l1_ratio", l1_ratio, {">=": 0.0, "<=": 1.0})
    penalty = Penalty.elastic_net(float(alpha), float(l1_ratio))
    if penalty.l1 and not rule.proximal:
        raise InvalidArgument(
            f"l1_ratio={l1_ratio}: an L1 penalty needs rule 'sgd'; {rule.name!r} scales each "
            "weight's step by itself, and the proximal step with it."
        )
    return penalty


def encode(
    y: Any, n: int, dtype: np.dtype[Any], loss: Loss
) -> tuple[np.ndarray, np.ndarray | None]:
    """Targets for the loss, and the classes of a classification loss."""
    if loss.domain == "binary":
        return arrays.as_labels(y, n, dtype, loss.name)
    return arrays.as_targets(y, n, dtype, loss.domain, loss.name), None


def combine(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    """Product of two sets of weights, either of which may be absent."""
    if a is None or b is None:
        return b if a is None else a
    product: np.ndarray = a * b
    if not product.any():
        raise DataError("sample_weight and class_weight: all weights are zero.")
    return product


def split(validation: Any, n: int, seed: int) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Rows to train on and rows held out, where ``validation`` is a fraction."""
    if validation is None or isinstance(validation, (tuple, list)):
        return None, None
    fraction = check_number("validation", validation, {">": 0.0, "<": 1.0})
    held = round(n * fraction)
    if not 0 < held < n:
        raise InvalidArgument(
            f"validation={validation}: holds out {held} of {n} rows; both parts need at least one."
        )
    shuffled = permute(n, round_keys(seed, -1), 0, n)
    rows = shuffled.astype(index_dtype(n))
    return np.sort(rows[held:]), np.sort(rows[:held])


def check_batch_size(batch_size: int | str, n: int) -> int:
    """Rows per batch."""
    if isinstance(batch_size, str):
        if batch_size != "full":
            raise InvalidArgument(f"batch_size={batch_size!r}: expected an integer or 'full'.")
        return n
    check_number("batch_size", batch_size, {">=": 1}, integer=True)
    if isinstance(batch_size, _Default):
        return min(int(batch_size), n)
    if batch_size > n:
        raise InvalidArgument(
            f"batch_size={batch_size}: larger than the {n} training rows; expected 1 ... {n} or "
            "'full'."
        )
    return int(batch_size)


def check_limits(
    epochs: Any, updates: Any, time_limit: Any, tol: Any, patience: Any, gtol: Any
) -> Limits:
    """When to stop."""
    check_number("epochs", epochs, {">=": 1}, integer=True)
    check_number("patience", patience, {">=": 1}, integer=True)
    if time_limit is not None:
        check_number("time_limit", time_limit, {">": 0.0})
    for name, value in (("tol", tol), ("gtol", gtol)):
        if value is not None:
            check_number(name, value, {">=": 0.0})
    return Limits(epochs, check_optional("updates", updates), time_limit, tol, patience, gtol)


def check_optional(name: str, value: Any) -> int | None:
    """None, or an integer of at least 1."""
    return None if value is None else int(check_number(name, value, {">=": 1}, integer=True))


def check_clip(clip_norm: Any) -> float:
    """Largest gradient norm; 0 for none."""
    return 0.0 if clip_norm is None else float(check_number("clip_norm", clip_norm, {">": 0.0}))


def check_average(average: Any) -> int | None:
    """First update whose iterate is averaged."""
    if average is False:
        return None
    return 0 if average is True else int(check_number("average", average, {">=": 0}, integer=True))


def check_callbacks(callbacks: Any) -> tuple[Callable[[Moment], Any], ...]:
    """One callable or several, as a tuple."""
    several = (callbacks,) if callable(callbacks) else tuple(callbacks)
    for callback in several:
        if not callable(callback):
            raise InvalidType(f"callbacks: {callback!r} is not callable.")
    return several


def progress_of(progress: Any) -> Any:
    """The object that shows progress, or None."""
    if progress is True:
        from schuss.progress import Bar

        return Bar()
    if progress is False or progress is None:
        return None
    if not all(hasattr(progress, name) for name in ("start", "update", "stop")):
        raise InvalidType(
            f"progress={progress!r}: expected True, False or an object with start, update and stop."
        )
    return progress


def step_weights(the_order: orders.Order, weights: np.ndarray | None) -> np.ndarray | None:
    """Weights of the samples within a step.

    Where the order draws rows by weight, each visit counts alike, with the mean weight: the
    expected gradient is the same.
    """
    if weights is None or not isinstance(the_order, orders.weighted):
        return weights
    return np.full_like(weights, weights.mean(dtype=np.float64))


def order_facts(
    engine: Backend,
    n: int,
    batch_size: int,
    seed: int,
    targets: np.ndarray,
    weights: np.ndarray | None,
    rows: np.ndarray | None,
) -> orders.Facts:
    """What the order may know, restricted to the training rows."""
    if rows is not None:
        targets = targets[rows]
        weights = None if weights is None else weights[rows]
    return orders.Facts(n, batch_size, seed, targets, weights, engine.permute)


def warn_if_sorted(the_order: orders.Order, y: np.ndarray, rows: np.ndarray | None) -> None:
    """A sequential order over sorted labels learns one label after the other."""
    if not isinstance(the_order, orders.sequential):
        return
    targets = y if rows is None else y[rows]
    steps = np.diff(targets)
    if targets.size > 2 and steps.any() and ((steps >= 0).all() or (steps <= 0).all()):
        warnings.warn(
            "order='sequential' on data sorted by y: each stretch of steps sees one kind of "
            "label only; use order='shuffle'.",
            SchussWarning,
            stacklevel=3,
        )


def starting_point(init: Any, n_features: int, dtype: np.dtype[Any]) -> np.ndarray:
    """Coefficients and intercept to start from."""
    theta = np.zeros(n_features + 1, dtype)
    if init is None:
        return theta
    if isinstance(init, Result):
        init = (init.coef, init.intercept)
    if not isinstance(init, (tuple, list)) or len(init) != 2:
        raise InvalidType(f"init={init!r}: expected a Result or a pair (coef, intercept).")
    coef = np.asarray(init[0], dtype=np.float64)
    if coef.shape != (n_features,):
        raise InvalidArgument(
            f"init: coef has shape {coef.shape}, X has {n_features} columns: expected "
            f"({n_features},)."
        )
    theta[:-1] = coef
    theta[-1] = check_number("init: intercept", np.asarray(init[1]).item(), {})
    if not np.isfinite(theta).all():
        raise InvalidArgument("init: coef must be finite.")
    return theta


# ---- Learning rate -------------------------------------------------------------------------------


def choose_schedule(
    learning_rate: Any,
    engine: Backend,
    problem: Problem,
    rows: np.ndarray | None,
    n: int,
    batch_size: int,
    rule: Rule,
    total: int,
) -> Schedule:
    """The schedule asked for, or measured for "auto"."""
    if not (isinstance(learning_rate, str) and learning_rate == "auto"):
        return schedules.get(learning_rate)
    warn_if_unscaled(problem, rows, n)
    if rule.default_learning_rate is not None:
        peak, why = rule.default_learning_rate, f"usual for {rule.name}"
    else:
        l2 = problem.penalty.l2 + rule.coupled_decay
        limit = curvature.measure(engine, problem, rows, n, l2).limit(batch_size)
        peak = limit / 2 if np.isfinite(limit) else 1.0
        why = f"half the stability limit {limit:.4g} for batch size {batch_size}"
        momentum = getattr(rule, "momentum", 0.0)
        if momentum:
            peak *= 1 - momentum
            why += f", times 1 - momentum {momentum:g}"
    schedule: Schedule = schedules.constant(peak)
    if batch_size < n and total > 1:
        schedule = schedules.cosine(peak, steps=total)
    log.info("learning_rate: %s (%s)", schedule, why)
    return schedule


def warn_if_unscaled(problem: Problem, rows: np.ndarray | None, n: int) -> None:
    """One learning rate cannot suit columns of very different scale."""
    spread = curvature.measure_spread(problem, rows, n)
    if spread > WIDE_SPREAD:
        warnings.warn(
            f"columns of X differ in scale by a factor of {spread:.3g}; training will be slow. "
            "Standardize them (subtract the mean, divide by the standard deviation).",
            ScalingWarning,
            stacklevel=4,
        )


def explain_divergence(
    engine: Backend,
    problem: Problem,
    rows: np.ndarray | None,
    n: int,
    batch_size: int,
    rule: Rule,
) -> tuple[float, str]:
    """The measured stability limit, and what to do."""
    l2 = problem.penalty.l2 + rule.coupled_decay
    limit = curvature.measure(engine, problem, rows, n, l2).limit(batch_size)
    hint = (
        f"The measured stability limit for batch size {batch_size} is about {limit:.3g}; use a "
        "smaller learning_rate, or learning_rate='auto'."
    )
    spread = curvature.measure_spread(problem, rows, n)
    if spread > WIDE_SPREAD:
        hint += f" Columns of X differ in scale by a factor of {spread:.3g}: standardize them."
    return limit, hint


# ---- Evaluation ----------------------------------------------------------------------------------


def evaluator(
    evaluate: str,
    gtol: float | None,
    engine: Backend,
    problem: Problem,
    rows: Rows,
    rule: Rule,
) -> Callable[[np.ndarray], tuple[float, float]] | None:
    """Full training loss and norm of the objective's gradient, where they are wanted."""
    if evaluate not in ("running", "full", "both"):
        raise unknown_name("evaluate", evaluate, ["running", "full", "both"])
    if evaluate == "running" and gtol is None:
        return None
    n = rows[1] if isinstance(rows, tuple) else rows.size
    l2 = problem.penalty.l2 + rule.coupled_decay

    def full(theta: np.ndarray) -> tuple[float, float]:
        loss, total = engine.gradient(problem, theta, rows)
        total /= n
        total[:-1] += l2 * theta[:-1]
        return loss / n, float(np.linalg.norm(total))

    return full


def validation_data(
    validation: Any, held_out: np.ndarray | None, problem: Problem, classes: np.ndarray | None
) -> tuple[Problem, Rows] | None:
    """The validation data and their rows."""
    if validation is None:
        return None
    if held_out is not None:
        return problem, held_out
    given = validation_problem(validation, problem, classes)
    return given, (0, given.X.shape[0])


def validator(
    engine: Backend, held_data: tuple[Problem, Rows] | None
) -> Callable[[np.ndarray], float] | None:
    """Mean loss over the validation data."""
    if held_data is None:
        return None
    data, rows = held_data
    n = rows[1] if isinstance(rows, tuple) else rows.size

    def validate(theta: np.ndarray) -> float:
        return engine.gradient(data, theta, rows)[0] / n

    return validate


def validation_problem(validation: Any, problem: Problem, classes: np.ndarray | None) -> Problem:
    """Validation data given as (X, y) or (X, y, sample_weight)."""
    if len(validation) not in (2, 3):
        raise InvalidArgument(
            f"validation: expected a fraction, (X, y) or (X, y, sample_weight); got "
            f"{len(validation)} parts."
        )
    X = arrays.as_matrix(validation[0], problem.dtype, "validation X")
    n, d = X.shape
    if d != problem.n_features:
        raise DataError(f"validation X: has {d} columns, X has {problem.n_features}.")
    loss = problem.loss
    if classes is not None:
        y, _ = arrays.as_labels(validation[1], n, problem.dtype, loss.name, classes)
    else:
        y = arrays.as_targets(validation[1], n, problem.dtype, loss.domain, loss.name)
    weights = arrays.as_weights(validation[2], n, problem.dtype) if len(validation) == 3 else None
    return dataclasses.replace(problem, X=X, y=y, sample_weight=weights)


def checkpoint_facts(
    engine: Backend,
    problem: Problem,
    held_data: tuple[Problem, Rows] | None,
    theta: np.ndarray,
    checkpoint: Checkpoint,
) -> dict[str, Any]:
    """What else must agree for a resumed run to end with the same bits."""
    from schuss.data.container import check_writable

    if not isinstance(checkpoint, Checkpoint):
        raise InvalidType(f"checkpoint={checkpoint!r}: expected schuss.data.Checkpoint(path, ...).")
    check_writable(checkpoint.path, "checkpoint")
    facts = {
        "data": fingerprint(problem.X, problem.y, problem.sample_weight),
        "start": fingerprint(theta),
    }
    if held_data is not None and held_data[0] is not problem:
        held = held_data[0]
        facts["validation_data"] = fingerprint(held.X, held.y, held.sample_weight)
    if engine.name == "native":
        from schuss import _native

        facts["instruction_set"] = _native.instruction_set()
    return facts


# ---- The other entry points ----------------------------------------------------------------------


def gradient(
    X: Any,
    y: Any,
    coef: Any,
    intercept: float = 0.0,
    loss: str | Loss = "squared_error",
    rows: Any = None,
    sample_weight: Any = None,
    backend: str | Backend = "auto",
) -> tuple[float, np.ndarray, float]:
    r"""Mean loss over rows and its gradient, :math:`\tfrac1B \sum_i s_i\, \ell'(m_i, y_i)\, x_i`.

    Parameters
    ----------
    X : array-like, shape (n_samples, n_features)
    y : array-like, shape (n_samples,)
        Targets, or two label values for a classification loss.
    coef : array-like, shape (n_features,)
    intercept : float, default=0.0
    loss : str or Loss, default="squared_error"
    rows : array-like of int, shape (B,), optional
        Rows of the mini-batch; all by default.
    sample_weight : array-like, shape (n_samples,), optional
    backend : str or Backend, default="auto"

    Returns
    -------
    loss : float
    grad_coef : ndarray of float64, shape (n_features,)
    grad_intercept : float

    Raises
    ------
    schuss.errors.SchussError
        For bad arguments and data.

    Examples
    --------
    >>> import schuss
    >>> schuss.gradient([[1.0], [2.0]], [1.0, 1.0], coef=[0.0])
    (0.5, array([-1.5]), -1.0)
    """
    the_loss = losses.get(loss)
    matrix = arrays.as_matrix(X)
    n, d = matrix.shape
    targets, _ = encode(y, n, matrix.dtype, the_loss)
    weights = arrays.as_weights(sample_weight, n, matrix.dtype)
    theta = starting_point((coef, intercept), d, matrix.dtype)
    engine = choose(backend, the_loss)
    chosen = (0, n) if rows is None else check_rows(rows, n)
    total, summed = engine.gradient(Problem(matrix, targets, weights, the_loss), theta, chosen)
    count = chosen[1] if isinstance(chosen, tuple) else chosen.size
    summed /= count
    return total / count, summed[:-1], float(summed[-1])


def check_rows(rows: Any, n: int) -> np.ndarray:
    """Row indices within the data."""
    index = np.asarray(rows)
    if index.ndim != 1 or index.size == 0 or index.dtype.kind not in "iu":
        raise InvalidArgument(
            f"rows: expected a non-empty one-dimensional array of integers, got shape {index.shape}"
            f" of {index.dtype}."
        )
    outside = (index < 0) | (index >= n)
    if outside.any():
        k = int(np.argmax(outside))
        raise InvalidArgument(f"rows[{k}] is {index[k]}: expected 0 ... {n - 1}.")
    return np.ascontiguousarray(index, dtype=index_dtype(n))


def batches(
    X: Any,
    y: Any = None,
    batch_size: int | str = 32,
    order: Any = "shuffle",
    seed: int = 0,
    epoch: int = 0,
    drop_last: bool = False,
    sample_weight: Any = None,
) -> Iterator[Any]:
    """Yield the mini-batches of one epoch, for a loop of your own.

    The rows come in the order in which :func:`schuss.fit` would visit them.

    Parameters
    ----------
    X : array-like, shape (n_samples, ...)
        Anything NumPy can index by rows; arrays are not converted.
    y : array-like, shape (n_samples, ...), optional
    batch_size : int or "full", default=32
    order : str or Order, default="shuffle"
    seed, epoch : int, default=0
        Which shuffle, and which of its epochs.
    drop_last : bool, default=False
        Leave out the last, shorter batch.
    sample_weight : array-like, shape (n_samples,), optional
        For order "weighted".

    Yields
    ------
    Xb, yb : ndarray
        Copies of the batch's rows; Xb alone if y is None.

    Raises
    ------
    schuss.errors.SchussError
        For bad arguments.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> X, y = np.arange(10.0).reshape(5, 2), np.arange(5)
    >>> [len(yb) for Xb, yb in schuss.batches(X, y, batch_size=2)]
    [2, 2, 1]
    """
    data = np.asarray(X)
    if data.ndim == 0 or data.shape[0] == 0:
        raise DataError(f"X: expected at least one row, got shape {data.shape}.")
    n = data.shape[0]
    targets = None if y is None else np.asarray(y)
    if targets is not None and (targets.ndim == 0 or targets.shape[0] != n):
        raise DataError(f"y: has shape {targets.shape} but X has {n} rows.")
    for name, value in (("seed", seed), ("epoch", epoch)):
        check_number(name, value, {">=": 0}, integer=True)
    size = check_batch_size(batch_size, n)
    labels = targets if targets is not None and targets.ndim == 1 else None
    weights = arrays.as_weights(sample_weight, n, np.dtype(np.float64))
    visits = orders.get(order).bind(orders.Facts(n, size, seed, labels, weights))
    return _batches(data, targets, visits, epoch, size, n // size * size if drop_last else n)


def _batches(
    data: np.ndarray,
    targets: np.ndarray | None,
    visits: orders.Visits,
    epoch: int,
    size: int,
    stop: int,
) -> Iterator[Any]:
    for start in range(0, stop, size):
        rows = visits.indices(epoch, start, min(start + size, stop))
        yield data[rows] if targets is None else (data[rows], targets[rows])
