"""``fit``: check everything, plan the run, run it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from schuss import curvature
from schuss.backends import Backend, Problem, State, asynchronously, choose
from schuss.backends.protocol import Rows, changes_all_weights, coef_and_intercept
from schuss.checks import (
    DEFAULT_BATCH_SIZE,
    among_all_rows,
    check_asynchronous,
    check_average,
    check_batch_size,
    check_callbacks,
    check_clip,
    check_flags,
    check_limits,
    check_optional,
    check_penalty,
    check_rows,
    check_seed,
    check_training_part,
    checkpoint_facts,
    combine,
    count_outputs,
    encode,
    one_kind,
    order_facts,
    parameters,
    progress_of,
    refuse_unsupported,
    split,
    starting_point,
    step_weights,
    validation_label,
    visits_of,
    warn_if_sorted,
)
from schuss.data import arrays
from schuss.data import order as orders
from schuss.data.checkpoint import Checkpoint, fingerprint
from schuss.data.sparse import as_csr, as_rows, is_sparse
from schuss.errors import DataError
from schuss.evaluation import evaluator, validation_data, validator
from schuss.formulas import losses, rules
from schuss.formulas.losses import Loss
from schuss.formulas.rules import Rule
from schuss.formulas.spec import check_number
from schuss.loop import Run
from schuss.plan import Moment, Plan
from schuss.rates import check_schedule, choose_schedule, explain_divergence
from schuss.result import Result

__all__ = ["batches", "fit", "gradient"]

# Row indices that ``batches`` computes together.
INDICES_AHEAD = 1 << 16


def fit(
    X: Any,
    y: Any,
    loss: str | Loss = "squared_error",
    batch_size: int | str = DEFAULT_BATCH_SIZE,
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
    X : array-like or sparse matrix of float32 or float64, shape (n_samples, n_features)
        float16 and bfloat16 (of ml_dtypes) are read as they are stored and computed with in
        float32; integers and booleans are converted; NaN and infinity are refused. Rows of
        scipy.sparse in CSR are trained on as they are, for one output; other formats are converted
        once.
    y : array-like, shape (n_samples,) or (n_samples, n_outputs)
        Targets; for a classification loss, label values of any sortable type: exactly two, or two
        and more for "multinomial". With two or more columns of numbers each is an output of its
        own, and the loss of a row is the sum over its outputs.
    loss : str or Loss, default="squared_error"
        A name, a text form such as "huber(epsilon=1.35)", or an object of ``schuss.losses``.
    batch_size : int or "full", default=32
        Rows per gradient, 1 ... n_samples; the default shrinks to smaller data.
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
        Weights >= 0, factors of the rows' losses; 1 by default.
    class_weight : dict, "balanced" or None
        Weight of each class, by its label; "balanced" gives all classes the same total. Classes
        that a dict leaves out weigh 1.
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
        Seconds of this call after which to stop.
    tol : float, optional
        Stop when the validation loss (the training loss where there is none) has not improved by
        more than this for ``patience`` records.
    patience : int, default=5
        Records without an improvement that ``tol`` waits for.
    gtol : float, optional
        Stop when the norm of the objective's gradient is at most this; evaluated at each record.
    init : Result or (coef, intercept), optional
        Where to start; zeros by default.
    seed : int, default=0
        Determines the order and the validation split.
    dtype : {"float32", "float64"}, optional
        What to convert X to and compute in; by default float32 for float32 and 16-bit data, else
        float64.
    backend : {"auto", "reference", "jit", "native", "cuda"} or Backend, default="auto"
        What computes; "auto" takes native, else jit. One that cannot be used is an error.
    threads : int, optional
        Most threads to use; by default what the machine, the process's affinity and quota,
        ``SCHUSS_NUM_THREADS`` and ``OMP_NUM_THREADS`` allow. Results do not depend on it.
    asynchronous : bool, default=False
        Let all threads train the same weights at once, without locks (Hogwild!): sparse X, one
        row for each update, plain sgd, on native or jit. The default batch size is then 1. Not
        reproducible; ``Result.asynchrony`` says how often threads met.
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
    number of threads, with or without progress, callbacks and checkpoints; runs with
    ``asynchronous=True`` are not. Ctrl-C ends the run and returns the state it had reached.

    On sparse rows a step of plain sgd goes over the entries of its rows, whatever the penalty.
    Rules with memory, ``clip_norm``, and ``average`` together with an L1 penalty go over all
    n_features weights at every step.

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

    Sparse rows:

    >>> import scipy.sparse
    >>> X = scipy.sparse.random(2000, 500, density=0.01, format="csr", random_state=0)
    >>> result = schuss.fit(X, X @ np.ones(500), batch_size=1, alpha=1e-6, epochs=50)
    >>> bool(abs(result.coef - 1).max() < 0.1)
    True
    """
    check_flags(fit_intercept=fit_intercept, drop_last=drop_last, asynchronous=asynchronous)
    refuse_unsupported(comm)
    the_loss, the_rule = losses.get(loss), rules.get(rule)
    penalty = check_penalty(alpha, l1_ratio, the_rule)
    matrix = as_rows(X, arrays.resolve_dtype(dtype), narrow=True)
    n_all, n_features = matrix.shape
    computed = arrays.parameter_dtype(matrix)
    targets, classes = encode(y, n_all, computed, the_loss)
    seed = check_seed(seed)
    train_rows, held_out = split(validation, n_all, seed)
    n = n_all if train_rows is None else int(train_rows.size)
    per_class = arrays.class_weights(class_weight, targets, classes, train_rows)
    given_weights = arrays.as_weights(sample_weight, n_all, computed)
    weights = combine(given_weights, arrays.by_class(per_class, targets))
    check_training_part(targets, weights, classes, train_rows)
    if asynchronous and batch_size is DEFAULT_BATCH_SIZE:
        batch_size = 1
    rows_per_step = check_batch_size(batch_size, n)
    accumulate = check_number("accumulate", accumulate, {">=": 1}, integer=True)
    engine = choose(backend, the_loss, check_optional("threads", threads))
    free = None
    if asynchronous:
        check_asynchronous(matrix, rows_per_step, accumulate, the_rule, penalty, clip_norm, average)
        engine = free = asynchronously(engine)

    the_order = orders.get(order)
    n_outputs = count_outputs(targets, classes, the_loss)
    if n_outputs > 1:
        matrix = arrays.widened(one_kind(matrix, n_outputs))
    objective = Problem(matrix, targets, weights, the_loss, penalty, bool(fit_intercept), n_outputs)
    problem = dataclasses.replace(
        objective, sample_weight=step_weights(the_order, weights, train_rows)
    )
    facts = order_facts(
        engine, n, rows_per_step, seed, targets, weights, train_rows, matrix.nbytes // n_all
    )
    visits = visits_of(the_order, facts)
    frequency = among_all_rows(the_order.frequency(facts), train_rows, n_all)
    warn_if_sorted(the_order, targets, train_rows)
    whole_batches = n // rows_per_step * rows_per_step if drop_last else n
    step_rows = min(rows_per_step * accumulate, whole_batches)
    limits = check_limits(epochs, updates, time_limit, tol, patience, gtol)
    steps_per_epoch = -(-whole_batches // step_rows)
    total = limits.total_updates(steps_per_epoch)

    def measure_limit() -> float:
        l2 = penalty.l2 + the_rule.coupled_decay
        found = curvature.measure(engine, problem, train_rows, n, l2, frequency)
        return found.limit(step_rows)

    schedule = choose_schedule(
        learning_rate, measure_limit, problem, train_rows, n, step_rows, the_rule, total
    ).bind(steps_per_epoch)
    check_schedule(schedule, total)

    state = State.start(
        starting_point(init, n_features, computed, n_outputs), the_rule, check_clip(clip_norm)
    )
    config = {
        "format": 1,
        "loss": the_loss.identity,
        "rule": str(the_rule),
        "learning_rate": schedule.identity,
        "order": str(the_order),
        "batch_size": rows_per_step,
        "accumulate": accumulate,
        "drop_last": bool(drop_last),
        "alpha": float(alpha),
        "l1_ratio": float(l1_ratio),
        "fit_intercept": bool(fit_intercept),
        "clip_norm": state.clip_norm,
        "average": check_average(average, total),
        "evaluate": evaluate,
        "record_every": check_optional("record_every", record_every),
        "tol": limits.tol,
        "patience": limits.patience,
        "gtol": limits.gtol,
        "seed": seed,
        "dtype": matrix.dtype.name,
        "backend": engine.name,
        "validation": validation_label(validation),
    }
    if asynchronous:
        config["asynchronous"] = True
    held_data = validation_data(validation, held_out, objective, classes, per_class)
    if checkpoint is not None:
        # First, so that other data are named before a learning rate that was measured on them.
        data = fingerprint(matrix, targets, weights)
        config = {"dtype": config["dtype"], "data": data, **config}
        config |= checkpoint_facts(engine, checkpoint, state.theta)
        if held_data is not None and held_out is None:
            held = held_data[0]
            config["validation_data"] = fingerprint(held.X, held.y, held.sample_weight)

    def make_result(theta: np.ndarray, run: Run) -> Result:
        return Result(
            *coef_and_intercept(theta, n_outputs),
            classes,
            the_loss,
            run.history,
            run.stop_reason,
            engine.name,
            config,
            asynchrony=None if free is None else free.report(),
        )

    def explain() -> tuple[float, str]:
        asked = learning_rate if isinstance(learning_rate, str) else ""
        limit = measure_limit()
        return limit, explain_divergence(limit, asked, problem, train_rows, n, step_rows)

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
        record_every=config["record_every"],
        average_from=config["average"],
        evaluate=evaluator(evaluate, gtol, engine, objective, everywhere, the_rule),
        evaluation=evaluate,
        validate=validator(engine, held_data),
        config=config,
        make_result=make_result,
        explain=explain,
        changes_all_weights=changes_all_weights(
            the_rule, bool(state.clip_norm), config["average"] is not None, penalty.l1
        ),
    )
    run = Run(plan, state, check_callbacks(callbacks), checkpoint, progress_of(progress))
    result: Result = run.execute()
    return result


def gradient(
    X: Any,
    y: Any,
    coef: Any,
    intercept: Any = 0.0,
    loss: str | Loss = "squared_error",
    rows: Any = None,
    sample_weight: Any = None,
    backend: str | Backend = "auto",
) -> tuple[float, np.ndarray, Any]:
    r"""Mean loss over rows and its gradient, :math:`\tfrac1B \sum_i s_i\, \ell'(m_i, y_i)\, x_i`.

    Parameters
    ----------
    X : array-like or sparse matrix, shape (n_samples, n_features)
        As in :func:`schuss.fit`.
    y : array-like, shape (n_samples,) or (n_samples, n_outputs)
        Targets, or label values for a classification loss, as in :func:`schuss.fit`.
    coef : array-like, shape (n_features,) or (n_outputs, n_features)
        Where to take the gradient, together with ``intercept``; a row for each class with
        "multinomial".
    intercept : float or array-like of shape (n_outputs,), default=0.0
    loss : str or Loss, default="squared_error"
        A name, a text form, or an object of ``schuss.losses``.
    rows : array-like of int, shape (B,), optional
        Rows of the mini-batch; all by default.
    sample_weight : array-like, shape (n_samples,), optional
        Weights >= 0, factors of the rows' losses; the mean divides by B all the same.
    backend : str or Backend, default="auto"
        What computes, as in :func:`schuss.fit`.

    Returns
    -------
    loss : float
        Mean over the rows, without a penalty.
    grad_coef : ndarray of float64, in the shape of ``coef``
    grad_intercept : float, or ndarray of float64 of shape (n_outputs,)

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
    matrix = as_rows(X, narrow=True)
    n, d = matrix.shape
    computed = arrays.parameter_dtype(matrix)
    targets, classes = encode(y, n, computed, the_loss)
    n_outputs = count_outputs(targets, classes, the_loss)
    if n_outputs > 1:
        matrix = arrays.widened(one_kind(matrix, n_outputs))
    weights = arrays.as_weights(sample_weight, n, computed)
    theta = parameters(coef, intercept, d, computed, n_outputs=n_outputs)
    engine = choose(backend, the_loss)
    chosen = (0, n) if rows is None else check_rows(rows, n)
    problem = Problem(matrix, targets, weights, the_loss, n_outputs=n_outputs)
    total, summed = engine.gradient(problem, theta, chosen)
    count = chosen[1] if isinstance(chosen, tuple) else chosen.size
    summed /= count
    return (total / count, *coef_and_intercept(summed, n_outputs))


def batches(
    X: Any,
    y: Any = None,
    batch_size: int | str = DEFAULT_BATCH_SIZE,
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
        Anything NumPy can index by rows, or a sparse matrix; arrays are not converted.
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
        Copies of the batch's rows; Xb alone if y is None. Those of a sparse X are sparse.

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
    check_flags(drop_last=drop_last)
    data = X.tocsr() if is_sparse(X) else arrays.as_array(X, "X")
    if data.ndim == 0 or data.shape[0] == 0:
        raise DataError(f"X: expected at least one row, got shape {data.shape}.")
    n = data.shape[0]
    targets = None if y is None else arrays.as_array(y, "y")
    if targets is not None and (targets.ndim == 0 or targets.shape[0] != n):
        raise DataError(f"y: has shape {targets.shape} but X has {n} rows.")
    seed = check_seed(seed)
    epoch = check_number("epoch", epoch, {">=": 0}, integer=True)
    size = check_batch_size(batch_size, n)
    labels = targets if targets is not None and targets.ndim == 1 else None
    # fit draws by weights in the dtype of X.
    narrow = data.dtype in (np.float16, np.float32)
    weights = arrays.as_weights(sample_weight, n, np.dtype(np.float32 if narrow else np.float64))
    engine = choose("auto")
    row_bytes = (as_csr(data) if is_sparse(data) else data).nbytes // n
    facts = orders.Facts(n, size, seed, labels, weights, engine.permute, engine.mix, row_bytes)
    visits = visits_of(orders.get(order), facts)
    return _batches(data, targets, visits, epoch, size, n // size * size if drop_last else n)


def _batches(
    data: np.ndarray,
    targets: np.ndarray | None,
    visits: orders.Visits,
    epoch: int,
    size: int,
    stop: int,
) -> Iterator[Any]:
    ahead = max(1, INDICES_AHEAD // size) * size
    for first in range(0, stop, ahead):
        rows = visits.indices(epoch, first, min(first + ahead, stop))
        for start in range(0, rows.size, size):
            batch = rows[start : start + size]
            yield data[batch] if targets is None else (data[batch], targets[batch])
