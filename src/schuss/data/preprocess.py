"""From the columns of a table to the matrix a linear model is trained on, and back at prediction.

An :class:`Encoder` decides once, on the training rows, what becomes of each column: numbers are
kept (and standardized, and their missing values filled, if asked for), text becomes one column of
0 and 1 for each category, dates and identifiers are refused. It is stored with the model, so that
the same table, its columns in any order, gives the same matrix again.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from schuss.data.tables import Column, Numbers, Other, Table, Text, check_memory, counted, listing
from schuss.errors import DataError

__all__ = ["Categories", "Encoder", "Number", "split", "target_values"]

Say = Callable[[str], None]

#: A text column with more distinct values than this is refused unless the limit is raised.
MAX_CATEGORIES = 100

_FORMAT = 1
_BLOCK_ROWS = 4096  # rows of the matrix filled at a time: they stay in the cache
_FEW_ROWS = 20  # with fewer rows, 0 to n-1 may well be a measurement

_ID_NAME = re.compile(r"(?:^|[_\-. ])(?:id|uid|uuid|guid|index|key|row|nr|no)$|^id[_\-. ]", re.I)
_ID_CAMEL = re.compile(r"[a-z](?:Id|ID|Uuid|UUID|Guid|GUID)$")
_TIME = r"(?:[T ]\d{1,2}:\d{2}(?::\d{2}(?:[.,]\d+)?)?(?: ?[AaPp][Mm])?(?:Z| ?[+-]\d{2}:?\d{2})?)?"
_MONTH = r"(?:jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec)[a-z]*\.?"
_DATE = re.compile(
    rf"""(?: \d{{4}}-\d{{1,2}}(?:-\d{{1,2}})?       # 2024-01-31, 2024-01
           | \d{{4}}[/.]\d{{1,2}}[/.]\d{{1,2}}      # 2024/1/31
           | \d{{1,2}}([-/.])\d{{1,2}}\1\d{{2,4}}   # 31.1.2024, 1/31/24
           | \d{{1,2}}[-\ ]{_MONTH}[-\ ]\d{{2,4}}   # 31 Jan 2024
           | {_MONTH}\ \d{{1,2}},?\ \d{{4}}         # January 31, 2024
         ){_TIME.replace(" ", chr(92) + " ")}
       | \d{{1,2}}:\d{{2}}(?::\d{{2}}(?:[.,]\d+)?)? # 13:05
    """,
    re.IGNORECASE | re.VERBOSE,
)
_SEPARATED = re.compile(r"[-+]?\d{1,3}(?:,\d{3})+(?:\.\d+)?")
_COMMA_NUMBER = re.compile(rf"{_SEPARATED.pattern}|[-+]?\d*,\d+")


# ------------------------------------------------------------------------ what becomes of a column


@dataclass(frozen=True)
class Number:
    """A column of numbers: missing values become `fill`, then (value - mean) / scale.

    Attributes
    ----------
    name : str
    fill : float or None
        None where missing values are refused.
    mean, scale : float
        0 and 1 where the column is not standardized.
    """

    name: str
    fill: float | None = None
    mean: float = 0.0
    scale: float = 1.0

    @property
    def width(self) -> int:
        """Number of matrix columns."""
        return 1


@dataclass(frozen=True)
class Categories:
    """A column of text: one matrix column of 0 and 1 for each category.

    Attributes
    ----------
    name : str
    categories : tuple of str
        Sorted.
    missing : bool
        The last matrix column stands for a missing value.
    optional : bool
        Missing values are accepted.
    """

    name: str
    categories: tuple[str, ...]
    missing: bool = False
    optional: bool = False

    @property
    def width(self) -> int:
        """Number of matrix columns."""
        return len(self.categories) + self.missing


Feature = Number | Categories


@dataclass(frozen=True)
class Encoder:
    """How the columns of a table become a matrix.

    Made by :meth:`fit` from the training rows; :meth:`to_dict` and :meth:`from_dict` store it.

    Attributes
    ----------
    features : tuple of Number or Categories
        In the order of the matrix columns.
    target : str or None
        Name of the target column, which no later table needs to have.
    text_target : bool
        The target is text.
    file_columns : int
        For files whose columns have positions but no names, how many there were; otherwise 0.
    missing : tuple of str
        What stands for a missing value in a CSV file besides the usual.
    decimal : str
        Decimal mark of CSV files.
    """

    features: tuple[Feature, ...]
    target: str | None = None
    text_target: bool = False
    file_columns: int = 0
    missing: tuple[str, ...] = ()
    decimal: str = "."

    @property
    def width(self) -> int:
        """Number of matrix columns."""
        return sum(feature.width for feature in self.features)

    @property
    def names(self) -> list[str]:
        """Names of the matrix columns: ``rooms``, ``town=Bern``, ``town is missing``."""
        names = []
        for feature in self.features:
            if isinstance(feature, Number):
                names.append(feature.name)
            else:
                names += [f"{feature.name}={category}" for category in feature.categories]
                names += [f"{feature.name} is missing"] * feature.missing
        return names

    @property
    def columns(self) -> list[str]:
        """Names of the columns a table must have."""
        return [feature.name for feature in self.features]

    @property
    def text_columns(self) -> list[str]:
        """Names of the columns that must be read as text."""
        names = [feature.name for feature in self.features if isinstance(feature, Categories)]
        return [*names, self.target] if self.text_target and self.target else names

    @classmethod
    def fit(
        cls,
        table: Table,
        rows: np.ndarray,
        *,
        target: str,
        ignore: Collection[str] = (),
        keep: Collection[str] = (),
        standardize: bool = False,
        impute: bool = False,
        max_categories: int = MAX_CATEGORIES,
        missing: Sequence[str] = (),
        decimal: str = ".",
        say: Say = lambda message: None,
    ) -> Encoder:
        """Decide what becomes of each column.

        Parameters
        ----------
        table : Table
        rows : ndarray of int
            The training rows: statistics and categories come from them alone.
        target : str
        ignore : collection of str
            Columns that are no features, such as sample weights.
        keep : collection of str
            Columns to use although they look like identifiers, dates or damaged numbers.
        standardize : bool
            Give every column of numbers mean 0 and standard deviation 1 over the training rows.
        impute : bool
            Fill missing numbers with the column's mean over the training rows, and give missing
            text a category of its own. Otherwise a missing value is an error.
        max_categories : int
            Refuse text columns with more distinct values.
        missing, decimal
            How the table was read; kept for later tables.
        say : callable
            Gets a line of text about each thing the user should know.

        Raises
        ------
        schuss.errors.DataError
            Dates, identifiers, too many categories, missing or infinite values. The message
            names the columns and the ways out.
        """
        columns = [
            column
            for name, column in table.columns.items()
            if name != target and name not in ignore and name not in table.beside
        ]
        if not columns:
            raise DataError(f"{table.source} has no column besides the target {target!r}")
        _check_columns(table, columns, keep, max_categories)
        _check_values(table, columns, impute)
        features = [
            _number(table, column, rows, standardize, impute)
            if isinstance(column, Numbers)
            else _categories(column, rows, impute)
            for column in columns
            if not isinstance(column, Other)
        ]
        _say_what_was_done(features, table, rows, say)
        return cls(
            features=tuple(features),
            target=target,
            text_target=isinstance(table.columns.get(target), Text),
            file_columns=table.file_columns,
            missing=tuple(missing),
            decimal=decimal,
        )

    def encode(
        self,
        table: Table,
        rows: np.ndarray | None = None,
        dtype: np.dtype | type = np.float64,
        say: Say = lambda message: None,
    ) -> np.ndarray:
        """The matrix of a table.

        Parameters
        ----------
        table : Table
            Its columns may stand in any order; further columns are ignored.
        rows : ndarray of int, optional
            Only these rows; all by default.
        dtype : float32 or float64
        say : callable
            Gets a line of text for each text column with values that are no known category.

        Returns
        -------
        ndarray of shape (n_rows, width)

        Raises
        ------
        schuss.errors.DataError
            A column is missing, has another type, or holds a missing or infinite value.
        """
        columns = self._find(table)
        for feature, column in zip(self.features, columns, strict=True):
            _check_known(table, feature, column, rows)
        n_rows = table.n_rows if rows is None else len(rows)
        check_memory(n_rows, self.width, dtype, table.source)
        codes = [
            _known_codes(table, feature, column, rows, say)
            if isinstance(feature, Categories)
            else None
            for feature, column in zip(self.features, columns, strict=True)
        ]
        matrix = np.zeros((n_rows, self.width), dtype=dtype)
        for start in range(0, n_rows, _BLOCK_ROWS):
            stop = min(start + _BLOCK_ROWS, n_rows)
            block = matrix[start:stop]
            chosen = slice(start, stop) if rows is None else rows[start:stop]
            first = 0
            for feature, column, code in zip(self.features, columns, codes, strict=True):
                if isinstance(feature, Number):
                    block[:, first] = _scaled(feature, column, chosen)
                elif code is not None:
                    here = code[start:stop]
                    known = np.flatnonzero(here >= 0)
                    block[known, first + here[known]] = 1
                first += feature.width
        return matrix

    def _find(self, table: Table) -> list[Column]:
        """The table's columns in the order of the features."""
        by_position = self.file_columns > 0 and table.positional
        names = self._positions(table) if by_position else self.columns
        if table.sparse:
            zeros = np.broadcast_to(np.float64(0), table.n_rows)
            return [table.columns.get(name, Numbers(name, zeros)) for name in names]
        absent = [name for name in names if name not in table.columns]
        if absent:
            what = "column" if len(absent) == 1 else "columns"
            raise DataError(
                f"{table.source} lacks the {what} {listing([repr(name) for name in absent])} "
                "that the model was trained with"
            )
        return [table.columns[name] for name in names]

    def _positions(self, table: Table) -> list[str]:
        """Names of the features in a file whose columns are known by position alone."""
        there = [name for name in table.columns if name not in table.beside]
        if len(there) == self.file_columns:
            return self.columns
        without_target = [
            name for name in map(str, range(self.file_columns)) if name != self.target
        ]
        if len(there) == len(without_target):  # the target is not in this file
            position = {name: str(k) for k, name in enumerate(without_target)}
            return [position[name] for name in self.columns]
        if len(there) == len(self.features):
            return there
        raise DataError(
            f"{table.source} has {len(there)} columns; the model was trained with "
            f"{len(without_target)} besides the target"
        )

    def to_dict(self) -> dict[str, Any]:
        """Everything as numbers, strings, lists and dicts that JSON can hold."""
        stored = asdict(self)
        stored["features"] = [
            {"kind": "number" if isinstance(feature, Number) else "categories", **asdict(feature)}
            for feature in self.features
        ]
        return {"format": _FORMAT, **stored}

    @classmethod
    def from_dict(cls, stored: dict[str, Any]) -> Encoder:
        """The encoder that :meth:`to_dict` described."""
        if not isinstance(stored, dict) or stored.get("format") != _FORMAT:
            raise DataError(
                "the model's preprocessing was written by another version of schuss: format "
                f"{stored.get('format') if isinstance(stored, dict) else stored!r}, "
                f"accepted: {_FORMAT}"
            )
        try:
            features: list[Feature] = []
            for entry in stored["features"]:
                fields = {key: value for key, value in entry.items() if key != "kind"}
                if entry["kind"] == "number":
                    features.append(Number(**fields))
                else:
                    fields["categories"] = tuple(fields["categories"])
                    features.append(Categories(**fields))
            return cls(
                features=tuple(features),
                target=stored["target"],
                text_target=stored["text_target"],
                file_columns=stored["file_columns"],
                missing=tuple(stored["missing"]),
                decimal=stored["decimal"],
            )
        except (KeyError, TypeError) as error:
            raise DataError(f"the model's preprocessing is damaged: {error!r}") from error


# ----------------------------------------------------------------------------- what is refused


def _check_columns(
    table: Table, columns: list[Column], keep: Collection[str], max_categories: int
) -> None:
    """Refuse columns that are no features, all of them in one message."""
    for name in keep:
        table.column(name)
    refused = [
        (column.name, refusal)
        for column in columns
        if (refusal := _why_not(table, column, column.name in keep, max_categories)) is not None
    ]
    if not refused:
        return
    reasons = "; ".join(f"column {name!r} {refusal.reason}" for name, refusal in refused[:5])
    if len(refused) > 5:
        reasons += f"; and {len(refused) - 5} more"
    it = "it" if len(refused) == 1 else "them"
    ways = f"Leave {it} out with {_each('--drop', [name for name, _ in refused])}"
    usable = [name for name, refusal in refused if refusal.keep]
    if usable:
        it = f" {it}" if len(usable) == len(refused) else ""
        ways += f", or use{it} with {_each('--keep', usable)}"
    raise DataError(f"{table.source}: {reasons}. {ways}.")


@dataclass(frozen=True)
class _Refusal:
    """Why a column is refused, and whether ``--keep`` is a way to use it."""

    reason: str
    keep: bool = False


def _each(option: str, names: Sequence[str]) -> str:
    """The option once for each name."""
    return " ".join(f"{option} {shlex.quote(name)}" for name in names)


def _why_not(table: Table, column: Column, keep: bool, max_categories: int) -> _Refusal | None:
    """Why a column is refused, or None."""
    if isinstance(column, Other):
        return _Refusal(f"holds {column.description}")
    if column.missing.all():
        return _Refusal("has no values")
    if isinstance(column, Numbers):
        return None if keep else _why_not_numbers(column)
    return (None if keep else _why_not_text(table, column)) or _too_many(column, max_categories)


def _why_not_numbers(column: Numbers) -> _Refusal | None:
    values = column.values[~column.missing].astype(np.float64)
    if not np.isfinite(values).all() or not np.array_equal(values, np.floor(values)):
        return None
    lowest, highest = values.min(), values.max()
    if 19000101 <= lowest <= highest <= 21001231 and len(values) > 1:
        month, day = values // 100 % 100, values % 100
        if ((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all():
            return _Refusal(f"holds dates ({int(values[0])})", keep=True)
    row_number = highest - lowest + 1 == len(values) >= _FEW_ROWS and lowest in (0, 1)
    if (row_number or named_like_id(column.name)) and len(np.unique(values)) == len(values) > 1:
        return _Refusal(
            f"looks like an identifier: {int(lowest)} to {int(highest)}, all distinct", keep=True
        )
    return None


def _why_not_text(table: Table, column: Text) -> _Refusal | None:
    values = column.categories
    present = int((~column.missing).sum())
    if all(map(_DATE.fullmatch, values)):
        return _Refusal(f"holds dates or times ({values[0]!r})", keep=True)
    if (damaged := _damaged_numbers(table, column)) is not None:
        return _Refusal(damaged)
    if present > 100 and len(values) > 0.95 * present:
        return _Refusal(
            f"looks like an identifier or free text: {len(values):,} values, nearly all distinct"
        )
    if named_like_id(column.name) and len(values) == present > 1:
        return _Refusal(f"looks like an identifier: {present:,} values, all distinct", keep=True)
    return None


def _damaged_numbers(table: Table, column: Text) -> str | None:
    """What keeps a column that is meant to hold numbers from doing so, or None."""
    values = column.categories
    odd = [value for value in values if not _is_number(value)]
    commas = [value for value in odd if _COMMA_NUMBER.fullmatch(value)]
    if commas and (len(commas) > 0.5 * len(values) or len(commas) == len(odd)):
        separated = [value for value in commas if _SEPARATED.fullmatch(value)]
        if len(separated) < len(commas):
            return (
                f"holds numbers with commas ({commas[0]!r}): pass --decimal , if the comma is the "
                "decimal mark, or write them without"
            )
        row = int(np.argmax(column.codes == values.index(separated[0])))
        return (
            f"holds numbers with commas ({separated[0]!r} in {table.row(row)}), probably as "
            "thousands separators: write them without, or pass --decimal , if the comma is the "
            "decimal mark"
        )
    if len(values) - len(odd) > 10 and _share(column, odd) < 0.1:
        row = int(np.argmax(column.codes == values.index(odd[0])))
        others = f" and {counted(len(odd) - 1, 'more such value')}" if len(odd) > 1 else ""
        return (
            f"holds numbers, but {odd[0]!r} in {table.row(row)}{others}; pass "
            f"--missing {shlex.quote(odd[0])} if that stands for a missing value"
        )
    return None


def _too_many(column: Text, max_categories: int) -> _Refusal | None:
    count = len(column.categories)
    if count <= max_categories:
        return None
    return _Refusal(
        f"holds text with {count:,} distinct values, more than {max_categories} (raise the limit "
        f"with --max-categories {count}, or group rare values)"
    )


def named_like_id(name: str) -> bool:
    """Whether a column's name is that of an identifier, such as ``id`` or ``customer_id``."""
    return bool(_ID_NAME.search(name) or _ID_CAMEL.search(name))


def _is_number(value: str) -> bool:
    try:
        float(value)
    except ValueError:
        return False
    return "_" not in value


def _share(column: Text, values: Sequence[str]) -> float:
    """Fraction of the rows that hold one of these values."""
    chosen = set(values)
    wanted = np.array([value in chosen for value in column.categories] + [False])
    return float(wanted[column.codes].mean())


def _check_values(table: Table, columns: Sequence[Column], impute: bool) -> None:
    """Refuse infinite values, and missing ones unless they will be filled."""
    found = []
    for column in columns:
        if isinstance(column, Numbers):
            _check_finite(table, column)
        if not impute and not isinstance(column, Other):
            rows = np.flatnonzero(column.missing)
            if rows.size:
                found.append((int(rows[0]), column.name, rows.size))
    if found:
        row, name, _ = min(found, key=lambda entry: entry[0])
        total = sum(count for _, _, count in found)
        names = [name for _, name, _ in found]
        where = "this column"
        if len(found) > 1:
            where = f"{len(found)} columns: {listing([repr(name) for name in names])}"
        many = f" ({total:,} missing values in {where})" if total > 1 else ""
        raise DataError(
            f"missing value in {table.place(row, name)}{many}. Pass --impute mean to fill them, "
            f"or {_each('--drop', names)} to leave the column{'s' * (len(names) > 1)} out."
        )


def _check_finite(table: Table, column: Numbers, rows: np.ndarray | None = None) -> None:
    values = column.values if rows is None else column.values[rows]
    infinite = np.isinf(values)
    if infinite.any():
        at = int(np.argmax(infinite))
        row = at if rows is None else int(rows[at])
        raise DataError(
            f"infinite value in {table.place(row, column.name)}: every value must be finite"
        )


# ------------------------------------------------------------------------- fitting the features


def _number(
    table: Table, column: Numbers, rows: np.ndarray, standardize: bool, impute: bool
) -> Number:
    values = column.values[rows].astype(np.float64)
    missing = np.isnan(values)
    if missing.all():
        raise DataError(
            f"{table.source}: column {column.name!r} has no values in the training rows; pass "
            f"--drop {shlex.quote(column.name)}"
        )
    mean = float(values[~missing].mean())
    fill = mean if impute else None
    if not standardize:
        return Number(column.name, fill)
    if impute:
        values[missing] = mean
    scale = float(values.std())
    # Rounding leaves a constant column with a tiny spread.
    constant = scale <= 10 * np.finfo(np.float64).eps * abs(mean) or values.min() == values.max()
    return Number(column.name, fill, mean, 1.0 if constant else scale)


def _categories(column: Text, rows: np.ndarray, impute: bool) -> Categories:
    codes = column.codes[rows]
    present = np.unique(codes[codes >= 0])
    names = tuple(sorted(column.categories[code] for code in present))
    return Categories(column.name, names, missing=bool((codes < 0).any()), optional=impute)


def _say_what_was_done(
    features: Sequence[Feature], table: Table, rows: np.ndarray, say: Say
) -> None:
    filled = 0
    constant = []
    for feature in features:
        column = table.columns[feature.name]
        if isinstance(feature, Categories):
            extra = " (one of them for missing values)" if feature.missing else ""
            say(
                f"column {feature.name!r} holds text: one-hot encoded as "
                f"{counted(feature.width, 'column')}{extra}"
            )
        elif isinstance(column, Numbers):
            filled += int(column.missing.sum())
            values = column.values[rows]
            if (values == values[0]).all():
                constant.append(repr(feature.name))
    if filled:
        say(f"{filled:,} missing numbers filled with the mean of their column")
    if constant:
        what = "column has" if len(constant) == 1 else "columns have"
        say(f"{what} the same value in every training row: {listing(constant)}")


# ----------------------------------------------------------------------------------- encoding


def _check_known(table: Table, feature: Feature, column: Column, rows: np.ndarray | None) -> None:
    """Refuse a column of another type, or with values the model has no use for."""
    name = column.name
    if isinstance(column, Other):
        raise DataError(f"{table.source}: column {name!r} holds {column.description}")
    missing = column.missing if rows is None else column.missing[rows]
    if isinstance(feature, Number):
        if isinstance(column, Text):
            odd = [k for k, value in enumerate(column.categories) if not _is_number(value)]
            where = np.isin(column.codes, odd)
            row = int(np.argmax(where))
            value = column.categories[column.codes[row]]
            raise DataError(
                f"{table.place(row, name)} is {value!r}; the model was trained with numbers there"
            )
        _check_finite(table, column, rows)
        accepted = feature.fill is not None
    else:
        if isinstance(column, Numbers) and not missing.all():
            raise DataError(
                f"{table.source}: column {name!r} holds numbers; the model was trained with text "
                "there"
            )
        accepted = feature.optional
    if not accepted and missing.any():
        at = int(np.argmax(missing))
        row = at if rows is None else int(rows[at])
        raise DataError(
            f"missing value in {table.place(row, name)}; the model was trained without --impute "
            "and accepts none"
        )


def _scaled(feature: Number, column: Column, rows: slice | np.ndarray) -> np.ndarray:
    assert isinstance(column, Numbers)
    values = column.values[rows].astype(np.float64)
    if feature.fill is not None:
        values[np.isnan(values)] = feature.fill
    return (values - feature.mean) / feature.scale


def _known_codes(
    table: Table, feature: Categories, column: Column, rows: np.ndarray | None, say: Say
) -> np.ndarray:
    """For each row the place of its category among the feature's columns, or -1."""
    missing = len(feature.categories) if feature.missing else -1
    if not isinstance(column, Text):  # nothing but missing values
        return np.full(table.n_rows if rows is None else len(rows), missing, dtype=np.int64)
    place = {category: k for k, category in enumerate(feature.categories)}
    unknown = -2
    lookup = np.array([*(place.get(value, unknown) for value in column.categories), missing])
    chosen = column.codes if rows is None else column.codes[rows]
    codes = lookup[chosen]
    strange = np.flatnonzero(codes == unknown)
    if strange.size:
        values = np.unique(chosen[strange])
        first = column.categories[chosen[strange[0]]]
        others = f" and {counted(len(values) - 1, 'more value')}" if len(values) > 1 else ""
        say(
            f"column {feature.name!r}: {first!r}{others} did not occur in the training rows; "
            f"treated as no category ({strange.size:,} of {len(chosen):,} rows)"
        )
    return codes


# ------------------------------------------------------------------------------- rows and target


def target_values(table: Table, name: str) -> np.ndarray:
    """The target column as numbers or strings, without a missing or infinite value.

    Parameters
    ----------
    table : Table
    name : str

    Returns
    -------
    ndarray of shape (n_rows,)
        float64 or str.
    """
    column = table.column(name, "target column")
    if isinstance(column, Other):
        raise DataError(f"{table.source}: the target {name!r} holds {column.description}")
    missing = column.missing
    if missing.any():
        row = int(np.argmax(missing))
        raise DataError(
            f"missing value in {table.place(row, name)}: the target must be there in every row "
            f"({int(missing.sum()):,} missing)"
        )
    if isinstance(column, Text):
        if (damaged := _damaged_numbers(table, column)) is not None:
            raise DataError(f"{table.source}: the target {name!r} {damaged}")
        return column.strings()
    _check_finite(table, column)
    return np.asarray(column.values, dtype=np.float64)


def split(
    n_rows: int, fraction: float, seed: int, classes: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Training and validation rows, each in the order of the file.

    Parameters
    ----------
    n_rows : int
    fraction : float
        Share of the rows to validate on, 0 to below 1.
    seed : int
    classes : ndarray of shape (n_rows,), optional
        Labels: each class is then split by itself, and keeps at least one training row.

    Returns
    -------
    training, validation : ndarray of int64

    Examples
    --------
    >>> training, validation = split(10, 0.2, seed=0)
    >>> len(training), len(validation)
    (8, 2)
    """
    shuffled = np.random.default_rng(seed).permutation(n_rows)
    if classes is None:
        count = round(fraction * n_rows)
        validation = shuffled[:count]
    else:
        codes = np.unique(classes, return_inverse=True)[1][shuffled]
        groups = [shuffled[codes == code] for code in range(codes.max() + 1)]
        counts = [min(round(fraction * len(group)), len(group) - 1) for group in groups]
        parts = [group[:count] for group, count in zip(groups, counts, strict=True)]
        validation = np.concatenate(parts)
    training = np.setdiff1d(np.arange(n_rows), validation, assume_unique=True)
    return training, np.sort(validation)
