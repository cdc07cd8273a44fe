"""The speed to reach: rows with a bar and a moonshot for each, and how each is measured.

A row is data; ``measured`` computes its figure from the cells of a record and a few measurements
that are no cells (whole fits, fresh processes, memory).
"""

from __future__ import annotations

import dataclasses
import statistics
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

import numpy as np

import schuss
from schuss.backends import available
from schuss.formulas import losses
from schuss.lab import fresh
from schuss.lab.descent import objective
from schuss.lab.grid import Bench, check_peers
from schuss.lab.machine import seconds
from schuss.lab.peers import WORSE, sklearn_model
from schuss.lab.record import Cell, Outcome, Record, fastest_peer
from schuss.lab.synthetic import ELEMENTS, make

__all__ = ["BARS", "Bar", "Evidence", "measure"]

COLUMNS = (20, 100, 1000)
WIDE = 10_000  # columns of one more row
BATCHES = (1, 8, 32, 256, 4096)
ORDERS = ("shuffle", "blocks")
FIT_EPOCHS = 3
CSR = {"n": 400_000, "d": 1 << 18, "nonzeros": 80}


@dataclasses.dataclass
class Evidence:
    """What was measured for the table.

    Attributes
    ----------
    record : Record
        With the cells: those on one core, and those with every backend and peer.
    fits : dict
        Ratio of a whole fit's speed to scikit-learn's by (d, order), with a note.
    extras : dict
        Further figures by row, with a note.
    """

    record: Record
    fits: dict[tuple[int, str, str], tuple[float | None, str]]
    extras: dict[str, tuple[float | None, str]]

    def cells(
        self, d: int, order: str, batch_size: int, one_core: bool | None = None
    ) -> list[Cell]:
        """The cells of one column, order and batch size."""
        return [
            cell
            for cell in self.record.cells
            if (cell.d, cell.order.partition("(")[0], cell.batch_size) == (d, order, batch_size)
            and (one_core is None or (cell.cores == 1) == one_core)
        ]

    def ours(
        self, d: int, order: str, batch_size: int, one_core: bool | None = None, name: str = ""
    ) -> Cell | None:
        """The cell of our fastest backend."""
        found = [
            cell
            for cell in self.cells(d, order, batch_size, one_core)
            if cell.kind == "backend" and name in ("", cell.name)
        ]
        return max(found, key=lambda cell: cell.samples_per_second, default=None)


#: A figure (None: not measured) and a note.
Figure = tuple[float | None, str]


@dataclasses.dataclass(frozen=True)
class Bar:
    """A row of the table.

    Attributes
    ----------
    key, what : str
    unit : str
    limits : dict of str to (bar, moonshot)
        By column: the number of columns of X, or a word.
    measured : callable
        ``measured(evidence, column)``.
    at_least : bool
    """

    key: str
    what: str
    unit: str
    limits: dict[str, tuple[float | None, float | None]]
    measured: Callable[[Evidence, str], Figure]
    at_least: bool = True


def by_d(*limits: float, moonshot: Any) -> dict[str, tuple[float | None, float | None]]:
    """Limits at d = 20, 100 and 1000."""
    moons = moonshot if isinstance(moonshot, tuple) else (moonshot,) * len(limits)
    columns = map(str, COLUMNS)
    return {c: (bar, moon) for c, bar, moon in zip(columns, limits, moons, strict=True)}


def fraction(order: str, sizes: Sequence[int], one_core: bool) -> Callable[[Evidence, str], Figure]:
    """The least fraction of the ceiling, of one core or of all, over some batch sizes."""

    def measured(evidence: Evidence, column: str) -> Figure:
        found: list[tuple[float, Cell]] = []
        for size in sizes:
            cell = evidence.ours(int(column), order, size, True if one_core else None)
            if cell is not None:
                found.append((of_ceiling(evidence.record, cell, one_core), cell))
        if not found:
            return None, "no such cell"
        least, cell = min(found, key=lambda pair: pair[0])
        speed = f"{cell.samples_per_second / 1e6:.3g} M/s, {cell.name}"
        return least, speed + (f", B = {cell.batch_size}" if len(sizes) > 1 else "")

    return measured


def of_ceiling(record: Record, cell: Cell, one_core: bool) -> float:
    """Fraction of the ceiling of one core or of all, whatever number of cores the cell used."""
    if cell.fraction is not None and one_core == (cell.cores == 1):
        return cell.fraction
    ceilings = record.ceilings_for(cell)
    assert ceilings is not None
    return cell.samples_per_second / ceilings.of(cell.order, 1 if one_core else ceilings.cores)[1]


def in_order_speed(evidence: Evidence, column: str) -> Figure:
    """Samples per second in order."""
    cell = evidence.ours(int(column), "sequential", 1, True)
    return (None, "no such cell") if cell is None else (cell.samples_per_second, cell.name)


def whole_fit(loss: str, order: str) -> Callable[[Evidence, str], Figure]:
    """A whole fit beside scikit-learn's."""

    def measured(evidence: Evidence, column: str) -> Figure:
        return evidence.fits.get((int(column), loss, order), (None, "not measured"))

    return measured


def peer_ratios(evidence: Evidence) -> dict[tuple[int, str, int], tuple[float, str]]:
    """Our speed over the best CPU peer's, in every cell that has one."""
    found = {}
    for d in COLUMNS:
        for order in ORDERS:
            for size in BATCHES:
                ours = evidence.ours(d, order, size)
                best = fastest_peer(evidence.cells(d, order, size))
                if ours and best:
                    ratio = ours.samples_per_second / best.samples_per_second
                    found[d, order, size] = ratio, best.name
    return found


def best_peer(evidence: Evidence, column: str) -> Figure:
    """The least ratio, or the geometric mean, over the cells beside the best peer."""
    ratios = peer_ratios(evidence)
    if not ratios:
        return None, "no peer was run"
    if column == "geometric mean":
        logs = [np.log(ratio) for ratio, _ in ratios.values()]
        return float(np.exp(np.mean(logs))), f"{len(ratios)} cells"
    if column == "least":
        (d, order, size), (ratio, name) = min(ratios.items(), key=lambda item: item[1][0])
        return ratio, f"d = {d}, {order}, B = {size}: {name}"
    d_text, order, size_text = column.split(", ")
    key = int(d_text.removeprefix("d = ")), order, int(size_text.removeprefix("B = "))
    return ratios.get(key, (None, "no peer was run"))


def loader(evidence: Evidence, column: str) -> Figure:
    """Beside a PyTorch DataLoader."""
    ours = evidence.ours(int(column), "shuffle", 32)
    theirs = [
        cell
        for cell in evidence.cells(int(column), "shuffle", 32)
        if cell.name == "PyTorch DataLoader" and cell.verified
    ]
    if not (ours and theirs):
        return None, "PyTorch was not run"
    speed = theirs[0].samples_per_second
    return ours.samples_per_second / speed, f"theirs {speed / 1e6:.2g} M/s"


def jit_beside_native(evidence: Evidence, _: str) -> Figure:
    """The least ratio over all cells."""
    found = []
    for cell in evidence.record.cells:
        if cell.name == "jit":
            native = [c for c in evidence.record.cells if c.key == ("native", *cell.key[1:])]
            found += [(cell.samples_per_second / c.samples_per_second, cell) for c in native]
    if not found:
        return None, "needs both backends"
    ratio, cell = min(found, key=lambda pair: pair[0])
    return ratio, f"d = {cell.d}, {cell.order.partition('(')[0]}, B = {cell.batch_size}"


def extra(key: str) -> Callable[[Evidence, str], Figure]:
    """A figure measured apart, by row and column."""
    return lambda evidence, column: evidence.extras.get(f"{key} {column}", (None, "not measured"))


CELLS = [f"d = {d}, {order}, B = {size}" for d in COLUMNS for order in ORDERS for size in BATCHES]

BARS = (
    Bar(
        "per-sample shuffle",
        "per-sample, shuffle, one core, of the random-row ceiling",
        "fraction",
        by_d(0.65, 0.75, 0.70, moonshot=0.90),
        fraction("shuffle", [1], True),
    ),
    Bar(
        "regressor shuffle",
        "the same against SGDRegressor, per epoch",
        "ratio",
        by_d(5, 5, 3.5, moonshot=(8, 7, 5)),
        whole_fit("squared_error", "shuffle"),
    ),
    Bar(
        "classifier shuffle",
        "the same against SGDClassifier(log_loss), per epoch",
        "ratio",
        by_d(5, 5, 3.5, moonshot=(8, 7, 5)),
        whole_fit("log_loss", "shuffle"),
    ),
    Bar(
        "regressor blocks",
        "per-sample, blocks, against SGDRegressor",
        "ratio",
        by_d(10, 10, 5, moonshot=(18, 14, 7)),
        whole_fit("squared_error", "blocks"),
    ),
    Bar(
        "classifier blocks",
        "per-sample, blocks, against SGDClassifier(log_loss)",
        "ratio",
        by_d(10, 10, 5, moonshot=(18, 14, 7)),
        whole_fit("log_loss", "blocks"),
    ),
    Bar(
        "per-sample in order",
        "per-sample, in order, of the sequential one-core ceiling",
        "fraction",
        {str(d): (0.70, 0.90) for d in (100, 1000, WIDE)},
        fraction("sequential", [1], True),
    ),
    Bar(
        "per-sample in order, narrow",
        "per-sample, in order",
        "samples/s",
        {"20": (45e6, 80e6)},
        in_order_speed,
    ),
    Bar(
        "mini-batch shuffle, one core",
        "mini-batch B = 32, shuffle, of the one-core random-row ceiling",
        "fraction",
        by_d(0.70, 0.80, 0.80, moonshot=0.92),
        fraction("shuffle", [32], True),
    ),
    Bar(
        "mini-batch shuffle, all cores",
        "mini-batch B ≥ 256, shuffle, of the all-core random-row ceiling",
        "fraction",
        by_d(0.62, 0.75, 0.85, moonshot=0.92),
        fraction("shuffle", [256, 4096], False),
    ),
    Bar(
        "mini-batch blocks, one core",
        "mini-batch B = 32, blocks, one core, of its sequential ceiling",
        "fraction",
        by_d(0.85, 0.85, 0.75, moonshot=0.95),
        fraction("blocks", [32], True),
    ),
    Bar(
        "mini-batch blocks, all cores",
        "mini-batch B ≥ 1024, blocks, of the all-core sequential ceiling",
        "fraction",
        by_d(0.85, 0.85, 0.78, moonshot=0.95),
        fraction("blocks", [1024, 4096], False),
    ),
    Bar(
        "best peer",
        "against the best CPU peer",
        "ratio",
        {
            "least": (1.2, 1.5),
            "geometric mean": (3.0, 5.0),
            **{cell: (1.2, 1.5) for cell in CELLS},
        },
        best_peer,
    ),
    Bar(
        "DataLoader",
        "against a PyTorch DataLoader loop, B = 32, shuffle",
        "ratio",
        by_d(120, 75, 15, moonshot=(180, 90, 20)),
        loader,
    ),
    Bar(
        "CSR",
        "CSR per-sample against scikit-learn (n = 400,000, 2^18 features, 80 a row)",
        "ratio",
        {"uniform": (2, 4), "Zipf": (2, 4)},
        extra("CSR"),
    ),
    Bar(
        "jit",
        "jit against native, least of all cells",
        "ratio",
        {"": (0.4, 0.8)},
        jit_beside_native,
    ),
    Bar(
        "first fit",
        "first fit in a fresh process",
        "s",
        {"native": (0.15, 0.08), "jit": (0.8, 0.5)},
        extra("first fit"),
        at_least=False,
    ),
    Bar(
        "memory",
        "peak memory of fit beyond X, y, per bar (1 % of X + 8 bytes n)",
        "ratio",
        {"20": (1.0, None), "1000": (1.0, None)},
        extra("memory"),
        at_least=False,
    ),
)


# ---- Measuring -----------------------------------------------------------------------------------


def measure(
    elements: int = ELEMENTS,
    d: Sequence[int] = COLUMNS,
    repeats: int = 5,
    seconds: float = 0.2,
    threads: int | None = None,
    peers: bool | Sequence[str] = True,
    seed: int = 0,
    watch: Any = None,
) -> Record:
    """Measure every row of the table, as far as packages and backends are there.

    Parameters
    ----------
    elements : int, default=100_000_000
        n * d; fewer, which fit a cache, prove nothing.
    d : sequence of int, default=(20, 100, 1000)
    repeats : int, default=5
    seconds : float, default=0.2
        About how long a turn lasts.
    threads : int, optional
    peers : bool or sequence of str, default=True
    seed : int, default=0
    watch : callable, optional
        Called as ``watch(record so far, what comes next)``.

    Returns
    -------
    Record
        With its ``outcomes``.
    """
    engines = [name for name in ("native", "jit") if available()[name] is None] or ["reference"]
    bench = Bench(engines, check_peers(peers), threads, repeats, seconds, seed, watch)
    evidence = Evidence(bench.record, {}, {})
    for columns in d:
        squared = losses.squared_error()
        bench.use(make(columns, elements, "float32", squared, seed), squared)
        cells_of(bench)
        for name in ("squared_error", "log_loss"):
            the_loss = losses.get(name)
            if name != "squared_error":
                bench.use(make(columns, elements, "float32", the_loss, seed), the_loss)
            bench.tell(f"d = {columns}, whole fits, {name}")
            evidence.fits |= whole_fits(bench, name)
    if 1000 in d:
        squared = losses.squared_error()
        bench.use(make(WIDE, elements, "float32", squared, seed), squared)
        one_core(bench, "sequential", 1)
    bench.tell("sparse, fresh processes, memory")
    evidence.extras |= sparse_fits(CSR["n"] * elements // ELEMENTS or 1, repeats, seed)
    evidence.extras |= processes(engines, elements, d)
    evidence.record = bench.finish()
    wanted = {str(columns) for columns in (*d, WIDE)}
    return dataclasses.replace(bench.record, outcomes=tuple(outcomes(evidence, wanted)))


def outcomes(evidence: Evidence, columns: set[str]) -> Iterable[Outcome]:
    """The rows of the table; of the numbers of columns, those that were asked for."""
    for row in BARS:
        for column, (bar, moonshot) in row.limits.items():
            number = column.removeprefix("d = ").partition(",")[0]
            if number.isdecimal() and number not in columns:
                continue
            value, note = row.measured(evidence, column)
            label = f"d = {column}" if column.isdecimal() else column
            yield Outcome(
                row.key, row.what, label, row.unit, row.at_least, bar, moonshot, value, note
            )


def one_core(bench: Bench, order: str, size: int) -> None:
    """Our cells on one core, without peers."""
    if size <= bench.data[0].shape[0]:
        bench.measure(order, size, peers=(), threads=1)


def cells_of(bench: Bench) -> None:
    """The cells of one number of columns: with all cores beside the peers, and on one core."""
    n = bench.data[0].shape[0]
    one_core(bench, "sequential", 1)
    for order in map(str, (schuss.orders.shuffle(), schuss.orders.blocks())):
        for size in BATCHES:
            if size <= n:
                cells = bench.measure(order, size)
                if size == 32 and cells[0].cores > 1:
                    one_core(bench, order, 32)
    if n >= 1024:
        bench.measure(str(schuss.orders.blocks()), 1024, peers=())


def whole_fits(bench: Bench, name: str) -> dict[tuple[int, str, str], Figure]:
    """Fits of some epochs beside scikit-learn's, per-sample; both check the data, too."""
    X, y = bench.data
    d, found = X.shape[1], {}
    if "scikit-learn" not in bench.peers or "scikit-learn" in bench.record.absent:
        return {(d, name, o): (None, "scikit-learn was not run") for o in ORDERS}
    task = bench.task("shuffle", 1, threads=1)
    reached: dict[str, float] = {}

    def theirs() -> None:
        model = sklearn_model(task, FIT_EPOCHS).fit(X, y)
        reached["theirs"] = objective(task, np.append(model.coef_, model.intercept_))

    def ours(order: str) -> None:
        result = schuss.fit(
            X,
            y,
            loss=name,
            batch_size=1,
            learning_rate=task.learning_rate,
            epochs=FIT_EPOCHS,
            order=order,
            threads=1,
            backend=bench.engines[0],
        )
        reached[order] = objective(task, np.append(result.coef, result.intercept))

    times: dict[str, list[float]] = {"theirs": [], **{order: [] for order in ORDERS}}
    for order in ORDERS:
        schuss.fit(X[:100], y[:100], loss=name, batch_size=1, order=order, backend=bench.engines[0])
    for _ in range(min(3, bench.repeats)):
        times["theirs"].append(seconds(theirs))
        for order in ORDERS:
            times[order].append(seconds(partial(ours, order)))
    for order in ORDERS:
        ratios = [a / b for a, b in zip(times["theirs"], times[order], strict=True)]
        worse = reached[order] > WORSE * reached["theirs"]
        note = f"objective {reached[order]:.4g} beside {reached['theirs']:.4g}"
        found[d, name, order] = (None if worse else statistics.median(ratios), note)
    return found


def sparse_fits(n: int, repeats: int, seed: int) -> dict[str, Figure]:
    """Per-sample on CSR beside scikit-learn."""
    names = ("CSR uniform", "CSR Zipf")
    try:
        import scipy.sparse  # noqa: F401
        import sklearn  # noqa: F401
    except ImportError as error:
        return dict.fromkeys(names, (None, f"{error.name} is not installed"))
    return {name: sparse_fit(n, name == "CSR Zipf", repeats, seed) for name in names}


def sparse_matrix(n: int, zipf: bool, seed: int) -> tuple[Any, np.ndarray]:
    """CSR of 80 non-zeros a row at distinct, sorted columns, and targets."""
    import scipy.sparse

    rng = np.random.default_rng(seed)
    d, k = CSR["d"], CSR["nonzeros"]
    if zipf:
        weight = 1 / np.arange(1, d + 1)
        drawn = np.searchsorted(np.cumsum(weight) / weight.sum(), rng.random((n, k)))
    else:
        drawn = rng.integers(0, d, (n, k))
    drawn = np.minimum(drawn, d - 1).astype(np.int32)
    rows = np.repeat(np.arange(n, dtype=np.int32), k)
    values = rng.standard_normal(n * k, dtype=np.float32) / np.float32(np.sqrt(k))
    X = scipy.sparse.csr_array((values, (rows, drawn.ravel())), shape=(n, d))
    X.sum_duplicates()
    w = rng.standard_normal(d, dtype=np.float32)
    return X, (X @ w + rng.standard_normal(n, dtype=np.float32)).astype(np.float32)


def sparse_fit(n: int, zipf: bool, repeats: int, seed: int) -> Figure:
    """Ratio of whole fits: the least of both losses."""
    X, y = sparse_matrix(n, zipf, seed)
    found = [sparse_contest(X, y, name, repeats, seed) for name in ("squared_error", "log_loss")]
    worse = [note for ratio, note in found if ratio is None]
    if worse:
        return None, "; ".join(worse)
    return min(found, key=lambda figure: figure[0] or 0)


def sparse_contest(X: Any, y: np.ndarray, loss: str, repeats: int, seed: int) -> Figure:
    """Whole fits by turns, without an intercept.

    On sparse rows scikit-learn takes a hundredth of the learning rate for the intercept; without
    it, both make the same updates.
    """
    from sklearn.linear_model import SGDClassifier, SGDRegressor

    options = {
        "penalty": None,
        "learning_rate": "constant",
        "eta0": 0.05,
        "max_iter": FIT_EPOCHS,
        "tol": None,
        "random_state": seed,
        "fit_intercept": False,
    }
    if loss == "log_loss":
        y = np.where(y >= 0, 1, -1).astype(y.dtype)
        theirs = SGDClassifier(loss="log_loss", **options)
    else:
        theirs = SGDRegressor(loss="squared_error", **options)
    result: list[schuss.Result] = []

    def ours() -> None:
        result[:] = [
            schuss.fit(
                X,
                y,
                loss=loss,
                batch_size=1,
                learning_rate=options["eta0"],
                epochs=FIT_EPOCHS,
                fit_intercept=False,
                threads=1,
            )
        ]

    def reached(coef: np.ndarray) -> float:
        return schuss.gradient(X, y, coef.astype(X.dtype), loss=loss)[0]

    ours()
    ratios = [
        seconds(lambda: theirs.fit(X, y)) / seconds(ours) for _ in range(max(1, min(5, repeats)))
    ]
    objectives = reached(result[0].coef), reached(theirs.coef_.ravel())
    note = f"{loss}: objective {objectives[0]:.4g} beside {objectives[1]:.4g}"
    note += f", ratios {min(ratios):.3g} ... {max(ratios):.3g}, n = {X.shape[0]:,}"
    return None if objectives[0] > WORSE * objectives[1] else statistics.median(ratios), note


def processes(engines: Sequence[str], elements: int, d: Sequence[int]) -> dict[str, Figure]:
    """What fresh processes tell."""
    found: dict[str, Figure] = {}
    for name in ("native", "jit"):
        if name in engines:
            found[f"first fit {name}"] = fresh.first_fit(name), ""
    for columns in d:
        n = max(1, elements // columns)
        allowed = 0.01 * 4 * n * columns + 8 * n
        used = max(fresh.peak_memory(n, columns, size) for size in (1, min(4096, n)))
        note = f"{used / 1e6:.2f} MB of {allowed / 1e6:.2f} MB allowed; B = 1 and 4096"
        found[f"memory {columns}"] = used / allowed, note
    return found
