"""What is to be learned: a number, or one of several classes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from schuss.errors import DataError

if TYPE_CHECKING:
    from schuss.formulas.losses import Loss

__all__ = ["Task", "choose"]

MAX_CLASSES = 100
_MAX_GUESSED_CLASSES = 20
_ROWS_PER_GUESSED_CLASS = 5


@dataclass(frozen=True)
class Task:
    """What is to be learned.

    Attributes
    ----------
    loss : Loss
    y : ndarray of shape (n_rows,)
        Numbers, or labels in the type they are predicted in.
    classes : ndarray or None
        The labels, sorted; None where `y` is a quantity.
    """

    loss: Loss
    y: np.ndarray
    classes: np.ndarray | None

    @property
    def one_against_rest(self) -> bool:
        """Whether there is one model for each class: a loss of two classes meets more."""
        return self.loss.domain == "binary" and self.classes is not None and len(self.classes) > 2


def choose(target: str, y: np.ndarray, loss: str | None) -> tuple[Task, str | None]:
    """The task, and what to tell about a choice that was not the user's.

    Parameters
    ----------
    target : str
        Name of the target column.
    y : ndarray of shape (n_rows,)
        float64 or str.
    loss : str or None
        A name or text form. None chooses a loss of classes for text, for two values, and for whole
        numbers from 0 or 1 upwards without a gap that repeat (``log_loss`` for two classes,
        ``multinomial`` for more), and ``squared_error`` for other numbers.
    """
    from schuss import losses

    values = np.unique(y)
    told = None
    if loss is None:
        loss, told = _guess(target, y, values)
    chosen: Loss = losses.get(loss)
    if chosen.domain not in ("binary", "classes"):
        if y.dtype.kind == "U":
            raise DataError(
                f"the target {target!r} is text ({_examples(values)}), but --loss {chosen.name} "
                "needs numbers; for classes use --loss log_loss or multinomial"
            )
        return Task(chosen, y, None), told
    if len(values) < 2:
        raise DataError(
            f"the target {target!r} has one value only ({_examples(values)}): there is nothing to "
            f"tell apart with --loss {chosen.name}"
        )
    if len(values) > MAX_CLASSES:
        raise DataError(
            f"the target {target!r} has {len(values):,} distinct values; --loss {chosen.name} "
            f"takes them for classes, of which at most {MAX_CLASSES} are accepted"
        )
    if y.dtype.kind == "f" and _whole(values):
        y, values = y.astype(np.int64), values.astype(np.int64)
    return Task(chosen, y, values), told


def _guess(target: str, y: np.ndarray, values: np.ndarray) -> tuple[str, str]:
    """Name of a loss, and why."""
    if y.dtype.kind == "U" or len(values) == 2 or _look_like_classes(y, values):
        way = f"{len(values):,} classes ({_examples(values)})"
        loss = "multinomial" if len(values) > 2 else "log_loss"
        other = "; --loss squared_error takes it for a quantity" if y.dtype.kind == "f" else ""
        return loss, f"target {target!r} has {way}; loss {loss}{other}"
    if len(values) < 2:
        raise DataError(f"the target {target!r} is {values[0]:g} in every row")
    return "squared_error", f"target {target!r} is a quantity; loss squared_error"


def _look_like_classes(y: np.ndarray, values: np.ndarray) -> bool:
    """Whether numbers are class numbers: 0, 1, 2, ... or 1, 2, 3, ..., each many times."""
    return bool(
        2 < len(values) <= _MAX_GUESSED_CLASSES
        and len(y) >= _ROWS_PER_GUESSED_CLASS * len(values)
        and values[0] in (0, 1)
        and np.array_equal(values, values[0] + np.arange(len(values)))
    )


def _whole(values: np.ndarray) -> bool:
    return bool(np.array_equal(values, np.floor(values)) and np.abs(values).max() < 2**53)


def _examples(values: np.ndarray) -> str:
    """The first values, whole numbers without a point."""
    shown = values[:10]
    shown = shown.astype(np.int64) if shown.dtype.kind == "f" and _whole(shown) else shown
    left = len(values) - len(shown)
    return ", ".join(map(str, shown.tolist())) + (f" and {left:,} more" if left else "")
