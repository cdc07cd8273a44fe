"""Files that commands write: looked at before the work begins, and never left half-written."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from schuss.data import container
from schuss.errors import DataError

if TYPE_CHECKING:
    import numpy as np

__all__ = ["check_distinct", "check_writable", "write_columns"]

_ROWS_PER_WRITE = 1 << 16


def check_writable(path: Path | None, option: str, endings: Sequence[str] = ()) -> None:
    """Refuse a path that could not be written, before anything is computed."""
    if path is None:
        return
    if endings and path.suffix.lower() not in endings:
        accepted = " or ".join(endings)
        raise DataError(f"{option}={str(path)!r}: the file's name must end in {accepted}")
    if path.exists() and not path.is_file() and not path.is_dir():
        raise DataError(f"{option}={str(path)!r} is not a regular file")
    container.check_writable(path, option)


def check_distinct(paths: Iterable[tuple[str, str | os.PathLike[str] | None]]) -> None:
    """Refuse two roles for one file, such as an output that is also the input."""
    seen: dict[str, str] = {}
    for role, path in paths:
        if path is None:
            continue
        place = os.path.realpath(path)
        if place in seen:
            raise DataError(f"{seen[place]} and {role} are the same file: {path}")
        seen[place] = role


def write_columns(path: Path | None, columns: dict[str, np.ndarray], stream: TextIO) -> None:
    """Write columns of equal length as CSV, .npy or Parquet; as CSV to `stream` without a path.

    A .npy file has no names: it holds one column as a vector and several as a matrix.
    """
    import numpy as np

    from schuss.data.tables import require

    if path is None:
        _write_csv(stream, columns)
        return
    ending = path.suffix.lower()
    with container.atomic_write(path) as temporary:
        if ending == ".csv":
            with open(temporary, "w", encoding="utf-8", newline="") as file:
                _write_csv(file, columns)
        elif ending == ".npy":
            arrays = list(columns.values())
            with open(temporary, "wb") as file:
                np.save(file, arrays[0] if len(arrays) == 1 else np.column_stack(arrays))
        else:
            arrow = require("pyarrow", "data", f"writing {path}")
            parquet = require("pyarrow.parquet", "data", f"writing {path}")
            parquet.write_table(arrow.table(columns), temporary)


def _write_csv(stream: TextIO, columns: dict[str, np.ndarray]) -> None:
    writer = csv.writer(stream, lineterminator="\n")
    writer.writerow(columns)
    rows = len(next(iter(columns.values())))
    for start in range(0, rows, _ROWS_PER_WRITE):
        block = (array[start : start + _ROWS_PER_WRITE] for array in columns.values())
        writer.writerows(zip(*map(_cells, block), strict=True))


def _cells(values: np.ndarray) -> list[object]:
    """Values as they are written; float32 in the digits that float32 has."""
    cells: list[object] = (values.astype(str) if values.dtype == "float32" else values).tolist()
    return cells
