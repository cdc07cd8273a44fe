"""What scikit-learn's checks pass over: arrays they cannot read, misread, or leave unchecked."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from schuss.data.arrays import as_array
from schuss.data.sparse import is_sparse, sound
from schuss.errors import DataError, DataTypeError, InvalidType
from schuss.sklearn.attributes import MEANS

__all__ = ["in_dtype", "readable"]

# Attributes that hold weights.
PARAMETERS = ["coef_", "intercept_", "offset_", *MEANS]


def readable(value: Any, name: str, dates: bool = False) -> Any:
    """The value as scikit-learn's checks can judge it.

    Parameters
    ----------
    value : array-like, sparse matrix or data frame
    name : str
        What errors call it.
    dates : bool
        Whether dates may stand in it: as labels they may.

    Raises
    ------
    schuss.errors.InvalidType
        For masked arrays, whose masked entries would be trained on.
    schuss.errors.DataTypeError
        For dates and time spans, which would be trained on as numbers of their unit.
    schuss.errors.DataError
        For sparse rows whose indices lie outside, or that end before they begin.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidType(f"{name}: masked arrays are not accepted; fill or drop masked entries.")
    if is_sparse(value):
        return with_small_indices(sound(value, name))
    if hasattr(value, "__dlpack__"):
        value = as_array(value, name)
    dated = [] if dates else [dtype for dtype in dtypes_of(value) if is_temporal(dtype)]
    if dated:
        raise DataTypeError(
            f"{name}: dtype {dated[0]} is not accepted; turn dates into numbers that mean "
            "something, such as days since the first one."
        )
    return value


def dtypes_of(value: Any) -> list[Any]:
    """The dtypes of an array, or of the columns of a frame."""
    own = getattr(value, "dtype", None)
    if own is not None:
        return [own]
    columns = getattr(value, "dtypes", ())
    return list(columns) if np.iterable(columns) else [columns]


def is_temporal(dtype: Any) -> bool:
    """Whether a dtype of numpy, pandas or polars holds dates or time spans."""
    if hasattr(dtype, "is_temporal"):
        return bool(dtype.is_temporal())
    return getattr(dtype, "kind", None) in ("m", "M")


def with_small_indices(X: Any) -> Any:
    """Sparse rows with indices of 32 bits, which scikit-learn asks for, where those suffice."""
    largest = np.iinfo(np.int32).max
    if X.indptr.dtype == X.indices.dtype == np.int32 or max(X.indptr[-1], *X.shape) > largest:
        return X
    X = copy.copy(X)
    X.indices, X.indptr = X.indices.astype(np.int32), X.indptr.astype(np.int32)
    return X


def in_dtype(model: Any, X: Any, *more: np.ndarray) -> tuple[Any, ...]:
    """X and others in what the model computes in, and its weights too.

    By ``dtype="auto"`` that is the dtype of its weights: that of the data it began with.
    """
    dtype = np.dtype(model.coef_.dtype if model.dtype == "auto" else model.dtype)
    for name in PARAMETERS:
        weights = getattr(model, name, None)
        if weights is not None and weights.dtype != dtype:
            setattr(model, name, weights.astype(dtype))
    return tuple(_converted(array, dtype) for array in (X, *more))


def _converted(array: Any, dtype: np.dtype[Any]) -> Any:
    """The array in that dtype, in which its numbers have to be finite as well."""
    if array.dtype == dtype:
        return array
    with np.errstate(over="ignore"):
        made = array.astype(dtype)
    numbers = made.data if is_sparse(made) else made
    if not np.isfinite(numbers).all():
        raise DataError(f"numbers beyond {dtype}: expected at most {np.finfo(dtype).max:.3g}.")
    return made
