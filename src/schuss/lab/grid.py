"""``throughput``: batch sizes x backends x data x loss x order."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from schuss.backends import available
from schuss.backends.threads import usable_threads
from schuss.checks import encode
from schuss.data import arrays
from schuss.data import order as orders
from schuss.errors import InvalidArgument, InvalidType, unknown_name
from schuss.formulas import losses
from schuss.formulas.losses import Loss
from schuss.formulas.spec import check_number
from schuss.lab import machine
from schuss.lab import peers as others
from schuss.lab.contest import Standing, contest
from schuss.lab.descent import Descent, Task
from schuss.lab.record import Ceilings, Cell, Record
from schuss.lab.synthetic import ELEMENTS, make, safe_rate

__all__ = ["Bench", "batch_sizes_up_to", "throughput"]

#: Called with the record so far, and what comes next.
Watch = Callable[[Record, str], Any]


# What the lab computes in.
DTYPES = ("float32", "float64")


def batch_sizes_up_to(n: int, factor: int = 4) -> list[int]:
    """1, 4, 16, ... and n."""
    sizes = list(itertools.takewhile(lambda size: size < n, (factor**k for k in range(64))))
    return [*sizes, n]


def throughput(
    X: Any = None,
    y: Any = None,
    batch_sizes: Sequence[int] | None = None,
    backends: str | Sequence[str] | None = None,
    d: int | Sequence[int] = (20, 100, 1000),
    dtype: str | Sequence[str] = "float32",
    loss: str | Sequence[str] = "squared_error",
    order: str | Sequence[str] = "shuffle",
    threads: int | None = None,
    elements: int = ELEMENTS,
    repeats: int = 5,
    seconds: float = 0.2,
    peers: bool | Sequence[str] = False,
    seed: int = 0,
    watch: Watch | None = None,
) -> Record:
    """Measure samples per second against batch size, beside the machine's ceilings.

    For every combination of data, loss, order and batch size, all backends (and peers) warm up and
    then take turns, with the ceiling that binds measured between the turns. A turn of a backend
    makes the order and calls the kernel segment by segment, as :func:`schuss.fit` does; compilation
    and the checks of the data are left out. Before it is timed, each backend is compared with the
    reference on a few batches. The rule is plain sgd, at a rate at which no step overshoots.

    Parameters
    ----------
    X : array-like of shape (n_samples, n_features), optional
        Data of your own, in place of synthetic data of ``elements`` numbers.
    y : array-like of shape (n_samples,), optional
        Targets, with X.
    batch_sizes : sequence of int, optional
        By default 1, 4, 16, ... and n.
    backends : str or sequence of str, optional
        Every compiled backend that is available, by default.
    d : int or sequence of int, default=(20, 100, 1000)
        Columns of the synthetic data.
    dtype : {"float32", "float64"} or a sequence of these, default="float32"
    loss : str or sequence of str, default="squared_error"
    order : str or sequence of str, default="shuffle"
    threads : int, optional
        Most threads; by default what :func:`schuss.fit` would use.
    elements : int, default=100_000_000
        n * d of the synthetic data. What fits a cache says nothing about memory.
    repeats : int, default=5
        Turns of each.
    seconds : float, default=0.2
        About how long a turn lasts.
    peers : bool or sequence of str, default=False
        Other libraries to run beside: all that are installed, or some by name.
    seed : int, default=0
    watch : callable, optional
        Called as ``watch(record so far, what comes next)``.

    Returns
    -------
    Record

    Raises
    ------
    schuss.errors.SchussError
        For arguments that are not accepted, and for a backend that is not available.

    Examples
    --------
    >>> import schuss
    >>> record = schuss.lab.throughput(
    ...     d=5, elements=5_000, batch_sizes=[1, 8, 1000], backends="reference",
    ...     repeats=2, seconds=0.001,
    ... )
    >>> curve = record.curves()[0]
    >>> curve.name, [cell.batch_size for cell in curve.cells], curve.cells[0].verified
    ('reference', [1, 8, 1000], True)
    """
    engines, asked = check_backends(backends), check_peers(peers)
    bench = Bench(engines, asked, threads, repeats, seconds, seed, watch)
    shapes = [None] if X is not None else many("d", d)
    kinds = many("dtype", dtype)
    for kind in kinds:
        if str(kind) not in DTYPES:
            raise unknown_name("dtype", str(kind), DTYPES)
    measured = [losses.get(name) for name in many("loss", loss)]
    for one in measured:
        if isinstance(one, losses.VectorLoss):
            raise InvalidArgument(f"loss={str(one)!r}: the lab measures losses of one output.")
    check_number("elements", elements, {">=": 1}, integer=True)
    for columns, kind in itertools.product(shapes, kinds):
        for the_loss in measured:
            if X is not None:
                data = given(X, y, kind, the_loss)
            else:
                data = make(
                    check_number("d", columns, {">=": 1}, integer=True),
                    elements,
                    kind,
                    the_loss,
                    seed,
                )
            bench.use(data, the_loss)
            for name in many("order", order):
                for size in sizes_for(batch_sizes, data[0].shape[0]):
                    bench.measure(str(orders.get(name)), size)
    return bench.finish()


class Bench:
    """Measures cell after cell and keeps the record.

    Parameters
    ----------
    engines : sequence of str
        Backends.
    peers : sequence of str
    threads : int or None
    repeats : int
    seconds : float
    seed : int
    watch : callable or None
    """

    def __init__(
        self,
        engines: Sequence[str],
        peers: Sequence[str],
        threads: int | None,
        repeats: int,
        seconds: float,
        seed: int,
        watch: Watch | None = None,
    ) -> None:
        check_number("repeats", repeats, {">=": 1}, integer=True)
        check_number("seconds", seconds, {">": 0.0})
        self.engines, self.peers = engines, peers
        self.cores = usable_threads(threads)
        self.repeats, self.seconds, self.seed = repeats, seconds, seed
        self.watch = watch
        gone = others.absent()
        self.record = Record(
            machine=machine.describe(others.versions() if peers else ()),
            settings={
                "repeats": repeats,
                "seconds": seconds,
                "threads": self.cores,
                "seed": seed,
                "rule": "sgd",
                "elements": [],
            },
            absent={name: gone[name] for name in peers if name in gone},
        )

    def tell(self, following: str) -> None:
        """Show what there is, and what comes next."""
        if self.watch:
            self.watch(self.record, following)

    def add(self, **parts: tuple[Any, ...]) -> None:
        """Append to parts of the record."""
        longer: dict[str, Any] = {
            name: (*getattr(self.record, name), *new) for name, new in parts.items()
        }
        self.record = dataclasses.replace(self.record, **longer)

    def use(self, data: tuple[np.ndarray, np.ndarray], loss: Loss) -> None:
        """Go on with these data; measure the machine's ceilings on them if that is new."""
        X = data[0]
        self.data, self.loss, self.rate = data, loss, safe_rate(X, loss)
        shape = (*X.shape, X.dtype.name)
        known = [c for c in self.record.ceilings if (c.n, c.d, c.dtype) == shape]
        self.tell(f"ceilings, d = {X.shape[1]}, {X.dtype.name}")
        self.probe = machine.Probe(X, self.cores)
        if known:
            self.bound: Ceilings = known[0]
        else:
            self.bound = machine.of(self.probe)
            self.add(ceilings=(self.bound,))
            self.record.settings["elements"].append(X.size)

    def task(self, order: str, batch_size: int, threads: int | None = None) -> Task:
        """What the competitors of a cell have to do."""
        cores = threads or self.cores
        return Task(*self.data, self.loss, order, batch_size, cores, self.seed, self.rate)

    def ceiling(self, order: str, cores: int) -> float:
        """Rows per second of the ceiling that binds, now."""
        label, limit = self.bound.of(order, cores)
        if label.startswith("arithmetic"):
            return limit
        return self.probe.again(order, 1 if cores == 1 else self.cores)

    def measure(
        self,
        order: str,
        batch_size: int,
        engines: Iterable[str] | None = None,
        peers: Sequence[str] | None = None,
        threads: int | None = None,
    ) -> tuple[Cell, ...]:
        """The cells of one batch size, of everybody who can do the task."""
        task = self.task(order, batch_size, threads)
        self.tell(f"d = {task.d}, {task.X.dtype.name}, {order}, batch size {batch_size}")
        competitors: list[Any] = [Descent(name, task) for name in engines or self.engines]
        competitors += others.peers_for(task, self.peers if peers is None else peers)
        standings = contest(
            competitors, self.repeats, self.seconds, lambda cores: self.ceiling(order, cores)
        )
        cells = tuple(as_cell(standing, task, self.bound) for standing in standings)
        self.add(cells=cells)
        return cells

    def finish(self) -> Record:
        """The record, with a note on what does not agree."""
        wrong = [cell for cell in self.record.cells if cell.verified is False]
        for cell in wrong:
            note = (
                f"{cell.name} at batch size {cell.batch_size}, d = {cell.d}, {cell.order} did not "
                "reach the parameters that it should have"
            )
            self.add(notes=(note,))
        if self.bound.measured_by == "numpy":
            self.add(notes=("ceilings measured by NumPy, somewhat low: no native extension",))
        self.tell("")
        return self.record


def as_cell(standing: Standing, task: Task, bound: Any) -> Cell:
    """What the record keeps of a competitor's turns."""
    who = standing.competitor
    label, _ = bound.of(task.order, who.cores)
    return Cell(
        name=who.name,
        kind=who.kind,
        n=task.n,
        d=task.d,
        dtype=task.X.dtype.name,
        loss=str(task.loss),
        order=task.order,
        batch_size=task.batch_size,
        cores=who.cores,
        samples_per_second=standing.speed,
        spread=standing.spread,
        repeats=len(standing.passes),
        seconds_per_update=standing.seconds_per_update,
        gigabytes_per_second=standing.speed * task.d * task.X.itemsize / 1e9,
        ceiling=label,
        ceiling_speed=standing.ceiling,
        fraction=standing.fraction,
        verified=who.verified,
        objective=who.objective,
    )


# ---- Arguments -----------------------------------------------------------------------------------


def many(name: str, value: Any) -> list[Any]:
    """One value or several, as a list."""
    values = [value] if isinstance(value, (str, int, np.integer)) else list(value)
    if not values:
        raise InvalidArgument(f"{name}={value!r}: expected at least one.")
    return values


def check_backends(asked: str | Sequence[str] | None) -> list[str]:
    """Names of backends; every compiled one there is, by default."""
    if asked is not None:
        names = many("backends", asked)
        for name in names:
            if name not in available():
                raise unknown_name("backends", name, available())
        return names
    compiled = [name for name, why in available().items() if why is None and name != "reference"]
    return compiled or ["reference"]


def check_peers(asked: bool | str | Sequence[str]) -> list[str]:
    """Names of peers."""
    if isinstance(asked, bool):
        return others.names() if asked else []
    chosen = many("peers", asked)
    for name in chosen:
        if name not in others.names():
            raise unknown_name("peers", name, others.names())
    return chosen


def sizes_for(asked: Sequence[int] | None, n: int) -> list[int]:
    """Batch sizes in ascending order, those beyond n left out."""
    if asked is None:
        return batch_sizes_up_to(n)
    sizes = many("batch_sizes", asked)
    for size in sizes:
        check_number("batch_sizes", size, {">=": 1}, integer=True)
    fitting = sorted({int(size) for size in sizes if size <= n})
    if not fitting:
        raise InvalidArgument(f"batch_sizes={asked!r}: expected some of 1 ... {n}, the rows.")
    return fitting


def given(X: Any, y: Any, dtype: str, loss: Loss) -> tuple[np.ndarray, np.ndarray]:
    """The user's data, as the kernels take them."""
    if y is None:
        raise InvalidType("y=None: expected the targets that belong to X.")
    matrix = arrays.as_matrix(X, arrays.resolve_dtype(dtype))
    targets, _ = encode(y, matrix.shape[0], matrix.dtype, loss)
    return matrix, targets
