"""The optimizers' steps beside torch's own and beside the machine's memory.

All take turns on the same tensors; the figures are medians of ratios of neighbours in time.
"""

from __future__ import annotations

import dataclasses
import json
import os
import statistics
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from schuss.backends.threads import usable_threads
from schuss.errors import DataError
from schuss.formulas.spec import check_number
from schuss.lab import machine
from schuss.lab.contest import REST
from schuss.lab.record import Outcome

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["OptimCell", "OptimRecord", "load", "optimizers"]

FORMAT = 1
NUMBERS = 10_000_000
TENSORS = (1, 1_000, 100_000)
RATE = 1e-9  # so that no number of turns brings parameters to where arithmetic is slow

#: Options and number of slots of each, and the most that a step may take beside torch's default.
CASES: dict[str, tuple[str, dict[str, Any], int, float]] = {
    "SGD": ("SGD", {}, 0, 1.0),
    "SGD, momentum": ("SGD", {"momentum": 0.9}, 1, 0.7),
    "Adam": ("Adam", {}, 2, 0.25),
    "AdamW": ("AdamW", {}, 2, 0.25),
}
MANY = 100_000  # from so many tensors on the bar beside torch's default is another
MOST_WITH_MANY = 0.3


@dataclasses.dataclass(frozen=True)
class OptimCell:
    """One optimizer's step over tensors of one number and size.

    Attributes
    ----------
    optimizer : str
    tensors, numbers : int
        How many tensors, and the numbers that all of them have together.
    threads : int
    seconds : dict of str to float
        Medians of a step: "schuss", "default" and "fused" (torch's), and "triad", a loop that reads
        and writes the same numbers in place.
    ratios : dict of str to float
        Of our step's time to that of "default", "fused" and "triad".

    Examples
    --------
    >>> import schuss
    >>> seconds = {"schuss": 0.009, "default": 0.09, "fused": 0.01, "triad": 0.0085}
    >>> ratios = {"default": 0.1, "fused": 0.9, "triad": 1.06}
    >>> schuss.lab.OptimCell("Adam", 1000, 10_000_000, 1, seconds, ratios).ratios["default"]
    0.1
    """

    optimizer: str
    tensors: int
    numbers: int
    threads: int
    seconds: dict[str, float]
    ratios: dict[str, float]


@dataclasses.dataclass(frozen=True)
class OptimRecord:
    """What was measured of optimizers, and where.

    Attributes
    ----------
    machine : dict
    settings : dict
    cells : tuple of OptimCell

    Examples
    --------
    >>> import schuss
    >>> schuss.lab.OptimRecord({}, {}, ()).outcomes()
    []
    """

    machine: dict[str, Any]
    settings: dict[str, Any]
    cells: tuple[OptimCell, ...]

    def outcomes(self) -> list[Outcome]:
        """The figures beside their bars, which are for 10^7 numbers."""
        found = [made for cell in self.cells for made in _outcomes(cell)]
        return sorted(found, key=lambda made: made.what)

    def table(self) -> RenderableType:
        """The record as a table for the terminal."""
        from rich.console import Group

        from schuss.lab.table import headed, machine_line

        table = headed("", *HEADINGS)
        for row in self.rows():
            table.add_row(*row)
        return Group(machine_line(self.machine), table)

    def rows(self) -> list[tuple[str, ...]]:
        """The cells as text, in the order of :data:`HEADINGS`."""
        return [_row(cell) for cell in self.cells]

    def write(self, path: str | os.PathLike[str]) -> None:
        """Write the record as JSON.

        Parameters
        ----------
        path : path-like
        """
        content = {"format": FORMAT, "kind": "optimizers", **dataclasses.asdict(self)}
        Path(path).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


HEADINGS = (
    "optimizer", "tensors", "threads", "ms", "of torch's default", "of its fused", "of the triad",
)  # fmt: skip


def _row(cell: OptimCell) -> tuple[str, ...]:
    ratios = (f"{cell.ratios[name]:.2f}×" for name in ("default", "fused"))
    return (
        cell.optimizer,
        f"{cell.tensors:,}",
        str(cell.threads),
        f"{1e3 * cell.seconds['schuss']:.1f}",
        *ratios,
        f"{100 / cell.ratios['triad']:.0f} %",
    )


def _outcomes(cell: OptimCell) -> list[Outcome]:
    most = MOST_WITH_MANY if cell.tensors >= MANY else CASES[cell.optimizer][3]
    where = f"{cell.tensors} tensors, {cell.threads} threads"
    return [
        Outcome("default", f"{cell.optimizer} by torch's default", where, "ratio", False, most,
                None, cell.ratios["default"], ""),
        Outcome("fused", f"{cell.optimizer} by torch's fused", where, "ratio", False, 1.0, None,
                cell.ratios["fused"], ""),
        Outcome("triad", f"{cell.optimizer} of the triad", where, "fraction", True, 0.9, None,
                1 / cell.ratios["triad"], ""),
    ]  # fmt: skip


def load(path: str | os.PathLike[str]) -> OptimRecord:
    """Read a record that :meth:`OptimRecord.write` has written.

    Parameters
    ----------
    path : path-like

    Raises
    ------
    schuss.errors.DataError
        If the file is none.
    """
    try:
        content = json.loads(Path(path).read_text(encoding="utf-8"))
        if (content["format"], content["kind"]) != (FORMAT, "optimizers"):
            raise KeyError
        cells = tuple(OptimCell(**cell) for cell in content["cells"])
        return OptimRecord(content["machine"], content["settings"], cells)
    except (ValueError, KeyError, TypeError) as error:
        raise DataError(f"{str(path)!r}: expected a record of optimizers' speed.") from error


def optimizers(
    *,
    numbers: int = NUMBERS,
    tensors: Sequence[int] = TENSORS,
    threads: Sequence[int] | None = None,
    repeats: int = 5,
    seconds: float = 0.2,
    watch: Callable[[OptimCell], None] | None = None,
) -> OptimRecord:
    """Time a step of each optimizer beside torch's, on float32 tensors on the CPU.

    Parameters
    ----------
    numbers : int, default=10**7
        Numbers that all tensors have together.
    tensors : sequence of int, default=(1, 1000, 100000)
        Among how many tensors they are divided.
    threads : sequence of int, optional
        Threads to use; by default one, and all there are.
    repeats : int, default=5
        Turns of each.
    seconds : float, default=0.2
        About how long a turn lasts; a step at least.
    watch : callable, optional
        Called with each cell as it comes.

    Returns
    -------
    OptimRecord

    Raises
    ------
    schuss.errors.SchussError
        For bad arguments, or without torch.

    Examples
    --------
    >>> import schuss
    >>> record = schuss.lab.optimizers(
    ...     numbers=1000, tensors=[10], threads=[1], repeats=1, seconds=0.001
    ... )
    >>> [cell.optimizer for cell in record.cells]
    ['SGD', 'SGD, momentum', 'Adam', 'AdamW']
    """
    from schuss.torch import optimizers as _  # noqa: F401 - says what is missing

    numbers = check_number("numbers", numbers, {">=": 1}, integer=True)
    repeats = check_number("repeats", repeats, {">=": 1}, integer=True)
    seconds = check_number("seconds", seconds, {">": 0})
    limits: dict[str, float] = {">=": 1, "<=": numbers}
    tensors = [check_number("tensors", k, limits, integer=True) for k in tensors]
    threads = sorted({1, usable_threads(None)}) if threads is None else threads
    threads = [check_number("threads", k, {">=": 1}, integer=True) for k in threads]
    import torch

    before, cells = torch.get_num_threads(), []
    try:
        for cores in threads:
            torch.set_num_threads(cores)
            for count in tensors:
                for name in CASES:
                    cell = _measure(name, numbers, count, cores, repeats, seconds)
                    cells.append(cell)
                    if watch:
                        watch(cell)
    finally:
        torch.set_num_threads(before)
    settings = {"numbers": numbers, "tensors": tensors, "threads": threads, "repeats": repeats}
    return OptimRecord(machine.describe(("torch",)), settings, tuple(cells))


def _measure(
    name: str, numbers: int, tensors: int, threads: int, repeats: int, seconds: float
) -> OptimCell:
    """One cell."""
    import torch

    import schuss.torch as ours

    kind, options, slots, _ = CASES[name]
    generator = torch.Generator().manual_seed(0)
    size = numbers // tensors
    params = [torch.randn(size, generator=generator).requires_grad_() for _ in range(tensors)]
    for p in params:
        p.grad = torch.randn(size, generator=generator)
    options = {"lr": RATE, **options}
    steps = {
        "schuss": getattr(ours, kind)(params, **options).step,
        "default": getattr(torch.optim, kind)(params, **options).step,
        "fused": getattr(torch.optim, kind)(params, fused=True, **options).step,
        "triad": triad(size * tensors, slots, threads),
    }
    times = _take_turns(steps, repeats, seconds)
    ratios = {
        other: statistics.median(a / b for a, b in zip(times["schuss"], times[other], strict=True))
        for other in ("default", "fused", "triad")
    }
    medians = {who: statistics.median(turns) for who, turns in times.items()}
    return OptimCell(name, tensors, size * tensors, threads, medians, ratios)


def triad(numbers: int, slots: int, threads: int) -> Callable[[], None]:
    """A loop over one tensor that reads and writes what an update with so many slots does.

    Parameters
    ----------
    numbers : int
    slots : int
    threads : int
    """
    import torch

    from schuss import _native
    from schuss.torch.optimizers import NUMBERS as CONSTANTS

    arrays = [torch.ones(numbers) for _ in range(2 + slots)]
    addresses = np.array([[array.data_ptr() for array in arrays]], np.int64)
    table = _native.TensorTable("float32", addresses, np.array([numbers]), arrays)
    constants = [RATE if name == "rate" else 0.0 for name in CONSTANTS]
    kind = _native.updates().index(f"triad{slots}")
    return lambda: table.optimize(kind, [constants], None, None, threads)


def _take_turns(
    steps: dict[str, Callable[[], Any]], repeats: int, seconds: float
) -> dict[str, list[float]]:
    """Seconds of a step in each turn, after one that warms up and says how many make a turn."""
    counts = {}
    for who, step in steps.items():
        step()
        begin = time.perf_counter()
        step()
        counts[who] = max(1, int(seconds / (time.perf_counter() - begin)))
    times: dict[str, list[float]] = {who: [] for who in steps}
    for turn in range(repeats):
        time.sleep(REST)
        order = list(steps.items())
        for who, step in order[turn % len(order) :] + order[: turn % len(order)]:
            begin = time.perf_counter()
            for _ in range(counts[who]):
                step()
            times[who].append((time.perf_counter() - begin) / counts[who])
    return times
