"""Data files as tables of named columns: CSV, Parquet, .npy, .npz and svmlight.

Reading says only what stands in a file: which columns there are, which of them hold numbers, text
or dates, and where values are missing. What becomes of them is :mod:`schuss.data.preprocess`'s
business. Numbers are float64 with NaN where a value is missing; text is stored as codes into the
list of its distinct values, so a column of a million names costs four bytes a row.
"""

from __future__ import annotations

import csv
import difflib
import gc
import gzip
import importlib
import io
import os
import zipfile
import zlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import IO, Any, TextIO, cast

import numpy as np

from schuss.errors import DataError, MissingPackage

__all__ = ["FORMATS", "Column", "Numbers", "Other", "Table", "Text", "file_format", "read"]

#: Cells that stand for a missing value, after surrounding blanks are removed.
MISSING = ("", "NA", "N/A", "NaN", "nan", "NULL", "Null", "null")

#: What each file-name ending is read as; ``.gz`` may follow those of CSV.
FORMATS = {
    ".csv": "csv",
    ".tsv": "csv",
    ".txt": "csv",
    ".parquet": "parquet",
    ".pq": "parquet",
    ".npy": "npy",
    ".npz": "npz",
    ".svm": "svmlight",
    ".libsvm": "svmlight",
    ".svmlight": "svmlight",
}
DELIMITERS = ",;\t|"

_CELLS_PER_CHUNK = 1 << 19  # about 30 MB of Python strings
_SNIFFED_BYTES = 1 << 16


# ------------------------------------------------------------------------------ what a table is


@dataclass(frozen=True)
class Numbers:
    """A column of numbers.

    Attributes
    ----------
    name : str
    values : ndarray of shape (n_rows,)
        Any real dtype; NaN where a value is missing.
    """

    name: str
    values: np.ndarray

    @property
    def missing(self) -> np.ndarray:
        """Boolean mask of the missing values."""
        return np.isnan(self.values)


@dataclass(frozen=True)
class Text:
    """A column of text, as codes into its distinct values.

    Attributes
    ----------
    name : str
    codes : ndarray of shape (n_rows,), int32
        Index into `categories`; -1 where a value is missing.
    categories : list of str
        Distinct values in the order in which they first occur.
    """

    name: str
    codes: np.ndarray
    categories: list[str]

    @property
    def missing(self) -> np.ndarray:
        """Boolean mask of the missing values."""
        return self.codes < 0

    def strings(self) -> np.ndarray:
        """The values themselves (a missing one as the empty string)."""
        return np.array([*self.categories, ""])[self.codes]


@dataclass(frozen=True)
class Other:
    """A column that is neither numbers nor text, such as a timestamp or a list.

    Attributes
    ----------
    name : str
    description : str
        What it holds, in words that fit "holds ...".
    """

    name: str
    description: str


Column = Numbers | Text | Other


@dataclass
class Table:
    """The columns of one file.

    Attributes
    ----------
    source : str
        The file's name, for messages.
    n_rows : int
    columns : dict of str to Numbers, Text or Other
        By name, in the file's order. Columns of .npy and .npz files are named by their position,
        those of svmlight files by their index in the file.
    lines : ndarray of shape (n_rows,) or None
        Line of the file on which each row begins, counted from 1 (text files only).
    sparse : bool
        A column that does not occur is all zeros (svmlight).
    target : str or None
        Column that is the target unless another one is named.
    weight : str or None
        Column that holds sample weights, where the format says so.
    file_columns : int
        How many columns the file has, where they have a position but no name; otherwise 0.
    beside : frozenset of str
        Arrays that stand beside X in an .npz file; they are no features.
    """

    source: str
    n_rows: int
    columns: dict[str, Column]
    lines: np.ndarray | None = None
    file_columns: int = 0
    sparse: bool = False
    target: str | None = None
    weight: str | None = None
    beside: frozenset[str] = frozenset()

    @property
    def positional(self) -> bool:
        """Whether columns have a position but no name (.npy and .npz)."""
        return self.file_columns > 0

    def row(self, row: int) -> str:
        """A row in words: ``row 3 (line 4)``."""
        return f"row {row + 1}" + (f" (line {self.lines[row]})" if self.lines is not None else "")

    def place(self, row: int, column: str) -> str:
        """Where a value stands, in words: ``row 3 (line 4) of data.csv, column 'age'``."""
        return f"{self.row(row)} of {self.source}, column {column!r}"

    def column(self, name: str, role: str = "column") -> Column:
        """The column called `name`; an error that suggests a near match if there is none."""
        if name in self.columns:
            return self.columns[name]
        raise DataError(f"{self.source} has no {role} {name!r}{suggestion(name, self.columns)}")


def suggestion(name: str, known: Iterable[str]) -> str:
    """End of a message about an unknown name: the nearest known one, or the list of them."""
    known = list(known)
    near = difflib.get_close_matches(name, known, n=1)
    if near:
        return f"; did you mean {near[0]!r}?"
    return f". It has: {listing(known)}."


def listing(names: Sequence[str], most: int = 12) -> str:
    """Names joined by commas, the rest counted."""
    shown = ", ".join(names[:most])
    left = len(names) - most
    return f"{shown} and {left} more" if left > 0 else shown


def counted(number: int, noun: str) -> str:
    """``1 row``, ``2 rows``, ``12,000 rows``."""
    return f"{number:,} {noun}" + ("" if number == 1 else "s")


def require(package: str, extra: str, purpose: str) -> ModuleType:
    """Import an optional package, or say how to install it."""
    try:
        return importlib.import_module(package)
    except ImportError as error:
        name = package.partition(".")[0]
        raise MissingPackage(
            f"{purpose} needs {name}, which is not installed: pip install '.[{extra}]' from a "
            "clone of schuss"
        ) from error


def check_memory(rows: int, columns: int, dtype: np.dtype | type, purpose: str) -> None:
    """Refuse a dense matrix that would not fit into the memory that is free."""
    needed = rows * columns * np.dtype(dtype).itemsize
    free = _free_memory()
    if free is not None and needed > 0.8 * free:
        raise DataError(
            f"{purpose}: {rows:,} rows of {columns:,} columns need {needed / 2**30:.1f} GiB as a "
            f"dense matrix and {free / 2**30:.1f} GiB of memory are free. Use fewer rows, drop "
            "columns, or pass --dtype float32."
        )


def _free_memory() -> int | None:
    """Bytes of memory that are free, or None where the system does not say."""
    try:
        with open("/proc/meminfo", encoding="ascii") as lines:
            for line in lines:
                if line.startswith("MemAvailable:"):
                    return int(line.split()[1]) * 1024
    except OSError:
        pass
    try:
        return os.sysconf("SC_AVPHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    except (AttributeError, ValueError, OSError):
        return None


# -------------------------------------------------------------------------------------- reading


def file_format(path: str | os.PathLike[str]) -> str:
    """Format of a data file, from its ending: csv, parquet, npy, npz or svmlight."""
    path = Path(path)
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
        if suffixes and FORMATS.get(suffixes[-1]) not in ("csv", "svmlight"):
            raise DataError(f"{path}: only CSV and svmlight files are read compressed")
    try:
        return FORMATS[suffixes[-1]]
    except (IndexError, KeyError):
        raise DataError(
            f"{path}: the ending says nothing about the format. Accepted: {', '.join(FORMATS)} "
            "(and .csv.gz)."
        ) from None


def read(
    path: str | os.PathLike[str],
    *,
    columns: Collection[str] | None = None,
    drop: Collection[str] = (),
    text: Collection[str] = (),
    missing: Collection[str] = (),
    decimal: str = ".",
) -> Table:
    r"""Read a data file.

    Parameters
    ----------
    path : str or path-like
        The ending names the format: .csv, .tsv, .txt (each also .gz), .parquet, .pq, .npy, .npz,
        .svm, .libsvm, .svmlight.
    columns : collection of str, optional
        Read only these columns, as far as the file has them; all by default.
    drop : collection of str
        Columns not to read; ``"#3"`` is the third. Each must exist.
    text : collection of str
        Columns of a CSV file to read as text even if every value is a number.
    missing : collection of str
        What else stands for a missing value in a CSV file, besides an empty cell, NA, N/A, NaN
        and null.
    decimal : {".", ","}
        Decimal mark of the numbers in a CSV file.

    Returns
    -------
    Table

    Raises
    ------
    schuss.errors.DataError
        The file is missing, empty, damaged or not a table. The message names the place.
    schuss.errors.MissingPackage
        Parquet needs pyarrow, svmlight needs scikit-learn.

    Examples
    --------
    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, "houses.csv")
    ...     _ = path.write_text("rooms,town,price\n3,Bern,650\n5,Chur,720\n")
    ...     table = read(path)
    >>> table.n_rows, list(table.columns)
    (2, ['rooms', 'town', 'price'])
    >>> table.columns["town"].categories
    ['Bern', 'Chur']
    """
    path = Path(path)
    kind = file_format(path)
    _check_exists(path)
    try:
        if kind == "csv":
            return _read_csv(path, columns, drop, text, _Cells(decimal, frozenset(missing)))
        if kind == "parquet":
            return _read_parquet(path, columns, drop)
        if kind == "svmlight":
            table = _read_svmlight(path, columns)
        else:
            table = _read_npy(path) if kind == "npy" else _read_npz(path)
    except OSError as error:
        raise _unreadable(path, error) from error
    except MemoryError as error:
        raise DataError(f"{path} does not fit into memory") from error
    return _selected(table, columns, drop)


def _check_exists(path: Path) -> None:
    if path.is_dir():
        raise DataError(f"{path} is a directory, not a file")
    if not path.exists():
        near: list[str] = []
        if path.parent.is_dir():
            near = difflib.get_close_matches(path.name, os.listdir(path.parent), 1, cutoff=0.8)
        hint = f"; did you mean {path.with_name(near[0])}?" if near else ""
        raise DataError(f"{path}: no such file{hint}")
    if path.is_file() and path.stat().st_size == 0:
        raise DataError(f"{path} is empty")


def _unreadable(path: Path, error: OSError) -> DataError:
    if isinstance(error, gzip.BadGzipFile):
        return DataError(f"{path} is not a gzip file or is damaged: {error}")
    return DataError(f"{path} cannot be read: {error.strerror or error}")


def _selected(table: Table, columns: Collection[str] | None, drop: Collection[str]) -> Table:
    """The table without the columns that are not wanted."""
    names = list(table.columns)
    keep = _wanted(names, columns, drop, table.source)
    table.columns = {names[k]: table.columns[names[k]] for k in keep}
    return table


def _wanted(
    names: Sequence[str], columns: Collection[str] | None, drop: Collection[str], source: str
) -> list[int]:
    """Positions of the columns to read; ``"#3"`` in `drop` is the third column."""
    dropped: set[int] = set()
    for name in drop:
        if name in names:
            dropped.update(k for k, known in enumerate(names) if known == name)
        elif name[:1] == "#" and name[1:].isdecimal() and 1 <= int(name[1:]) <= len(names):
            dropped.add(int(name[1:]) - 1)
        else:
            raise DataError(f"{source} has no column {name!r} to drop{suggestion(name, names)}")
    return [
        k
        for k, name in enumerate(names)
        if k not in dropped and (columns is None or name in columns)
    ]


# ------------------------------------------------------------------------------------------ CSV


@dataclass(frozen=True)
class _Cells:
    """What the cells of a CSV file mean."""

    decimal: str
    missing: frozenset[str] = frozenset()

    def floats(self, cells: Sequence[str]) -> np.ndarray | None:
        """Cells as float64, or None if one of them is neither a number nor missing."""
        if "_" in "\n".join(cells):  # Python would read 1_2 as twelve; here it is a name
            return None
        if self.decimal == ",":
            if any("." in cell for cell in cells):
                return None
            cells = [cell.replace(",", ".") for cell in cells]
        count = len(cells)
        try:
            return np.fromiter(map(float, cells), np.float64, count=count)
        except ValueError:
            pass
        nan = dict.fromkeys((*MISSING, *self.missing), "nan")
        try:
            filled = (nan.get(cell, cell) for cell in map(str.strip, cells))
            return np.fromiter(map(float, filled), np.float64, count=count)
        except ValueError:
            return None


class _Codes(dict[str, int]):
    """Distinct strings numbered as they come; missing values are -1."""

    def __init__(self, missing: Iterable[str] = ()) -> None:
        super().__init__(dict.fromkeys((*MISSING, *missing), -1))
        self.known = len(self)

    def __missing__(self, key: str) -> int:
        code = self[key] = len(self) - self.known
        return code

    def categories(self) -> list[str]:
        return list(self)[self.known :]


class _NotNumbers(Exception):
    """A column turned out to be text after rows of it had been read as numbers."""

    def __init__(self, position: int) -> None:
        super().__init__(position)
        self.position = position


class _CsvColumn:
    """Collects one column chunk by chunk: as numbers while that works, as text otherwise."""

    def __init__(self, position: int, name: str, cells: _Cells, text: bool) -> None:
        self.position = position
        self.name = name
        self.cells = cells
        self.parts: list[np.ndarray] = []
        self.codes = _Codes(cells.missing) if text else None

    def add(self, cells: Sequence[str]) -> None:
        if self.codes is None:
            values = self.cells.floats(cells)
            if values is not None:
                self.parts.append(values)
                return
            if self.parts:
                raise _NotNumbers(self.position)
            self.codes = _Codes(self.cells.missing)
        codes = map(self.codes.__getitem__, map(str.strip, cells))
        self.parts.append(np.fromiter(codes, np.int32, count=len(cells)))

    def column(self) -> Column:
        values = np.concatenate(self.parts)
        self.parts.clear()
        if self.codes is None:
            return Numbers(self.name, values)
        return Text(self.name, values, self.codes.categories())


def _read_csv(
    path: Path,
    columns: Collection[str] | None,
    drop: Collection[str],
    text: Collection[str],
    cells: _Cells,
) -> Table:
    delimiter = _check_beginning(path, cells.decimal)
    try:
        with _open_text(path) as stream:
            line, names = _header(_rows(stream, delimiter, path), path, cells)
        keep = _wanted(names, columns, drop, str(path))
        _check_names(names, keep, f"{path}, line {line}")
        as_text = {k for k in keep if names[k] in text}
        while True:
            parts = [_CsvColumn(k, names[k], cells, k in as_text) for k in keep]
            try:
                lines = _fill(parts, path, delimiter, len(names))
                break
            except _NotNumbers as error:  # read again, that column as text from the beginning
                as_text.add(error.position)
    except UnicodeDecodeError as error:
        raise _not_utf8(path) from error
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: the compressed data ends early or is wrong") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if lines.size == 0:
        raise DataError(f"{path} has a header line but no rows of data")
    return Table(str(path), len(lines), {part.name: part.column() for part in parts}, lines)


def _open_binary(path: Path) -> IO[bytes]:
    if path.suffix.lower() == ".gz":
        return cast("IO[bytes]", gzip.open(path, "rb"))
    return open(path, "rb")


@contextmanager
def _open_text(path: Path) -> Iterator[TextIO]:
    with (
        _open_binary(path) as binary,
        io.TextIOWrapper(binary, encoding="utf-8-sig", newline="") as stream,
    ):
        yield stream


def _check_beginning(path: Path, decimal: str) -> str:
    """Refuse what is no UTF-8 text at a glance; return the delimiter."""
    try:
        with _open_binary(path) as stream:
            start: bytes = stream.read(_SNIFFED_BYTES)
    except (EOFError, zlib.error) as error:
        raise DataError(f"{path} is damaged: the compressed data ends early or is wrong") from error
    except OSError as error:
        raise _unreadable(path, error) from error
    if start.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise DataError(
            f"{path} is UTF-16; CSV files are read as UTF-8: iconv -f UTF-16 -t UTF-8 {path.name}"
        )
    if b"\0" in start:
        raise DataError(f"{path} is not a text file (byte 0 at offset {start.index(0)})")
    text = start.decode("utf-8-sig", errors="replace")
    if not text.strip():
        raise DataError(f"{path} is empty")
    return _delimiter(text, len(start) == _SNIFFED_BYTES, decimal)


def _delimiter(text: str, cut: bool, decimal: str) -> str:
    """The delimiter that splits the first lines into the most columns, evenly if any does."""
    lines = text.splitlines()[:20]
    if cut and len(lines) > 1 and len(text.splitlines()) <= 20:
        lines.pop()
    best, score = ",", (False, 1)
    for candidate in DELIMITERS:
        if candidate == decimal:
            continue
        widths = [len(row) for row in csv.reader(lines, delimiter=candidate) if row]
        if widths and (rating := (len(set(widths)) == 1 and widths[0] > 1, widths[0])) > score:
            best, score = candidate, rating
    return best


def _rows(stream: TextIO, delimiter: str, path: Path) -> Iterator[tuple[int, list[str]]]:
    """Records with the line on which each begins; blank lines are passed over."""
    reader = csv.reader(stream, delimiter=delimiter, strict=True, skipinitialspace=True)
    line = 1
    try:
        for row in reader:
            if row:
                yield line, row
            line = reader.line_num + 1
    except csv.Error as error:
        raise _csv_error(path, line, error) from error


def _csv_error(path: Path, line: int, error: csv.Error) -> DataError:
    message = str(error)
    if "unexpected end of data" in message or "field larger" in message:
        return DataError(f"{path}, line {line}: a quoted field that begins here is never closed")
    if "expected after" in message:
        return DataError(
            f"{path}, line {line}: text follows a closing quote; a quote inside a quoted field "
            'is written twice ("")'
        )
    return DataError(f"{path}, line {line}: {message}")


def _header(
    rows: Iterator[tuple[int, list[str]]], path: Path, cells: _Cells
) -> tuple[int, list[str]]:
    """The header's line and the names of the columns."""
    line, record = next(rows, (0, []))
    names = [name.strip() for name in record]
    if not any(names):
        raise DataError(f"{path} is empty: it has no header line")
    _check_is_header(names, path, line, cells)
    return line, names


def _check_is_header(names: list[str], path: Path, line: int, cells: _Cells) -> None:
    numbers = cells.floats(names)
    if numbers is None or np.isnan(numbers).any():
        return
    # A frame without names is written with the header 0,1,2,...
    if len(numbers) > 1 and np.array_equal(numbers, np.arange(len(numbers)) + numbers[0]):
        return
    raise DataError(
        f"{path}, line {line} holds numbers ({listing(names, 3)}): the file needs a header line "
        "that names the columns"
    )


def _check_names(names: Sequence[str], keep: Sequence[int], where: str) -> None:
    first: dict[str, int] = {}
    for k in keep:
        name, position = names[k], k + 1
        if name == "":
            hint = " (pandas writes its row index like this)" if k == 0 else ""
            raise DataError(
                f"{where}: column {position} has no name{hint}. Name it, or pass "
                f"--drop '#{position}'."
            )
        if name in first:
            raise DataError(
                f"{where}: columns {first[name]} and {position} are both named {name!r}. "
                f"Rename one, or pass --drop '#{position}'."
            )
        first[name] = position


def _fill(columns: list[_CsvColumn], path: Path, delimiter: str, width: int) -> np.ndarray:
    """Read the rows after the header into `columns`; return the line of each row."""
    lines: list[np.ndarray] = [np.empty(0, np.int64)]
    chunk = max(1, _CELLS_PER_CHUNK // width)
    with _open_text(path) as stream, _no_collection():
        rows = _rows(stream, delimiter, path)
        next(rows, None)
        while block := list(islice(rows, chunk)):
            numbers, records = zip(*block, strict=True)
            if any(len(record) != width for record in records):
                numbers, records = _even(path, width, block)
            lines.append(np.array(numbers, dtype=np.int64))
            cells = list(zip(*records, strict=True)) or [()] * width
            for column in columns:
                column.add(cells[column.position])
    return np.concatenate(lines)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Hold back the search for garbage cycles.

    Rows are lists of strings and form no cycles, but their number sets the search off again and
    again: it was half of the reading time.
    """
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _even(
    path: Path, width: int, block: list[tuple[int, list[str]]]
) -> tuple[tuple[int, ...], tuple[list[str], ...]]:
    """The block without lines of nothing but blanks; every other record must be complete."""
    kept = []
    for line, record in block:
        if len(record) == 1 and width > 1 and not record[0].strip():
            continue
        if len(record) != width:
            fields = counted(len(record), "field")
            raise DataError(f"{path}, line {line}: {fields}, where the header line has {width}")
        kept.append((line, record))
    numbers, records = zip(*kept, strict=True) if kept else ((), ())
    return numbers, records


def _not_utf8(path: Path) -> DataError:
    """Say on which line the first byte stands that is not UTF-8."""
    offset = 0
    with _open_binary(path) as stream:
        for number, line in enumerate(stream, 1):
            try:
                line.decode("utf-8")
            except UnicodeDecodeError as error:
                byte = line[error.start]
                return DataError(
                    f"{path}, line {number}: byte 0x{byte:02x} at offset {offset + error.start} "
                    "is not UTF-8. If the file is Latin-1: "
                    f"iconv -f LATIN1 -t UTF-8 {path.name} > utf8.csv"
                )
            offset += len(line)
    return DataError(f"{path} is not UTF-8")


# -------------------------------------------------------------------------------------- Parquet


def _read_parquet(path: Path, columns: Collection[str] | None, drop: Collection[str]) -> Table:
    arrow = require("pyarrow", "data", f"reading {path}")
    parquet = require("pyarrow.parquet", "data", f"reading {path}")
    try:
        with parquet.ParquetFile(path) as file:
            names = list(file.schema_arrow.names)
            positions = _wanted(names, columns, drop, str(path))
            _check_names(names, positions, str(path))
            keep = [names[k] for k in positions]
            data = file.read(columns=keep)
            n_rows = file.metadata.num_rows
    except (arrow.ArrowException, EOFError) as error:
        reason = str(error).splitlines()[0]
        raise DataError(f"{path} is not a Parquet file or is damaged: {reason}") from error
    if n_rows == 0:
        raise DataError(f"{path} has columns but no rows of data")
    found = {name: _arrow_column(arrow, name, data.column(name)) for name in keep}
    return Table(str(path), n_rows, found)


def _arrow_column(arrow: ModuleType, name: str, data: Any) -> Column:
    types = arrow.types
    kind = data.type
    if types.is_dictionary(kind):
        data = data.cast(kind.value_type)
        kind = data.type
    if types.is_boolean(kind):
        data = data.cast(arrow.uint8())
        kind = data.type
    if types.is_null(kind):
        return Numbers(name, np.full(len(data), np.nan))
    if types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind):
        values = data.cast(arrow.float64(), safe=False).to_numpy(zero_copy_only=False)
        return Numbers(name, np.asarray(values, dtype=np.float64))
    if types.is_string(kind) or types.is_large_string(kind) or kind == arrow.string_view():
        codes = _Codes()
        encoded = data.cast(arrow.large_string()).combine_chunks().dictionary_encode()
        distinct = [codes[value.strip()] for value in encoded.dictionary.to_pylist()]
        index = encoded.indices.fill_null(len(distinct)).to_numpy(zero_copy_only=False)
        lookup = np.array([*distinct, -1], dtype=np.int32)
        return Text(name, lookup[index], codes.categories())
    if types.is_temporal(kind):
        return Other(name, f"dates or times ({kind})")
    return Other(name, f"values of type {kind}")


# ------------------------------------------------------------------------------- NumPy's formats


def _read_npy(path: Path) -> Table:
    try:
        matrix = np.lib.format.open_memmap(path, mode="r")
    except (ValueError, EOFError) as error:
        raise DataError(_numpy_reason(path, error)) from error
    _check_matrix(matrix, "the array", path)
    names = [str(k) for k in range(matrix.shape[1])]
    columns: dict[str, Column] = {name: Numbers(name, matrix[:, k]) for k, name in enumerate(names)}
    return Table(str(path), len(matrix), columns, target=names[-1], file_columns=len(names))


def _read_npz(path: Path) -> Table:
    try:
        with open(path, "rb") as stream:
            archive = np.load(stream, allow_pickle=False)
            if isinstance(archive, np.ndarray):
                raise DataError(f"{path} is no .npz archive (a ZIP file of arrays)")
            if "X" not in archive.files:
                raise DataError(
                    f"{path} has no array named 'X'; it has: {listing(archive.files) or 'none'}"
                )
            arrays = {name: archive[name] for name in archive.files}
    except (ValueError, EOFError, zipfile.BadZipFile, zlib.error, KeyError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(_numpy_reason(path, error)) from error
    matrix = arrays.pop("X")
    _check_matrix(matrix, "X", path)
    n_rows = len(matrix)
    columns: dict[str, Column] = {
        str(k): Numbers(str(k), matrix[:, k]) for k in range(matrix.shape[1])
    }
    for name, array in arrays.items():
        columns[name] = _vector(name, array, n_rows, path)
    return Table(
        str(path),
        n_rows,
        columns,
        file_columns=matrix.shape[1],
        target="y" if "y" in arrays else None,
        weight="sample_weight" if "sample_weight" in arrays else None,
        beside=frozenset(arrays),
    )


def _numpy_reason(path: Path, error: Exception) -> str:
    if "ickle" in str(error) or "Python objects" in str(error):
        return f"{path} holds Python objects or is no array file; objects are never loaded"
    if zipfile.is_zipfile(path) and path.suffix == ".npy":
        return f"{path} is an .npz archive; give it that ending"
    return f"{path} is not a NumPy array file or is damaged: {error}"


def _check_matrix(matrix: np.ndarray, what: str, path: Path) -> None:
    if matrix.ndim != 2:
        raise DataError(f"{path}: {what} has shape {matrix.shape}; it must have two dimensions")
    if matrix.dtype.kind not in "buif":
        raise DataError(f"{path}: {what} has dtype {matrix.dtype}; it must hold real numbers")
    if matrix.shape[0] == 0 or matrix.shape[1] == 0:
        raise DataError(f"{path}: {what} has shape {matrix.shape}; there is nothing in it")


def _vector(name: str, array: np.ndarray, n_rows: int, path: Path) -> Column:
    """One of the arrays beside X, as a column."""
    if array.ndim == 2 and array.shape[1] == 1:
        array = array[:, 0]
    if array.shape != (n_rows,):
        return Other(name, f"an array of shape {array.shape}, where X has {n_rows} rows")
    if array.dtype.kind in "buif":
        return Numbers(name, array)
    if array.dtype.kind in "US":
        codes = _Codes()
        strings = array.astype(np.str_).tolist()
        values = np.fromiter(map(codes.__getitem__, strings), np.int32, count=n_rows)
        return Text(name, values, codes.categories())
    return Other(name, f"values of dtype {array.dtype}")


# ------------------------------------------------------------------------------------- svmlight


def _read_svmlight(path: Path, columns: Collection[str] | None) -> Table:
    datasets = require("sklearn.datasets", "sklearn", f"reading {path}")
    try:
        matrix, target = datasets.load_svmlight_file(str(path), zero_based=True)
    except (ValueError, IndexError, EOFError, zlib.error) as error:
        raise DataError(f"{path} is not an svmlight file or is damaged: {error}") from error
    n_rows, width = matrix.shape
    if n_rows == 0:
        raise DataError(f"{path} has no rows of data")
    # The format does not say whether indices begin at 0 or 1. Columns are named by their index in
    # the file, so a model finds them again; an index 0 that never occurs is no column.
    matrix = matrix.tocsc()
    first = 0 if matrix.indptr[1] > 0 else 1
    keep = [k for k in range(first, width) if columns is None or str(k) in columns]
    if not keep and columns is None:
        raise DataError(f"{path} has no features: every row is empty")
    check_memory(n_rows, len(keep), np.float64, str(path))
    dense = matrix[:, keep].toarray(order="F")
    found: dict[str, Column] = {str(k): Numbers(str(k), dense[:, j]) for j, k in enumerate(keep)}
    found["target"] = Numbers("target", np.asarray(target, dtype=np.float64))
    return Table(str(path), n_rows, found, sparse=True, target="target")
