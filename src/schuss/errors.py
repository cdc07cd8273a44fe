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
    "TensorError",
    "UnknownCategoryWarning",
]


class SchussError(Exception):
    """Base of every error that schuss raises on purpose.

    Examples
    --------
    >>> import schuss
    >>> try:
    ...     schuss.fit([[1.0], [2.0]], [1.0, 2.0], loss="hubert")
    ... except schuss.errors.SchussError as error:
    ...     print(str(error).split(";")[0])
    loss='hubert' is not known (did you mean 'huber'?)
    """


class InvalidArgument(SchussError, ValueError):
    """An argument has a value that is not accepted.

    Examples
    --------
    >>> import schuss
    >>> schuss.fit([[1.0], [2.0]], [1.0, 2.0], batch_size=0)
    Traceback (most recent call last):
        ...
    schuss.errors.InvalidArgument: batch_size=0: expected an integer ...
    """


class InvalidType(SchussError, TypeError):
    """An argument has a type that is not accepted.

    Examples
    --------
    >>> import schuss
    >>> schuss.fit([[1.0], [2.0]], [1.0, 2.0], epochs=1.5)
    Traceback (most recent call last):
        ...
    schuss.errors.InvalidType: epochs=1.5: expected an integer ...
    """


class DataError(SchussError, ValueError):
    """The data (an array or a file) cannot be trained on as it is.

    Examples
    --------
    >>> import schuss
    >>> schuss.fit([[1.0], [float("nan")]], [1.0, 2.0])
    Traceback (most recent call last):
        ...
    schuss.errors.DataError: X[1, 0] is nan: NaN and infinity are not accepted; ...
    """


class DataTypeError(DataError, TypeError):
    """An array's dtype is not accepted.

    Examples
    --------
    >>> import schuss
    >>> schuss.fit([[1j], [2j]], [1.0, 2.0])
    Traceback (most recent call last):
        ...
    schuss.errors.DataTypeError: X: dtype complex128 is not accepted ...
    """


class BackendError(SchussError, RuntimeError):
    """A backend was asked for by name and cannot be used; the message says why.

    Examples
    --------
    >>> import schuss
    >>> schuss.fit([[1.0], [2.0]], [1.0, 2.0], backend="cuda")
    Traceback (most recent call last):
        ...
    schuss.errors.BackendError: backend='cuda' cannot be used: ...
    """


class MissingPackage(SchussError, ImportError):
    """An optional package is needed; the message says how to install it.

    Examples
    --------
    >>> import schuss
    >>> def loss_curve(history):
    ...     try:
    ...         return history.to_pandas().set_index("epoch").train_loss
    ...     except schuss.errors.MissingPackage:  # pandas is not installed
    ...         return dict(zip(history.epoch, history.train_loss))
    >>> len(loss_curve(schuss.fit([[1.0], [2.0]], [1.0, 2.0]).history))
    10
    """


class NotYet(SchussError, NotImplementedError):
    """The argument is part of the interface but this version does not support it.

    Examples
    --------
    >>> import schuss
    >>> schuss.fit([[1.0], [2.0]], [1.0, 2.0], comm="mpi")
    Traceback (most recent call last):
        ...
    schuss.errors.NotYet: comm='mpi': data-parallel training is not supported yet; leave it None.
    """


class CheckpointError(SchussError, RuntimeError):
    """A checkpoint belongs to another run, or no readable one is left.

    Examples
    --------
    >>> import os, tempfile, schuss
    >>> path = os.path.join(tempfile.mkdtemp(), "run.ckpt")
    >>> checkpoint = schuss.data.Checkpoint(path, every=100)
    >>> _ = schuss.fit([[1.0], [2.0]], [1.0, 2.0], checkpoint=checkpoint)
    >>> schuss.fit([[1.0], [2.0]], [1.0, 2.0], alpha=0.1, checkpoint=checkpoint)
    Traceback (most recent call last):
        ...
    schuss.errors.CheckpointError: checkpoint '...' belongs to another run: ...
    """


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

    Examples
    --------
    >>> import numpy as np, schuss
    >>> X = np.random.default_rng(0).normal(size=(1000, 3))
    >>> try:
    ...     schuss.fit(X, X.sum(axis=1), learning_rate=10.0, epochs=1000)
    ... except schuss.errors.DivergenceError as error:
    ...     error.learning_rate > error.limit, np.isfinite(error.result.coef).all()
    (True, np.True_)
    """

    result: Any = None
    epoch: int = 0
    step: int = 0
    learning_rate: float = float("nan")
    limit: float = float("nan")


class SchussWarning(UserWarning):
    """Base of every warning that schuss gives.

    Examples
    --------
    Treat what schuss warns of as errors.

    >>> import warnings, schuss
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", schuss.errors.SchussWarning)
    ...     result = schuss.fit([[1.0], [2.0]], [1.0, 2.0])
    """


class ScalingWarning(SchussWarning):
    """Columns of X differ so widely in scale that one learning rate cannot suit them all.

    Examples
    --------
    >>> import warnings, schuss
    >>> X = [[1.0, 1e4], [2.0, 3e4], [3.0, 2e4]]
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     result = schuss.fit(X, [1.0, 2.0, 3.0])
    >>> caught[0].category.__name__
    'ScalingWarning'
    """


class CheckpointWarning(SchussWarning):
    """A checkpoint could not be read and an older one is used instead.

    Examples
    --------
    >>> import os, tempfile, warnings, schuss
    >>> path = os.path.join(tempfile.mkdtemp(), "run.ckpt")
    >>> checkpoint = schuss.data.Checkpoint(path, every=5)
    >>> _ = schuss.fit([[1.0], [2.0]], [1.0, 2.0], checkpoint=checkpoint, record_every=5)
    >>> with open(path, "wb") as file:
    ...     _ = file.write(b"not a checkpoint")
    >>> with warnings.catch_warnings(record=True) as caught:
    ...     warnings.simplefilter("always")
    ...     _ = schuss.fit([[1.0], [2.0]], [1.0, 2.0], checkpoint=checkpoint, record_every=5)
    >>> caught[0].category.__name__
    'CheckpointWarning'
    """


class InterruptedWarning(SchussWarning):
    """Training was interrupted; the result holds the state it had reached.

    Examples
    --------
    A script that would rather stop than go on with half a model:

    >>> import warnings, schuss
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("error", schuss.errors.InterruptedWarning)
    ...     result = schuss.fit([[1.0], [2.0]], [1.0, 2.0])
    >>> result.stop_reason
    'epochs'
    """


class TensorError(SchussError, RuntimeError):
    """An optimizer of schuss.torch cannot take a tensor of this kind.

    Examples
    --------
    >>> import schuss
    >>> issubclass(schuss.errors.TensorError, RuntimeError)  # as what torch raises
    True
    """


class UnknownCategoryWarning(SchussWarning):
    """Text holds a value that did not occur in the training rows; it counts as no category.

    Examples
    --------
    A service that would rather refuse such rows, with a model that ``schuss train`` saved:

    >>> import warnings, schuss
    >>> def predict(model, rows):
    ...     with warnings.catch_warnings():
    ...         warnings.simplefilter("error", schuss.errors.UnknownCategoryWarning)
    ...         return model.predict(rows)
    >>> predict(schuss.fit([[1.0], [2.0]], [1.0, 2.0]), [[1.5]]).shape
    (1,)
    """


def unknown_name(argument: str, value: object, accepted: Iterable[str]) -> InvalidArgument:
    """Error for a name that is in no table, with the nearest name suggested."""
    accepted = sorted(accepted)
    near = difflib.get_close_matches(str(value), accepted, n=1)
    hint = f" (did you mean {near[0]!r}?)" if near else ""
    names = ", ".join(accepted)
    return InvalidArgument(f"{argument}={value!r} is not known{hint}; accepted: {names}.")
