"""Arguments of ``fit`` and its siblings, checked and brought into the form the loop works with."""

from __future__ import annotations

import difflib
import functools
import inspect
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from schuss.backends import Backend
from schuss.data import arrays
from schuss.data import order as orders
from schuss.data.checkpoint import Checkpoint, fingerprint
from schuss.data.container import check_writable
from schuss.data.sparse import CSR
from schuss.errors import DataError, InvalidArgument, InvalidType, NotYet, SchussWarning
from schuss.formulas.bijection import index_dtype, permute, round_keys
from schuss.formulas.losses import Loss
from schuss.formulas.penalties import Penalty
from schuss.formulas.rules import Rule
from schuss.formulas.spec import check_number
from schuss.plan import Limits, Moment
from schuss.result import Result


class _Default(int):
    """A default that gives way to small data, where the same number given would be an error."""

    def __repr__(self) -> str:
        return int.__repr__(self)


DEFAULT_BATCH_SIZE = _Default(32)


def check_flags(**flags: Any) -> None:
    """Raise InvalidType unless each is True or False."""
    for name, value in flags.items():
        if not isinstance(value, (bool, np.bool_)):
            raise InvalidType(f"{name}={value!r}: expected True or False.")


def with_near_names(init: Callable[..., None]) -> Callable[..., None]:
    """An ``__init__`` that suggests the nearest name for a parameter it does not have."""
    names = list(inspect.signature(init).parameters)[1:]

    @functools.wraps(init)
    def __init__(self: Any, *args: Any, **given: Any) -> None:
        for name in given:
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"accepted: {', '.join(names)}."
                raise InvalidType(f"{type(self).__name__} has no parameter {name!r}; {hint}")
        init(self, *args, **given)

    return __init__


def refuse_unsupported(comm: Any) -> None:
    """Arguments whose time has not come."""
    if comm is not None:
        raise NotYet(f"comm={comm!r}: data-parallel training is not supported yet; leave it None.")


def check_asynchronous(
    X: np.ndarray | CSR,
    batch_size: int,
    accumulate: int,
    rule: Rule,
    penalty: Penalty,
    clip_norm: Any,
    average: Any,
) -> None:
    """Raise InvalidArgument unless threads can train the same weights at once."""
    wrong = {
        "X is dense, and every update would meet every other; expected sparse rows": not isinstance(
            X, CSR
        ),
        f"rule='{rule}'; expected 'sgd' without momentum": rule.formula != "sgd",
        f"batch_size={batch_size}; expected 1, an update for each row": batch_size != 1,
        f"accumulate={accumulate}; expected 1": accumulate != 1,
        "an L1 penalty is owed by all weights at every step; expected l1_ratio=0": penalty.l1 > 0,
        f"clip_norm={clip_norm}; expected None": clip_norm is not None,
        f"average={average}; expected False": bool(average),
    }
    for what, is_so in wrong.items():
        if is_so:
            raise InvalidArgument(f"asynchronous=True: {what}.")


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


def check_seed(seed: Any) -> int:
    """A seed of 64 bits."""
    return int(check_number("seed", seed, {">=": 0, "<": 2**64}, integer=True))


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

    def optional(name: str, value: Any, limits: dict[str, float]) -> float | None:
        return None if value is None else float(check_number(name, value, limits))

    return Limits(
        epochs=check_number("epochs", epochs, {">=": 1}, integer=True),
        updates=check_optional("updates", updates),
        time_limit=optional("time_limit", time_limit, {">": 0.0}),
        tol=optional("tol", tol, {">=": 0.0}),
        patience=check_number("patience", patience, {">=": 1}, integer=True),
        gtol=optional("gtol", gtol, {">=": 0.0}),
    )


def check_optional(name: str, value: Any) -> int | None:
    """None, or an integer of at least 1."""
    return None if value is None else int(check_number(name, value, {">=": 1}, integer=True))


def check_clip(clip_norm: Any) -> float:
    """Largest gradient norm; 0 for none."""
    return 0.0 if clip_norm is None else float(check_number("clip_norm", clip_norm, {">": 0.0}))


def check_average(average: Any, total: int) -> int | None:
    """First update, counted from 0, whose iterate is averaged, of ``total`` updates."""
    if isinstance(average, (bool, np.bool_)):
        return 0 if average else None
    first: int = check_number("average", average, {">=": 1}, integer=True)
    if first > total:
        raise InvalidArgument(
            f"average={first}: the run makes {total} updates; expected True, False or "
            f"1 ... {total}."
        )
    return first - 1


def check_callbacks(callbacks: Any) -> tuple[Callable[[Moment], Any], ...]:
    """One callable or several, as a tuple."""
    try:
        several = (callbacks,) if callable(callbacks) else tuple(callbacks)
    except TypeError:
        several = (callbacks,)
    for callback in several:
        if not callable(callback):
            raise InvalidType(
                f"callbacks: {callback!r} is not callable; expected a function or several."
            )
    return several


def check_rows(rows: Any, n: int, name: str = "rows") -> np.ndarray:
    """Row indices within the data."""
    index = arrays.as_array(rows, name)
    if index.ndim != 1 or index.size == 0 or index.dtype.kind not in "iu":
        raise InvalidArgument(
            f"{name}: expected a non-empty one-dimensional array of integers, got shape "
            f"{index.shape} of {index.dtype}."
        )
    outside = (index < 0) | (index >= n)
    if outside.any():
        k = int(np.argmax(outside))
        raise InvalidArgument(f"{name}[{k}] is {index[k]}: expected 0 ... {n - 1}.")
    return np.ascontiguousarray(index, dtype=index_dtype(n))


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


def encode(
    y: Any,
    n: int,
    dtype: np.dtype[Any],
    loss: Loss,
    classes: np.ndarray | None = None,
    name: str = "y",
) -> tuple[np.ndarray, np.ndarray | None]:
    """Targets for the loss, and the classes of a classification loss.

    ``classes`` are those of the training labels, where y holds labels of other rows.
    """
    if loss.domain == "binary":
        return arrays.as_labels(y, n, dtype, loss.name, classes, name)
    if loss.domain == "classes":
        return arrays.as_class_numbers(y, n, dtype, loss.name, classes, name)
    return arrays.as_targets(y, n, dtype, loss.domain, loss.name, name), None


def count_outputs(targets: np.ndarray, classes: np.ndarray | None, loss: Loss) -> int:
    """Margins of a sample: one for each class of a multinomial loss, or for each column of y."""
    if loss.domain == "classes":
        assert classes is not None
        return int(classes.size)
    return int(targets.shape[1]) if targets.ndim == 2 else 1


def one_kind(matrix: np.ndarray | CSR, n_outputs: int) -> np.ndarray:
    """A dense matrix as it is; sparse rows are trained with one output."""
    if isinstance(matrix, CSR):
        raise InvalidArgument(
            f"X: sparse rows are trained with one output, and here are {n_outputs}; pass "
            "X.toarray(), or train each output by itself (Result.one_against_rest joins classes)."
        )
    return matrix


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
    try:
        fraction = check_number("validation", validation, {">": 0.0, "<": 1.0})
    except InvalidType:
        raise InvalidType(
            f"validation={validation!r}: expected a fraction of the rows (a number > 0 and < 1), "
            "(X, y) or (X, y, sample_weight)."
        ) from None
    held = round(n * fraction)
    if not 0 < held < n:
        raise InvalidArgument(
            f"validation={validation}: holds out {held} of {n} rows; both parts need at least one."
        )
    shuffled = permute(n, round_keys(seed, -1), 0, n)
    rows = shuffled.astype(index_dtype(n))
    return np.sort(rows[held:]), np.sort(rows[:held])


def check_training_part(
    targets: np.ndarray,
    weights: np.ndarray | None,
    classes: np.ndarray | None,
    rows: np.ndarray | None,
) -> None:
    """Raise DataError if what is left after holding rows out cannot be trained on."""
    if rows is None:
        return
    if weights is not None and not weights[rows].any():
        raise DataError(
            "validation: all rows with a weight above 0 are held out; use another seed."
        )
    if classes is None:
        return
    counts = np.bincount(arrays.class_numbers(targets[rows], classes), minlength=classes.size)
    if not counts.all():
        absent = classes.tolist()[int(np.argmin(counts))]
        raise DataError(
            f"validation: all rows with the label {absent!r} are held out; use a smaller fraction "
            "or another seed."
        )


def validation_label(validation: Any) -> Any:
    """How the configuration names the validation data."""
    if validation is None:
        return None
    return "given" if isinstance(validation, (tuple, list)) else float(validation)


def step_weights(
    the_order: orders.Order, weights: np.ndarray | None, rows: np.ndarray | None
) -> np.ndarray | None:
    """Weights of the samples within a step.

    Where the order draws rows by weight, each visit counts alike, with the mean weight of the
    training rows: the expected gradient is the same.
    """
    if weights is None or not isinstance(the_order, orders.weighted):
        return weights
    drawn = weights if rows is None else weights[rows]
    return np.full_like(weights, drawn.mean(dtype=np.float64))


def among_all_rows(values: np.ndarray | None, rows: np.ndarray | None, n: int) -> np.ndarray | None:
    """Values of the training rows at their places among all rows; 0 elsewhere."""
    if values is None or rows is None:
        return values
    spread = np.zeros(n, values.dtype)
    spread[rows] = values
    return spread


def order_facts(
    engine: Backend,
    n: int,
    batch_size: int,
    seed: int,
    targets: np.ndarray,
    weights: np.ndarray | None,
    rows: np.ndarray | None,
    row_bytes: int,
) -> orders.Facts:
    """What the order may know, restricted to the training rows."""
    if rows is not None:
        targets = targets[rows]
        weights = None if weights is None else weights[rows]
    labels = targets if targets.ndim == 1 else None
    return orders.Facts(n, batch_size, seed, labels, weights, engine.permute, engine.mix, row_bytes)


def visits_of(the_order: orders.Order, facts: orders.Facts) -> orders.Visits:
    """The order joined with the facts; indices of an order of the user's own are checked."""
    visits = the_order.bind(facts)
    if orders.ORDERS.rows.get(the_order.name) is type(the_order):
        return visits

    def checked(epoch: int, start: int, stop: int) -> np.ndarray:
        rows = check_rows(visits.indices(epoch, start, stop), facts.n, f"order={the_order}: rows")
        if rows.size != stop - start:
            raise InvalidArgument(
                f"order={the_order}: returned {rows.size} rows for positions {start} ... {stop}."
            )
        return rows

    return orders.Visits(visits.length, checked)


def warn_if_sorted(the_order: orders.Order, y: np.ndarray, rows: np.ndarray | None) -> None:
    """A sequential order over sorted labels learns one label after the other."""
    if not isinstance(the_order, orders.sequential) or y.ndim > 1:
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


def starting_point(
    init: Any, n_features: int, dtype: np.dtype[Any], n_outputs: int = 1
) -> np.ndarray:
    """Coefficients and intercept to start from."""
    if init is None:
        return np.zeros(n_outputs * (n_features + 1), dtype)
    if isinstance(init, Result):
        init = (init.coef, init.intercept)
    if not isinstance(init, (tuple, list)) or len(init) != 2:
        raise InvalidType(f"init={init!r}: expected a Result or a pair (coef, intercept).")
    coef, intercept = init
    return parameters(coef, intercept, n_features, dtype, "init: ", n_outputs)


def parameters(
    coef: Any,
    intercept: Any,
    n_features: int,
    dtype: np.dtype[Any],
    where: str = "",
    n_outputs: int = 1,
) -> np.ndarray:
    """Coefficients and intercept as one array, shape (n_outputs * (n_features + 1),)."""
    if n_outputs > 1:
        rows = np.empty((n_outputs, n_features + 1), dtype)
        rows[:, :-1] = arrays.as_parameters(
            coef, (n_outputs, n_features), f"{where}coef", "(n_outputs, n_features)", dtype
        )
        if isinstance(intercept, (int, float)) and intercept == 0:  # the default
            intercept = np.zeros(n_outputs)
        rows[:, -1] = arrays.as_parameters(
            intercept, (n_outputs,), f"{where}intercept", "(n_outputs,)", dtype
        )
        return rows.reshape(-1)
    theta = np.empty(n_features + 1, dtype)
    theta[:-1] = arrays.as_coefficients(coef, n_features, f"{where}coef", dtype)
    if isinstance(intercept, np.ndarray) and intercept.size == 1:
        intercept = intercept.item()
    number = check_number(f"{where}intercept", intercept, {})
    with np.errstate(over="ignore"):
        theta[-1] = number
    if not np.isfinite(theta[-1]):
        raise InvalidArgument(f"{where}intercept={intercept!r}: too large for {dtype}.")
    return theta


def checkpoint_facts(engine: Backend, checkpoint: Checkpoint, start: np.ndarray) -> dict[str, Any]:
    """What else must agree for a resumed run to end with the same bits."""
    if not isinstance(checkpoint, Checkpoint):
        raise InvalidType(f"checkpoint={checkpoint!r}: expected schuss.data.Checkpoint(path, ...).")
    check_writable(checkpoint.path, "checkpoint")
    facts = {"start": fingerprint(start)}
    if engine.name == "native":
        from schuss import _native

        facts["instruction_set"] = _native.instruction_set()
    return facts
