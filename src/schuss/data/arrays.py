"""Checks at the boundary: what a caller passes becomes arrays that kernels can trust.

Nothing a caller passes is ever written. An array that kernels cannot read as it is (non-contiguous,
negative strides, misaligned, another dtype) is copied once, and the log says so.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import numpy as np

from schuss.errors import DataError, DataTypeError, InvalidArgument, InvalidType
from schuss.formulas.spec import check_number

__all__ = [
    "as_array",
    "as_class_numbers",
    "as_coefficients",
    "as_labels",
    "as_matrix",
    "as_parameters",
    "as_targets",
    "as_vector",
    "as_weights",
    "by_class",
    "check_finite",
    "class_numbers",
    "class_weights",
    "first_not_finite",
    "is_narrow",
    "numeric",
    "parameter_dtype",
    "resolve_dtype",
    "widened",
]

log = logging.getLogger("schuss")

FLOATS = (np.dtype(np.float32), np.dtype(np.float64))
ACCEPTED = "float32, float64, float16, bfloat16, integer or bool"
NARROW = ("bfloat16", "float16")
# Elements looked at together when searching for NaN and infinity: bounds the memory it takes.
CHUNK = 1 << 20


def resolve_dtype(dtype: Any) -> np.dtype[Any] | None:
    """float32 or float64 from the ``dtype`` argument, None if not given."""
    if dtype is None:
        return None
    try:
        found = np.dtype(dtype)
    except (TypeError, ValueError):
        found = np.dtype(object)
    if found not in FLOATS:
        raise InvalidArgument(f"dtype={dtype!r}: expected None, 'float32' or 'float64'.")
    return found


def is_narrow(array: Any) -> bool:
    """Whether an array holds 16-bit floating-point numbers (bfloat16 is that of ml_dtypes)."""
    return array.dtype.name in NARROW


def parameter_dtype(matrix: Any) -> np.dtype[Any]:
    """The dtype that a model of X computes in: float32 where X is stored in 16 bits."""
    return np.dtype(np.float32) if is_narrow(matrix) else np.dtype(matrix.dtype)


def widened(matrix: np.ndarray) -> np.ndarray:
    """The matrix in float32 where it is stored in 16 bits; else as it is."""
    if not is_narrow(matrix):
        return matrix
    log.debug("X: copied once to a C-contiguous array of float32")
    return matrix.astype(np.float32)


def as_array(value: Any, name: str) -> np.ndarray:
    """Return an array of any dtype and shape; nothing is copied that need not be."""
    if isinstance(value, np.ma.MaskedArray):
        raise InvalidType(f"{name}: masked arrays are not accepted; fill or drop masked entries.")
    if hasattr(value, "tocsr"):
        raise InvalidType(f"{name}: is a sparse matrix; pass {name}.toarray().")
    if isinstance(value, np.ndarray):
        return np.asarray(value)
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        return np.asarray(value)
    except (ValueError, TypeError, RuntimeError, BufferError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{name}: cannot be read as an array ({reason}).") from None


def numeric(array: np.ndarray, name: str, dtype: np.dtype[Any] | None) -> np.ndarray:
    """The array in float32 or float64, C-contiguous and aligned; copied only if it must be."""
    kind = "f" if is_narrow(array) else array.dtype.kind
    if kind not in "fiub":
        hint = {
            "c": "; pass the real and imaginary parts as columns",
            "O": "; convert it, e.g. astype(float)",
            "U": "; encode text as numbers first",
            "S": "; encode text as numbers first",
        }.get(kind, "")
        raise DataTypeError(f"{name}: dtype {array.dtype} is not accepted ({ACCEPTED}){hint}.")
    if dtype is None:
        small = array.dtype.newbyteorder("=") == np.float32 or array.dtype.itemsize == 2
        dtype = np.dtype(np.float32 if kind == "f" and small else np.float64)
    if kind == "f" and array.dtype.itemsize > dtype.itemsize:
        with np.errstate(over="ignore"):  # becomes infinite and is reported as such
            ready = np.require(array, dtype, ["C", "A"])
    else:
        ready = np.require(array, dtype, ["C", "A"])
    if not np.may_share_memory(ready, array) and array.size:
        log.debug("%s: copied once to a C-contiguous array of %s", name, dtype)
    return ready


def first_not_finite(array: np.ndarray) -> int | None:
    """Place in the flattened array of the first number that is NaN or infinite."""
    flat = array.reshape(-1)
    for start in range(0, flat.size, CHUNK):
        chunk = flat[start : start + CHUNK]
        with np.errstate(over="ignore", invalid="ignore"):
            total = chunk.sum(dtype=np.float32 if chunk.itemsize == 2 else None)
        if np.isfinite(total):
            continue
        bad = np.flatnonzero(~np.isfinite(chunk))
        if bad.size:
            return start + int(bad[0])
    return None


def check_finite(array: np.ndarray, name: str) -> None:
    """Raise DataError with the first position that is NaN or infinite."""
    first = first_not_finite(array)
    if first is not None:
        where = [int(k) for k in np.unravel_index(first, array.shape)]
        place = ", ".join(map(str, where))
        raise DataError(
            f"{name}[{place}] is {array[tuple(where)]}: NaN and infinity are not accepted; "
            "drop or impute such rows."
        )


def as_matrix(
    X: Any, dtype: np.dtype[Any] | None = None, name: str = "X", narrow: bool = False
) -> np.ndarray:
    """Return X as a C-contiguous float32 or float64 array of shape (n_samples, n_features).

    With ``narrow``, and no ``dtype`` asked for, X of 16-bit numbers stays as it is stored.
    """
    array = as_array(X, name)
    if array.ndim != 2:
        hint = (
            f"; for a single column pass {name}.reshape(-1, 1), for a single row "
            f"{name}.reshape(1, -1)"
            if array.ndim == 1
            else ""
        )
        raise DataError(
            f"{name}: expected two dimensions (n_samples, n_features), got shape {array.shape}"
            f"{hint}."
        )
    if 0 in array.shape:
        what = "rows" if array.shape[0] == 0 else "columns"
        raise DataError(f"{name}: has no {what} (shape {array.shape}).")
    if narrow and dtype is None and is_narrow(array):
        dtype = array.dtype.newbyteorder("=")
    matrix = numeric(array, name, dtype)
    check_finite(matrix, name)
    return matrix


def as_vector(v: Any, n: int, name: str, dtype: np.dtype[Any]) -> np.ndarray:
    """Return a finite vector of length ``n`` in ``dtype``."""
    array = _one_dimension(v, n, name)
    vector = numeric(array, name, dtype)
    check_finite(vector, name)
    return vector


def as_coefficients(w: Any, n_features: int, name: str, dtype: np.dtype[Any]) -> np.ndarray:
    """Return finite coefficients, one per column of X, in ``dtype``."""
    array = as_array(w, name)
    if array.shape != (n_features,):
        raise DataError(
            f"{name}: has shape {array.shape} but X has {n_features} columns; expected "
            f"({n_features},)."
        )
    coef = numeric(array, name, dtype)
    check_finite(coef, name)
    return coef


def as_parameters(
    v: Any, shape: tuple[int, ...], name: str, axes: str, dtype: np.dtype[Any]
) -> np.ndarray:
    """Return finite parameters of several outputs, in ``dtype``."""
    array = as_array(v, name)
    if array.shape != shape:
        raise DataError(f"{name}: has shape {array.shape}; expected {axes} = {shape}.")
    parameters = numeric(array, name, dtype)
    check_finite(parameters, name)
    return parameters


def _one_dimension(v: Any, n: int, name: str, columns: str = "") -> np.ndarray:
    """The array, with one entry per row; ``columns`` says what to do about several columns."""
    array = as_array(v, name)
    if array.ndim == 2 and array.shape[1] > 1 and columns:
        raise DataError(f"{name}: expected one dimension, got shape {array.shape}{columns}.")
    if array.ndim != 1:
        hint = f"; pass {name}.ravel()" if array.ndim == 2 else ""
        raise DataError(f"{name}: expected one dimension, got shape {array.shape}{hint}.")
    if array.shape[0] != n:
        raise DataError(f"{name}: has {array.shape[0]} entries but X has {n} rows.")
    return array


def as_targets(
    y: Any, n: int, dtype: np.dtype[Any], domain: str, loss: str, name: str = "y"
) -> np.ndarray:
    """Return y for a loss on numbers (domain real or nonnegative).

    Its shape is (n,), or (n, n_outputs) for two outputs or more.
    """
    array = as_array(y, name)
    if array.ndim != 2 or array.shape[1] < 2:
        array = _one_dimension(array, n, name)
    elif array.shape[0] != n:
        raise DataError(f"{name}: has {array.shape[0]} rows but X has {n} rows.")
    if array.dtype.kind in "OUS":
        raise DataTypeError(
            f"{name}: dtype {array.dtype} is not accepted by loss={loss!r} ({ACCEPTED}); "
            "class labels need a classification loss such as 'log_loss'."
        )
    targets = numeric(array, name, dtype)
    check_finite(targets, name)
    if domain == "nonnegative" and (targets < 0).any():
        k = tuple(int(i) for i in np.argwhere(targets < 0)[0])
        place = ", ".join(map(str, k))
        raise DataError(f"{name}[{place}] is {targets[k]}: loss={loss!r} accepts numbers >= 0.")
    return targets


def as_labels(
    y: Any,
    n: int,
    dtype: np.dtype[Any],
    loss: str,
    classes: np.ndarray | None = None,
    name: str = "y",
) -> tuple[np.ndarray, np.ndarray]:
    """Return y as -1 and +1, and the two classes; ``classes`` are those of the training labels."""
    found, member = _labels(y, n, classes, name)
    if found.size != 2:
        hint = ""
        if found.size > 2:
            hint = "; more than two classes need loss='multinomial'"
        raise DataError(
            f"{name}: loss={loss!r} accepts exactly two label values, got {_listed(found)}{hint}."
        )
    return np.where(member == 1, 1, -1).astype(dtype), found


def as_class_numbers(
    y: Any,
    n: int,
    dtype: np.dtype[Any],
    loss: str,
    classes: np.ndarray | None = None,
    name: str = "y",
) -> tuple[np.ndarray, np.ndarray]:
    """Return y as numbers of classes, and the classes, two or more; see :func:`as_labels`."""
    found, member = _labels(y, n, classes, name)
    if found.size < 2:
        raise DataError(
            f"{name}: loss={loss!r} accepts two or more label values, got {_listed(found)}."
        )
    fractions = found.dtype.kind == "f" and bool((found != np.floor(found)).any())
    if fractions and found.size > max(2, n // 2):
        raise DataError(
            f"{name}: has {found.size} distinct values in {n} rows; loss={loss!r} accepts class "
            "labels, not a continuous target."
        )
    return member.astype(dtype), found


def class_numbers(y: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Return the number of each row's class; y holds -1 and +1, or numbers of classes."""
    return np.asarray(y > 0 if classes.size == 2 else y, dtype=np.intp)


def _listed(found: np.ndarray) -> str:
    """How many label values, and the first of them."""
    shown = ", ".join(repr(label) for label in found[:5].tolist())
    return f"{found.size} ({shown}{', ...' if found.size > 5 else ''})"


def _labels(y: Any, n: int, classes: np.ndarray | None, name: str) -> tuple[np.ndarray, np.ndarray]:
    """The label values in sorted order (those of training, where given), and each row's number."""
    array = _one_dimension(y, n, name, "; labels are one column, not one for each class")
    if array.dtype.kind == "c":
        raise DataTypeError(f"{name}: complex labels have no order; use numbers or text.")
    if array.dtype.kind == "f":
        check_finite(array, name)
    try:
        found, member = np.unique(array, return_inverse=True)
    except TypeError:
        raise DataTypeError(
            f"{name}: labels of mixed types (or missing ones) cannot be sorted; use one type."
        ) from None
    missing = found != found  # NaN and NaT differ from themselves
    if missing.any():
        raise DataError(f"{name}: {found[missing][0]!r} is not a label; drop such rows.")
    if classes is not None:
        unknown = [label for label in found.tolist() if label not in classes.tolist()]
        if unknown:
            raise DataError(
                f"{name}: label {unknown[0]!r} was not among the classes {classes.tolist()}."
            )
        member = np.searchsorted(classes, found)[member]
        found = classes
    return found, member


def as_weights(
    w: Any, n: int, dtype: np.dtype[Any], name: str = "sample_weight"
) -> np.ndarray | None:
    """Return sample weights, or None where none are given."""
    if w is None:
        return None
    weights = as_vector(w, n, name, dtype)
    if (weights < 0).any():
        k = int(np.flatnonzero(weights < 0)[0])
        raise DataError(f"{name}[{k}] is {weights[k]}: expected numbers >= 0.")
    if not weights.any():
        raise DataError(f"{name}: all weights are zero.")
    return weights


def class_weights(
    class_weight: Any,
    y: np.ndarray,
    classes: np.ndarray | None,
    rows: np.ndarray | None = None,
) -> tuple[float, ...] | None:
    """Return the weight of each class; y holds -1 and +1, or numbers of classes.

    "balanced" counts the training rows, ``rows``, where others are held out.
    """
    if class_weight is None:
        return None
    if classes is None:
        raise InvalidArgument("class_weight: only a classification loss has classes.")
    if isinstance(class_weight, str) and class_weight == "balanced":
        counted = class_numbers(y if rows is None else y[rows], classes)
        counts = np.bincount(counted, minlength=classes.size)
        if not counts.all():
            absent = classes.tolist()[int(np.argmin(counts))]
            raise DataError(f"class_weight='balanced': no training row has the label {absent!r}.")
        each = counted.size / (classes.size * counts)
    elif isinstance(class_weight, Mapping):
        labels = classes.tolist()
        unknown = [label for label in class_weight if label not in labels]
        if unknown:
            raise InvalidArgument(
                f"class_weight: {unknown[0]!r} is not a class; the classes are {labels}."
            )
        for label, weight in class_weight.items():
            check_number(f"class_weight[{label!r}]", weight, {">=": 0.0})
        each = np.array([float(class_weight.get(label, 1.0)) for label in labels])
        if not each.any():
            raise InvalidArgument(f"class_weight={class_weight!r}: all weights are zero.")
    else:
        raise InvalidType(
            f"class_weight={class_weight!r}: expected None, 'balanced' or a dict from class to "
            "weight."
        )
    return tuple(each.tolist())


def by_class(each: tuple[float, ...] | None, y: np.ndarray) -> np.ndarray | None:
    """Return each row's class weight, given that of each class; y as for :func:`class_weights`."""
    if each is None:
        return None
    weights = np.array(each)
    return weights[class_numbers(y, weights)].astype(y.dtype)
