"""What schuss raises: every error names the argument, the value received and what is accepted.

Each class derives from :class:`SchussError` and from the built-in exception one expects, so
``except ValueError`` and ``except schuss.errors.SchussError`` both work.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable
from typing import Any

__all__ = [
    "BackendError",
    "CheckpointError",
    "CheckpointWarning",
    "DataError",
    "DataTypeError",
    "DivergenceError",
    "InterruptedWarning",
    "InvalidArgument",
    "InvalidType",
    "MissingPackage",
    "NotYet",
    "ScalingWarning",
    "SchussError",
    "SchussWarning",
]


class SchussError(Exception):
    """Base of every error that schuss raises on purpose."""


class InvalidArgument(SchussError, ValueError):
    """An argument has a value that is not accepted."""


class InvalidType(SchussError, TypeError):
    """An argument has a type that is not accepted."""


class DataError(SchussError, ValueError):
    """The data (an array or a file) cannot be trained on as it is."""


class DataTypeError(DataError, TypeError):
    """An array's dtype is not accepted."""


class BackendError(SchussError, RuntimeError):
    """A backend was asked for by name and cannot be used; the message says why."""


class MissingPackage(SchussError, ImportError):
    """An optional package is needed; the message says how to install it."""


class NotYet(SchussError, NotImplementedError):
    """The argument is part of the interface but this version does not support it."""


class CheckpointError(SchussError, RuntimeError):
    """A checkpoint belongs to another run, or no readable one is left."""


class DivergenceError(SchussError, FloatingPointError):
    """Training produced a non-finite loss or coefficient and was stopped.

    Attributes
    ----------
    result : schuss.Result
        The last state in which every coefficient was finite.
    epoch : int
        Epoch of the step that diverged, counted from 0.
    step : int
        Number of the update that diverged, counted from 0 over the whole run.
    learning_rate : float
        Its learning rate.
    limit : float
        Measured stability limit of the learning rate for the batch size used.
    """

    result: Any = None
    epoch: int = 0
    step: int = 0
    learning_rate: float = float("nan")
    limit: float = float("nan")


class SchussWarning(UserWarning):
    """Base of every warning that schuss gives."""


class ScalingWarning(SchussWarning):
    """Columns of X differ so widely in scale that one learning rate cannot suit them all."""


class CheckpointWarning(SchussWarning):
    """A checkpoint could not be read and an older one is used instead."""


class InterruptedWarning(SchussWarning):
    """Training was interrupted; the result holds the state it had reached."""


def unknown_name(argument: str, value: object, accepted: Iterable[str]) -> InvalidArgument:
    """Error for a name that is in no table, with the nearest name suggested."""
    accepted = sorted(accepted)
    near = difflib.get_close_matches(str(value), accepted, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    names = ", ".join(accepted)
    return InvalidArgument(f"{argument}={value!r} is not known{hint}; accepted: {names}.")
