"""Sparse rows: the matrices of scipy.sparse, checked and brought into the form kernels trust.

scipy is never imported: what a caller passes brings the methods that are needed.
"""

from __future__ import annotations

import copy
import dataclasses
import logging
from typing import Any

import numpy as np

from schuss.data import arrays
from schuss.errors import DataError, DataTypeError

__all__ = ["CSR", "as_csr", "as_rows", "is_sparse", "sound"]

log = logging.getLogger("schuss")

# Entries looked at together: bounds the memory that checks and products take.
CHUNK = 1 << 18


@dataclasses.dataclass(frozen=True, eq=False)
class CSR:
    """Compressed sparse rows: the entries of row i are indptr[i] <= k < indptr[i + 1].

    Attributes
    ----------
    data : ndarray of float32 or float64, shape (nnz,)
    indices : ndarray of int32 or int64, shape (nnz,)
        Columns; those of a row ascend, and none comes twice.
    indptr : ndarray of int32 or int64, shape (n_samples + 1,)
    shape : (n_samples, n_features)
    """

    data: np.ndarray
    indices: np.ndarray
    indptr: np.ndarray
    shape: tuple[int, int]

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.data.dtype

    @property
    def nbytes(self) -> int:
        """Bytes of the three arrays."""
        return self.data.nbytes + self.indices.nbytes + self.indptr.nbytes

    @property
    def row_elements(self) -> int:
        """Entries of a row on average, rounded up, at least 1."""
        return max(1, -(-self.data.size // max(1, self.shape[0])))

    def take(self, rows: np.ndarray) -> CSR:
        """The rows at these places, as a matrix of their own."""
        counts = (self.indptr[1:] - self.indptr[:-1])[rows]
        indptr = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
        # Places of the entries: from each row's begin on, one after the other.
        places = np.repeat(self.indptr[:-1][rows] - indptr[:-1], counts) + np.arange(indptr[-1])
        return CSR(self.data[places], self.indices[places], indptr, (rows.size, self.shape[1]))

    def to_dense(self) -> np.ndarray:
        """The rows written out, zeros and all: shape (n_samples, n_features)."""
        rows = np.zeros(self.shape, self.dtype)
        rows[self.row_numbers(), self.indices] = self.data
        return rows

    def row_numbers(self) -> np.ndarray:
        """The row of each entry."""
        return np.repeat(np.arange(self.shape[0]), np.diff(self.indptr))

    def times(self, w: np.ndarray) -> np.ndarray:
        """Product with a vector: float64 of shape (n_samples,)."""
        product = np.empty(self.shape[0])
        rows = max(1, CHUNK // self.row_elements)
        for start in range(0, self.shape[0], rows):
            indptr = self.indptr[start : start + rows + 1]
            here = slice(indptr[0], indptr[-1])
            terms = self.data[here] * w[self.indices[here]].astype(np.float64)
            number = np.repeat(np.arange(indptr.size - 1), np.diff(indptr))
            product[start : start + rows] = np.bincount(number, terms, minlength=indptr.size - 1)
        return product

    def times_transposed(self, s: np.ndarray) -> np.ndarray:
        """Product of the transpose with a vector: float64 of shape (n_features,)."""
        terms = self.data * s[self.row_numbers()].astype(np.float64)
        return np.bincount(self.indices, terms, minlength=self.shape[1])

    def squared_norms(self) -> np.ndarray:
        """Squared norm of each row: float64 of shape (n_samples,)."""
        squares = self.data.astype(np.float64) ** 2
        return np.bincount(self.row_numbers(), squares, minlength=self.shape[0])


def is_sparse(value: Any) -> bool:
    """Whether a value is a sparse matrix or array, as scipy has them."""
    return hasattr(value, "tocsr") and hasattr(value, "shape")


def as_csr(X: Any, dtype: np.dtype[Any] | None = None, name: str = "X") -> CSR:
    """Return a sparse matrix as CSR of float32 or float64; copied only where it must be.

    Rows whose indices are out of order, or come twice, are sorted and added up in a copy.
    """
    if len(X.shape) != 2:
        raise DataError(
            f"{name}: expected two dimensions (n_samples, n_features), got shape {X.shape}."
        )
    n, d = map(int, X.shape)
    if 0 in (n, d):
        raise DataError(f"{name}: has no {'rows' if n == 0 else 'columns'} (shape {(n, d)}).")
    if getattr(X, "format", "") != "csr":
        X = _converted(X, name)
    indices, indptr, ascending = _structure(X, name)
    data = arrays.numeric(np.asarray(X.data)[: indices.size], f"{name}.data", dtype)
    _check_values(data, indices, indptr, name)
    matrix = CSR(data, indices, indptr, (n, d))
    return matrix if ascending else _in_order(matrix, name)


def sound(X: Any, name: str = "X") -> Any:
    """A sparse matrix as scipy's CSR, its indices checked and its values left to others.

    Raises
    ------
    schuss.errors.DataError
        If a column index lies outside, or a row ends before it begins or beyond the data.
    """
    if getattr(X, "format", "") != "csr":
        return _converted(X, name)
    _structure(X, name)
    return X


def _structure(X: Any, name: str) -> tuple[np.ndarray, np.ndarray, bool]:
    """Checked indices and indptr of CSR, and whether the columns of every row ascend."""
    indptr = _index(X.indptr, f"{name}.indptr")
    indices = _index(X.indices, f"{name}.indices")
    n, d = map(int, X.shape)
    _check_indptr(indptr, n, min(indices.size, np.size(X.data)), name)
    indices = indices[: int(indptr[-1])]
    ascending = _ascending(indices, indptr)
    _check_range(indices, indptr, d, ascending, name)
    return indices, indptr, ascending


def _converted(X: Any, name: str) -> Any:
    """Another format as CSR; checked before, as the conversion trusts what it is given."""
    kind = getattr(X, "format", type(X).__name__)
    try:
        if hasattr(X, "check_format"):
            copy.copy(X).check_format(full_check=True)
        if kind == "coo":
            for what, index, size in (("row", X.row, X.shape[0]), ("column", X.col, X.shape[1])):
                outside = (index < 0) | (index >= size)
                if outside.any():
                    k = int(np.argmax(outside))
                    raise ValueError(
                        f"entry {k} has {what} index {index[k]}; expected 0 ... {size - 1}"
                    )
        converted = X.tocsr()
    except (ValueError, TypeError, IndexError) as error:
        reason = str(error).strip().splitlines()[0]
        raise DataError(f"{name}: cannot be converted from {kind} to CSR ({reason}).") from None
    log.debug("%s: converted once from %s to CSR", name, kind)
    return converted


def _index(array: Any, name: str) -> np.ndarray:
    """Indices as a contiguous array of int32 or int64."""
    index = np.asarray(array)
    if index.ndim != 1 or index.dtype.kind not in "iu":
        raise DataTypeError(
            f"{name}: expected a vector of int32 or int64, got shape {index.shape} of "
            f"{index.dtype}."
        )
    native = index.dtype.newbyteorder("=")
    return np.require(index, native if native in (np.int32, np.int64) else np.int64, ["C", "A"])


def _check_indptr(indptr: np.ndarray, n: int, entries: int, name: str) -> None:
    """Rows begin where the one before ends, the first at 0, the last within the data."""
    if indptr.size != n + 1:
        raise DataError(
            f"{name}.indptr: has {indptr.size} elements; expected {n + 1}, one more than "
            f"{name} has rows."
        )
    if indptr[0] != 0:
        raise DataError(f"{name}.indptr[0] is {indptr[0]}: expected 0.")
    falls = indptr[1:] < indptr[:-1]
    if falls.any():
        row = int(np.argmax(falls))
        raise DataError(
            f"{name}.indptr: row {row} begins at {indptr[row]} and ends at {indptr[row + 1]}; "
            "expected numbers that do not decrease."
        )
    if indptr[-1] > entries:
        row = int(np.searchsorted(indptr, entries, side="right")) - 1
        raise DataError(
            f"{name}.indptr: row {row} ends at {indptr[row + 1]}, beyond the {entries} entries of "
            f"{name}.data and {name}.indices."
        )


def _row_of(entry: int, indptr: np.ndarray) -> int:
    """The row that an entry stands in."""
    return int(np.searchsorted(indptr, entry, side="right")) - 1


def _check_range(
    indices: np.ndarray, indptr: np.ndarray, d: int, ascending: bool, name: str
) -> None:
    """Columns are those that there are; of rows in order, the first and the last tell."""
    low = high = indices
    if ascending:
        filled = indptr[1:] > indptr[:-1]
        low, high = indices[indptr[:-1][filled]], indices[indptr[1:][filled] - 1]
    if not indices.size or (low.min() >= 0 and high.max() < d):
        return
    k = int(np.argmax((indices < 0) | (indices >= d)))
    raise DataError(
        f"{name}: row {_row_of(k, indptr)} has column index {indices[k]}; expected 0 ... {d - 1}."
    )


def _check_values(data: np.ndarray, indices: np.ndarray, indptr: np.ndarray, name: str) -> None:
    """No entry is NaN or infinite."""
    k = arrays.first_not_finite(data)
    if k is not None:
        raise DataError(
            f"{name}[{_row_of(k, indptr)}, {indices[k]}] is {data[k]}: NaN and infinity are not "
            "accepted; drop or impute such rows."
        )


def _ascending(indices: np.ndarray, indptr: np.ndarray) -> bool:
    """Whether the columns of every row ascend, none twice."""
    for start in range(0, indices.size - 1, CHUNK):
        here = indices[start : start + CHUNK + 1]
        falls = here[1:] <= here[:-1]  # from entry start + k to the next
        ends = np.array([start + 1, start + here.size], indptr.dtype)  # or indptr is converted
        first, last = np.searchsorted(indptr, ends)
        falls[indptr[first:last] - (start + 1)] = False  # a fall is in order where a row begins
        if falls.any():
            return False
    return True


def _in_order(matrix: CSR, name: str) -> CSR:
    """A copy with the columns of every row in order, entries of the same place added up."""
    log.debug("%s: copied once to sort the indices of rows and add up duplicates", name)
    rows = matrix.row_numbers()
    order = np.lexsort((matrix.indices, rows))
    rows, indices = rows[order], matrix.indices[order]
    first = np.ones(rows.size, dtype=bool)
    first[1:] = (rows[1:] != rows[:-1]) | (indices[1:] != indices[:-1])
    starts = np.flatnonzero(first)
    with np.errstate(over="ignore"):
        data = np.add.reduceat(matrix.data[order], starts)
    counts = np.bincount(rows[starts], minlength=matrix.shape[0])
    indptr = np.concatenate([[0], np.cumsum(counts)])
    summed = CSR(data, indices[starts], indptr, matrix.shape)
    _check_values(data, summed.indices, indptr, name)
    return summed


def as_rows(
    X: Any, dtype: np.dtype[Any] | None = None, name: str = "X", narrow: bool = False
) -> np.ndarray | CSR:
    """Return X as :func:`as_csr` has it where it is sparse, else as ``arrays.as_matrix``."""
    if is_sparse(X):
        return as_csr(X, dtype, name)
    return arrays.as_matrix(X, dtype, name, narrow)
