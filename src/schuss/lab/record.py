"""What was measured, as plain data: cells, curves, ceilings, and the record that holds them."""

from __future__ import annotations

import dataclasses
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from schuss.errors import DataError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from rich.console import RenderableType

__all__ = ["Ceilings", "Cell", "Curve", "Outcome", "Record", "load"]

FORMAT = 1
TABLE_WIDTH = 140  # columns of a table that is not for a terminal
KNEE = 0.9  # part of the best speed that the knee reaches
IN_ORDER = ("sequential", "blocks")  # orders that read memory nearly as it lies


@dataclasses.dataclass(frozen=True)
class Ceilings:
    """What the machine can do with data of this shape, whoever computes.

    Attributes
    ----------
    n, d : int
        Rows and columns of the matrix that was read.
    dtype : str
    cores : int
        What "all" means.
    measured_by : str
        "native" (compiled sums) or "numpy" (without the extension: somewhat low).
    sequential_one, sequential_all : float
        Rows per second that one core, and all of them, sum in the order in which they lie.
    random_one, random_all : float
        The same by shuffled index, prefetched in the best way.
    flops_one, flops_all : float or None
        Multiply-adds in registers, in operations per second (two each).
    fork_join : float or None
        Seconds to hand an empty job to all cores and have it back.
    meeting : float or None
        Seconds for all cores to wait for each other once within a job.
    call_overhead : dict of str to float
        Seconds of a call of ``descend`` that updates once, from one row of one column.

    Examples
    --------
    >>> import schuss
    >>> found = schuss.lab.ceilings(d=10, elements=10_000, repeats=1)
    >>> schuss.lab.Ceilings.from_dict(found.to_dict()) == found
    True
    """

    n: int
    d: int
    dtype: str
    cores: int
    measured_by: str
    sequential_one: float
    sequential_all: float
    random_one: float
    random_all: float
    flops_one: float | None
    flops_all: float | None
    fork_join: float | None
    meeting: float | None
    call_overhead: dict[str, float]

    def of(self, order: str, cores: int) -> tuple[str, float]:
        """Name and rows per second of the ceiling that binds.

        Memory as a rule; the arithmetic, 4 d operations for each row, where that is less.

        Parameters
        ----------
        order : str
            Name or text form of an order.
        cores : int
            How many cores work.
        """
        how = "sequential" if order.partition("(")[0] in IN_ORDER else "random"
        one = cores == 1
        where = "one" if one else "all"
        label = f"{'random-row' if how == 'random' else how}, {'one core' if one else 'all cores'}"
        speed: float = getattr(self, f"{how}_{where}")
        flops: float | None = getattr(self, f"flops_{where}")
        if flops is not None and flops / (4 * self.d) < speed:
            return f"arithmetic, {'one core' if one else 'all cores'}", flops / (4 * self.d)
        return label, speed

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as JSON holds them."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Ceilings:
        """The inverse of :meth:`to_dict`.

        Parameters
        ----------
        data : dict
        """
        return cls(**data)

    def table(self) -> RenderableType:
        """The figures as a table for the terminal."""
        from schuss.lab.table import ceilings_table

        return ceilings_table([self])


@dataclasses.dataclass(frozen=True)
class Cell:
    """One point of a sweep.

    Attributes
    ----------
    name : str
        Backend, peer or step function.
    kind : {"backend", "peer", "step"}
    n, d : int
        Rows and columns of the data; 0 where a step function did not say.
    dtype, loss, order : str
        Empty where a step function did not say.
    batch_size : int
    cores : int
        Cores that worked, or could have.
    samples_per_second : float
        Median of the repeats.
    spread : tuple of two floats
        Slowest and fastest repeat.
    repeats : int
    seconds_per_update : float
        Median.
    gigabytes_per_second : float or None
        Data read for the samples, each counted once.
    ceiling : str
        The ceiling that binds, "" where none was measured.
    ceiling_speed : float or None
        Rows per second of that ceiling, measured between the repeats (median).
    fraction : float or None
        Speed over ceiling: median of the ratios of neighbours in time.
    verified : bool or None
        Whether the parameters reached were those of the reference; None where nobody could say.
    objective : float or None
        Mean loss reached by a peer, on the rows that were checked.

    Examples
    --------
    >>> import schuss
    >>> record = schuss.lab.sweep(lambda batch_size: sum(range(batch_size)), [10], seconds=0.001)
    >>> cell = record.cells[0]
    >>> cell.batch_size, cell.kind, cell.samples_per_second > 0
    (10, 'step', True)
    """

    name: str
    kind: str
    n: int
    d: int
    dtype: str
    loss: str
    order: str
    batch_size: int
    cores: int
    samples_per_second: float
    spread: tuple[float, float]
    repeats: int
    seconds_per_update: float
    gigabytes_per_second: float | None = None
    ceiling: str = ""
    ceiling_speed: float | None = None
    fraction: float | None = None
    verified: bool | None = None
    objective: float | None = None

    @property
    def setting(self) -> tuple[int, str, str, str]:
        """Columns, dtype, loss and order: cells that share them stand in one chart."""
        return self.d, self.dtype, self.loss, self.order

    @property
    def key(self) -> tuple[str, int, str, str, str, int, bool]:
        """What makes two cells of two records the same cell."""
        return (self.name, *self.setting, self.batch_size, self.cores == 1)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as JSON holds them."""
        return dataclasses.asdict(self) | {"spread": list(self.spread)}

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Cell:
        """The inverse of :meth:`to_dict`.

        Parameters
        ----------
        data : dict
        """
        return cls(**{**data, "spread": tuple(data["spread"])})


@dataclasses.dataclass(frozen=True)
class Curve:
    """Throughput against batch size, of one backend in one setting.

    Attributes
    ----------
    cells : tuple of Cell
        In ascending batch size.

    Examples
    --------
    >>> import schuss
    >>> record = schuss.lab.sweep(lambda batch_size: sum(range(batch_size)), [1, 8], seconds=0.001)
    >>> curve = record.curves()[0]
    >>> curve.name, curve.knee.batch_size in (1, 8)
    ('step', True)
    """

    cells: tuple[Cell, ...]

    @property
    def name(self) -> str:
        """Who computed."""
        return self.cells[0].name

    @property
    def best(self) -> Cell:
        """The fastest cell."""
        return max(self.cells, key=lambda cell: cell.samples_per_second)

    @property
    def knee(self) -> Cell:
        """The smallest batch that reaches 90 % of the best speed."""
        enough = KNEE * self.best.samples_per_second
        return next(cell for cell in self.cells if cell.samples_per_second >= enough)

    @property
    def decline(self) -> float | None:
        """Part of the best speed that the largest batch has lost; None below 10 %."""
        lost = 1 - self.cells[-1].samples_per_second / self.best.samples_per_second
        return lost if lost >= 1 - KNEE else None


@dataclasses.dataclass(frozen=True)
class Outcome:
    """One figure beside its bar.

    Attributes
    ----------
    key : str
        Row of the table.
    what : str
        What is measured.
    column : str
        Which data, such as "d = 20".
    unit : str
        "fraction", "ratio", "samples/s", "s" or "bytes".
    at_least : bool
        Whether the figure has to be at least the bar, or at most.
    bar, moonshot : float or None
    measured : float or None
        None where it could not be measured.
    note : str
        Why not, or what else to know.

    Examples
    --------
    >>> import schuss
    >>> made = schuss.lab.Outcome("k", "jit by native", "", "ratio", True, 0.4, 0.8, 0.55, "")
    >>> made.verdict
    'bar'
    """

    key: str
    what: str
    column: str
    unit: str
    at_least: bool
    bar: float | None
    moonshot: float | None
    measured: float | None
    note: str

    @property
    def verdict(self) -> str:
        """What is met: "moonshot", "bar", "missed"; or "not measured"."""
        if self.measured is None:
            return "not measured"
        if self._meets(self.moonshot):
            return "moonshot"
        return "bar" if self._meets(self.bar) else "missed"

    def _meets(self, wanted: float | None) -> bool:
        if wanted is None or self.measured is None:
            return False
        return self.measured >= wanted if self.at_least else self.measured <= wanted

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as JSON holds them."""
        return dataclasses.asdict(self)


@dataclasses.dataclass(frozen=True, repr=False)
class Record:
    """Everything that one run of the lab measured. Printed, it shows its tables.

    Attributes
    ----------
    machine : dict
        Processor, cores, versions.
    settings : dict
        How it was measured: elements, repeats, seconds for each, threads, seed.
    ceilings : tuple of Ceilings
        One for each number of columns and dtype.
    cells : tuple of Cell
    outcomes : tuple of Outcome
        The table of bars, where it was asked for.
    absent : dict of str to str
        Peers that were not run, and why.
    notes : tuple of str
        What a reader should know.

    Examples
    --------
    >>> import schuss
    >>> record = schuss.lab.sweep(lambda batch_size: sum(range(batch_size)), [1, 8], seconds=0.001)
    >>> record.write("sweep.json")
    >>> schuss.lab.load("sweep.json") == record
    True
    """

    machine: dict[str, Any]
    settings: dict[str, Any]
    ceilings: tuple[Ceilings, ...] = ()
    cells: tuple[Cell, ...] = ()
    outcomes: tuple[Outcome, ...] = ()
    absent: dict[str, str] = dataclasses.field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def curves(self) -> list[Curve]:
        """Cells by backend and setting, each in ascending batch size."""
        grouped: dict[Any, list[Cell]] = {}
        for cell in self.cells:
            grouped.setdefault((cell.setting, cell.name), []).append(cell)
        by_size = (sorted(cells, key=lambda cell: cell.batch_size) for cells in grouped.values())
        return [Curve(tuple(cells)) for cells in by_size]

    def ceilings_for(self, cell: Cell) -> Ceilings | None:
        """The ceilings of a cell's data.

        Parameters
        ----------
        cell : Cell
        """
        matching = (c for c in self.ceilings if (c.d, c.dtype) == (cell.d, cell.dtype))
        return next(matching, None)

    # ---- Plain data ----

    def to_dict(self) -> dict[str, Any]:
        """Plain data, as JSON holds them."""
        return {
            "format": FORMAT,
            "machine": self.machine,
            "settings": self.settings,
            "ceilings": [part.to_dict() for part in self.ceilings],
            "cells": [cell.to_dict() for cell in self.cells],
            "outcomes": [outcome.to_dict() for outcome in self.outcomes],
            "absent": self.absent,
            "notes": list(self.notes),
        }

    @classmethod
    def from_dict(cls, data: dict[str, Any]) -> Record:
        """The inverse of :meth:`to_dict`.

        Parameters
        ----------
        data : dict
        """
        return cls(
            machine=data["machine"],
            settings=data["settings"],
            ceilings=tuple(map(Ceilings.from_dict, data["ceilings"])),
            cells=tuple(map(Cell.from_dict, data["cells"])),
            outcomes=tuple(Outcome(**outcome) for outcome in data["outcomes"]),
            absent=data["absent"],
            notes=tuple(data["notes"]),
        )

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the record as JSON.

        Parameters
        ----------
        path : path-like
        """
        text = json.dumps(self.to_dict(), indent=1) + "\n"
        Path(path).write_text(text, encoding="utf-8")

    # ---- For people ----

    def __repr__(self) -> str:
        names = ", ".join(dict.fromkeys(cell.name for cell in self.cells))
        return f"<schuss.lab.Record of {len(self.cells)} cells: {names[:80]}>"

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=TABLE_WIDTH)
        with console.capture() as captured:
            console.print(self.table())
        return captured.get()

    def table(self) -> RenderableType:
        """The record as tables for the terminal (for ``rich.print``)."""
        from schuss.lab.table import record_table

        return record_table(self)

    def plot(self, path: str | os.PathLike[str] | None = None) -> Figure:
        """Draw throughput and time per update against batch size; needs matplotlib.

        Parameters
        ----------
        path : path-like, optional
            Where to save the figure, as PNG, SVG or PDF by its ending.
        """
        from schuss.lab.plot import draw

        return draw(self, path)

    def to_html(self, path: str | os.PathLike[str]) -> None:
        """Write one interactive page that needs no network; needs plotly.

        Parameters
        ----------
        path : path-like
        """
        from schuss.lab.report_html import page

        Path(path).write_text(page(self), encoding="utf-8")


def load(path: str | os.PathLike[str]) -> Record:
    """Read a record that :meth:`Record.write` wrote.

    Parameters
    ----------
    path : path-like

    Returns
    -------
    Record

    Raises
    ------
    schuss.errors.DataError
        If the file holds no record, or one of another format.

    Examples
    --------
    >>> import schuss
    >>> record = schuss.lab.sweep(lambda batch_size: sum(range(batch_size)), [4], seconds=0.001)
    >>> record.write("sweep.json")
    >>> len(schuss.lab.load("sweep.json").cells)
    1
    """
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8"))
    except (UnicodeDecodeError, json.JSONDecodeError) as error:
        raise DataError(f"{os.fspath(path)!r} is no JSON file: {error}") from None
    if not isinstance(data, dict) or data.get("format") != FORMAT:
        raise DataError(
            f"{os.fspath(path)!r} is no record of the lab in format {FORMAT}; expected a file "
            "that 'schuss bench --json' or Record.write wrote."
        )
    try:
        return Record.from_dict(data)
    except (KeyError, TypeError) as error:
        raise DataError(f"{os.fspath(path)!r}: a damaged record of the lab ({error})") from None


def fastest_peer(cells: Iterable[Cell]) -> Cell | None:
    """The fastest verified peer that runs on the CPU."""
    peers = [c for c in cells if c.kind == "peer" and c.verified and c.name != "cuML"]
    return max(peers, key=lambda cell: cell.samples_per_second, default=None)


def settings_of(cells: Iterable[Cell]) -> list[tuple[int, str, str, str]]:
    """Settings in the order in which they first come."""
    return list(dict.fromkeys(cell.setting for cell in cells))
