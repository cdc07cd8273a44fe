"""What our estimators take beyond scikit-learn's parameters, and the training that needs it.

Mini-batches, rules other than plain SGD, orders, clipping, and several outputs at once depart from
scikit-learn's loop, and are trained by :class:`schuss.sklearn.batched.Batches`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

import numpy as np
from sklearn.utils._param_validation import Interval, StrOptions

from schuss.backends import Backend, Problem, State
from schuss.checks import check_callbacks, order_facts, step_weights, visits_of
from schuss.data import order as orders
from schuss.data.order import Order
from schuss.data.sparse import CSR
from schuss.errors import InvalidArgument
from schuss.formulas import losses, rules
from schuss.formulas.losses import Loss
from schuss.formulas.rules import Rule
from schuss.history import History
from schuss.sklearn.batched import Batches
from schuss.sklearn.journal import COLUMNS, Journal, extended
from schuss.sklearn.training import Average, Outcome, formula_of, schedule_of, strength_of
from schuss.sklearn.watching import Epochs

__all__ = [
    "CONSTRAINTS",
    "SHARED",
    "check_departure",
    "departs",
    "history_of",
    "is_multinomial",
    "journal_of",
    "loss_of",
    "remember",
    "train_batches",
]

SHARED: dict[str, list[Any]] = {
    "dtype": [StrOptions({"auto", "float32", "float64"})],
    "callbacks": [callable, tuple, list],
    "backend": [StrOptions({"auto", "native", "jit", "reference"})],
    "threads": [Interval(Integral, 1, None, closed="left"), None],
    "intercept_decay": [StrOptions({"auto"}), Interval(Real, 0, 1, closed="right")],
}
CONSTRAINTS: dict[str, list[Any]] = {
    "batch_size": [Interval(Integral, 1, None, closed="left"), StrOptions({"full"})],
    "rule": [str, Rule],
    "order": [str, Order, None],
    "clip_norm": [Interval(Real, 0, None, closed="neither"), None],
    **SHARED,
}

# A batch of sparse rows may take so much where it is written out.
MOST_DENSE_BYTES = 1 << 31

PLAIN = rules.sgd()
parsed = lru_cache(maxsize=64)(rules.get)


def rule_of(model: Any) -> Rule:
    """The estimator's rule; its text is parsed once, not at each call of ``partial_fit``."""
    return parsed(model.rule) if isinstance(model.rule, str) else rules.get(model.rule)


def is_multinomial(model: Any) -> bool:
    """Whether all classes are trained together; two of them have one margin as with "ovr"."""
    together = getattr(model, "multi_class", "ovr") == "multinomial"
    return together and len(getattr(model, "classes_", ())) > 2


def loss_of(model: Any) -> Loss:
    """Schuss's loss of the estimator's ``loss``, ``epsilon`` and ``multi_class``."""
    if is_multinomial(model):
        return losses.multinomial()
    return formula_of(model.loss, model.epsilon)


def departs(model: Any) -> bool:
    """Whether the model asks for other steps than scikit-learn's, one for each row."""
    return hasattr(model, "batch_size") and (
        model.batch_size != 1
        or model.order is not None
        or model.clip_norm is not None
        or getattr(model, "multi_class", "ovr") == "multinomial"
        or rule_of(model) != PLAIN
    )


def check_departure(model: Any) -> None:
    """Raise InvalidArgument for what has a meaning in scikit-learn's loop alone."""
    if model.learning_rate in ("pa1", "pa2"):
        raise InvalidArgument(
            f"learning_rate={model.learning_rate!r}: a passive-aggressive step is one of a single "
            "row and a single output; expected batch_size=1, rule='sgd', order=None and "
            "clip_norm=None, or another learning_rate."
        )
    if model.intercept_decay not in ("auto", 1):
        raise InvalidArgument(
            f"intercept_decay={model.intercept_decay!r}: is one of scikit-learn's steps; expected "
            "one output, batch_size=1, rule='sgd', order=None and clip_norm=None, or 'auto'."
        )
    if model.penalty in ("l1", "elasticnet") and not rule_of(model).proximal:
        raise InvalidArgument(
            f"penalty={model.penalty!r}: an L1 penalty needs rule='sgd'; {model.rule} scales each "
            "weight's step by itself, and the proximal step with it."
        )
    if getattr(model, "multi_class", "ovr") == "multinomial" and model.loss != "log_loss":
        raise InvalidArgument(
            f"multi_class='multinomial' is a model of probabilities: expected loss='log_loss', got "
            f"{model.loss!r}."
        )


def check_dense_size(model: Any, size: int, rows: CSR) -> None:
    """Raise InvalidArgument if a batch of sparse rows is too large to be written out."""
    width, most = rows.shape[1], MOST_DENSE_BYTES // rows.dtype.itemsize
    if size * width > most:
        raise InvalidArgument(
            f"batch_size={model.batch_size!r}: sparse rows of several outputs are written out a "
            f"batch at a time, and {size} rows of {width} columns take "
            f"{size * width * rows.dtype.itemsize / 2**30:.1f} GiB; expected 1 ... {most // width}."
        )


# ---- What is remembered from call to call ----


def history_of(model: Any) -> History:
    """What goes on from the history under ``partial_fit``; a new one in ``fit``."""
    going_on = model.t_ > 1 and hasattr(model, "history_")
    return model.history_.fork() if going_on else History(COLUMNS)


def journal_of(model: Any, rows: int, k: int = 0, n_outputs: int = 1) -> Journal:
    """What records a training over so many rows; of several classes, each has its own."""
    history, before = history_of(model), None
    if n_outputs == 1 and len(getattr(model, "classes_", ())) > 2:
        history, before = History(COLUMNS), history.last
    callbacks = check_callbacks(model.callbacks)
    epochs = None if model._watch is None else Epochs(model._watch, model, k)
    return Journal(rows, history, before, callbacks, model.verbose, n_outputs, epochs, model._asked)


def remember(model: Any, made: Sequence[Outcome], together: bool = False) -> None:
    """Keep what the next call goes on from: history, and the rule's memory.

    ``together`` says whether one pass over the rows has trained all of them.
    """
    if len(made) == 1:
        model.history_ = made[0].history
    else:
        model.history_ = extended(history_of(model), [one.history for one in made], together)
    slots = [one.slots for one in made]
    if slots[0] is not None:
        model._memory = (rule_of(model), slots)
    elif hasattr(model, "_memory"):
        del model._memory


def state_of(model: Any, theta: np.ndarray, row: int) -> State:
    """Where training goes on from, with what the rule remembers of earlier calls."""
    rule = rule_of(model)
    state = State.start(theta, rule, model.clip_norm or 0.0)
    state.step = int(model.t_) - 1
    kept = getattr(model, "_memory", None)
    if state.step and kept is not None and kept[0] == rule:
        slots = kept[1][min(row, len(kept[1]) - 1)]
        if slots.shape == state.slots.shape:  # as long as outputs train together, or apart, as then
            state.slots[:] = slots
    return state


# ---- Training ----


def on_held_out(callback: Any, n_outputs: int) -> Callable[[np.ndarray], float] | None:
    """scikit-learn's score of held-out rows, as a function of parameters of any outputs."""
    if callback is None:
        return None

    def score(theta: np.ndarray) -> float:
        rows = theta.reshape(n_outputs, -1)
        model = callback.estimator
        model.coef_, model.intercept_ = rows[:, :-1], rows[:, -1]
        return float(model.score(callback.X_val, callback.y_val, callback.sample_weight_val))

    return score


def train_batches(
    model: Any,
    engine: Backend,
    rows: Any,
    y: np.ndarray,
    weights: np.ndarray | None,
    start: np.ndarray,
    average: Average | None,
    max_iter: int,
    held_out: np.ndarray,
    score: Any,
    seed: int,
    row: int = 0,
) -> Outcome:
    """Train the outputs of ``start`` together, and the mean of their iterates."""
    among = np.flatnonzero(~held_out) if held_out.any() else None
    n = rows.shape[0] if among is None else among.size
    size = n if model.batch_size == "full" else min(int(model.batch_size), n)
    # A step over all rows is the same in any order.
    default = orders.shuffle() if model.shuffle and size < n else orders.sequential()
    order = default if model.order is None else orders.get(model.order)
    n_outputs = start.size // (rows.shape[1] + 1)
    if isinstance(rows, CSR) and n_outputs > 1:
        check_dense_size(model, size, rows)
    problem = Problem(
        rows,
        y,
        step_weights(order, weights, among),
        loss_of(model),
        strength_of(model.penalty, model.alpha, model.l1_ratio),
        bool(model.fit_intercept),
        n_outputs,
    )
    facts = order_facts(engine, n, size, seed, y, weights, among, rows.nbytes // rows.shape[0])
    batches = Batches(
        engine,
        problem,
        among,
        size,
        visits_of(order, facts),
        schedule_of(model.learning_rate, model.eta0, model.power_t, model.alpha),
        model.learning_rate == "adaptive",
        int(model.n_iter_no_change),
        -np.inf if model.tol is None else model.tol,
        on_held_out(score, n_outputs),
    )
    state = state_of(model, start.astype(y.dtype), row)
    journal = journal_of(model, n, row, n_outputs)
    first = int(history_of(model).last.get("epoch", 0))
    return batches.run(state, max_iter, journal, average, first)
