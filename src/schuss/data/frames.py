"""Raw columns held in memory, as the tables an encoder reads.

What a file's reader decides for the cells of a file is decided here for the values of a data frame,
a dict of columns or an array: which of them are numbers, text, or missing.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from schuss.data.arrays import as_array
from schuss.data.preprocess import Categories, Encoder, Number
from schuss.data.tables import MISSING, Column, Numbers, Other, Table, Text, listing
from schuss.errors import DataError

__all__ = ["as_table"]


def as_table(X: Any, encoder: Encoder) -> Table:
    """The columns that an encoder needs, from raw data in memory.

    Parameters
    ----------
    X : pandas or polars DataFrame, dict of columns, or array of shape (n_rows, n_columns)
        Columns with names may stand in any order, and further ones are ignored. Those of an array
        are the raw columns in the order of training.
    encoder : Encoder

    Returns
    -------
    Table

    Raises
    ------
    schuss.errors.DataError
        A column is missing, columns differ in length, or the array has another number of them.
    """
    found = _by_name(X, encoder)
    if found is None:
        found = _by_position(X, encoder)
    lengths = {len(values) for values in found.values()}
    if len(lengths) > 1:
        shown = ", ".join(f"{name!r} {len(values)}" for name, values in found.items())
        raise DataError(f"X: columns differ in length ({shown}).")
    if lengths == {0}:
        raise DataError("X: has no rows.")
    columns = {
        feature.name: _column(feature, found[feature.name], encoder)
        for feature in encoder.features
        if feature.name in found
    }
    return Table("X", lengths.pop() if lengths else 0, columns)


def _by_name(X: Any, encoder: Encoder) -> dict[str, np.ndarray] | None:
    """The needed columns of a data frame or dict, or None where columns have no names."""
    if isinstance(X, Mapping):
        names = list(X)
    elif hasattr(X, "columns") and hasattr(X, "__getitem__"):
        # pyarrow's tables have the names apart from the columns.
        names = list(getattr(X, "column_names", X.columns))
    else:
        return None
    keys = {str(name): name for name in names}
    values = {name: X[keys[name]] for name in encoder.columns if name in keys}
    return {name: _vector(column, name) for name, column in values.items()}


def _by_position(X: Any, encoder: Encoder) -> dict[str, np.ndarray]:
    """The columns of an array, in the order of training."""
    # Rows of numbers and text in a list would all become text.
    array = as_array(np.array(X, dtype=object) if isinstance(X, (list, tuple)) else X, "X")
    names = encoder.columns
    if array.ndim != 2:
        raise DataError(
            f"X: expected a data frame, a dict of columns, or two dimensions (n_samples, "
            f"{len(names)}), got shape {array.shape}."
        )
    if array.shape[1] != len(names):
        raise DataError(
            f"X: has {array.shape[1]} columns, the model was trained on {len(names)}: "
            f"{listing(names)}. Pass them raw, as they were in the data file: the model encodes "
            "and scales them itself."
        )
    return {name: array[:, k] for k, name in enumerate(names)}


def _vector(values: Any, name: str) -> np.ndarray:
    array: np.ndarray = as_array(values, f"X[{name!r}]")
    if array.ndim != 1:
        raise DataError(f"X[{name!r}]: expected one dimension, got shape {array.shape}.")
    return array


def _column(feature: Number | Categories, values: np.ndarray, encoder: Encoder) -> Column:
    name, kind = feature.name, values.dtype.kind
    if kind == "b" and isinstance(feature, Categories):
        return _text(feature, _truth(feature, values), encoder)
    if kind in "fiub":
        return Numbers(name, values if kind == "f" else values.astype(np.float64))
    if kind in "UT":
        return _text(feature, values.astype(object), encoder)
    if kind != "O":
        return Other(name, f"values of type {values.dtype}")
    absent = np.array([_is_missing(value) for value in values])
    present = values[~absent]
    if all(isinstance(value, str) for value in present) and present.size:
        return _text(feature, np.where(absent, "", values), encoder)
    if all(isinstance(value, (bool, np.bool_)) for value in present) and isinstance(
        feature, Categories
    ):
        present = _truth(feature, present)
        filled = np.full(values.shape, "", dtype=object)
        filled[~absent] = present
        return _text(feature, filled, encoder)
    numbers = np.full(values.shape, np.nan)
    try:
        if any(isinstance(value, str) for value in present):
            raise ValueError
        numbers[~absent] = [float(value) for value in present]
    except (TypeError, ValueError):
        types = sorted({type(value).__name__ for value in present})
        return Other(name, f"values of type {' and '.join(types)}")
    return Numbers(name, numbers)


def _is_missing(value: Any) -> bool:
    """Whether a value is None, NaN, or pandas' own sign for a missing one."""
    if value is None:
        return True
    try:
        return bool(value != value)
    except TypeError:  # pandas.NA is neither equal to itself nor different
        return True


def _truth(feature: Categories, values: np.ndarray) -> np.ndarray:
    """Truth values in the spelling that the training file had."""
    spelled = {category.lower(): category for category in feature.categories}
    return np.array([spelled.get(str(bool(v)).lower(), str(bool(v))) for v in values], dtype=object)


def _text(feature: Number | Categories, values: np.ndarray, encoder: Encoder) -> Column:
    """Text as the readers of files see it: without blanks around, and with its missing values."""
    absent = {*MISSING, *encoder.missing}
    distinct: dict[str, int] = {}
    codes = np.empty(len(values), dtype=np.int32)
    for row, value in enumerate(values):
        cell = value.strip()
        codes[row] = -1 if cell in absent else distinct.setdefault(cell, len(distinct))
    if not distinct:
        return Numbers(feature.name, np.full(len(values), np.nan))
    return Text(feature.name, codes, list(distinct))
