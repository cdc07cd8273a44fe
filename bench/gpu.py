"""Check, time and record the cuda backend on the GPU that is at hand, in one call:

    python bench/gpu.py                  writes bench/results/gpu.json
    python bench/gpu.py --simulate      the same flow on the CPU (tests/cudasim), at reduced size:
                                         nothing is written, and no figure means anything

First the machine itself is measured: a launch, a wait of all blocks, a copy. Then each kernel is
timed beside the bound that is meant to bind it, those over rows after their results were held to
the reference's: medians, and the smallest and largest of several turns. Seconds pass between two
events on the GPU's stream; a whole run of steps has in them what the host does before and after.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
import platform
import statistics
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import numpy as np

import schuss
from schuss.backends import Problem, Segment, State, choose
from schuss.backends.cuda.backend import CudaBackend
from schuss.backends.cuda.data import DenseRows, Places, on_device
from schuss.backends.cuda.device import CupyDevice, Device, why_not
from schuss.backends.cuda.shapes import BLOCK_THREADS, CHUNK_NUMBERS, blocks_for
from schuss.backends.cuda.steps import WAYS, Run, outcome
from schuss.errors import BackendError
from schuss.formulas import losses, rules
from schuss.formulas.bijection import round_keys

HERE = Path(__file__).resolve().parent
TURNS = 7


@dataclasses.dataclass
class Row:
    """One line of the record.

    Attributes
    ----------
    what : str
    value : float
        Median of the turns.
    unit : str
    low, high : float
        Smallest and largest.
    bound : str or None
        Which figure of the machine it stands beside.
    of_bound : float or None
        The part of that which is reached.
    """

    what: str
    value: float
    unit: str
    low: float
    high: float
    bound: str | None = None
    of_bound: float | None = None


class Bench:
    """A device, sizes, and what was found."""

    def __init__(self, device: Device, simulated: bool) -> None:
        self.device, self.simulated = device, simulated
        self.backend, self.reference = CudaBackend(device), choose("reference")
        self.rows: list[Row] = []
        self.copy = 0.0  # bytes per second
        self.barrier = 0.0  # seconds

    def size(self, real: int, simulated: int) -> int:
        """The one that applies."""
        return simulated if self.simulated else real

    def seconds(self, work: Callable[[], Any], times: int = 1) -> list[float]:
        """Of several turns, after one that does not count.

        Short work is started several times in a turn: while the GPU works on one, Python makes the
        next, and its own time is hidden.
        """
        times = self.size(times, 1)

        def turn() -> None:
            for _ in range(times):
                work()

        turn()
        return sorted(self.device.seconds(turn) / times for _ in range(TURNS))

    def note(
        self,
        what: str,
        turns: list[float],
        unit: str,
        convert: Callable[[float], float],
        bound: tuple[str, float] | None = None,
    ) -> float:
        """Keep a row and return its value."""
        made = sorted(map(convert, turns))
        value = statistics.median(made)
        name, limit = bound or (None, None)
        self.rows.append(
            Row(what, value, unit, made[0], made[-1], name, value / limit if limit else None)
        )
        row = self.rows[-1]
        part = "" if row.of_bound is None else f"   {row.of_bound:.0%} of {name}"
        click.echo(f"{what:64s} {value:10.4g} {unit}{part}")
        return value

    # ---- The machine ----

    def machine(self) -> None:
        """Launch, barrier, copy."""
        launch, device = self.device.launch, self.device
        count = self.size(1000, 20)

        def launches() -> None:
            for _ in range(count):
                launch("probe", "probe_launch<0>", 132, nothing=0)

        self.note("launch, as the backend makes it", self.seconds(launches), "us",
                  lambda s: s / count * 1e6)  # fmt: skip
        most = device.resident_blocks("probe", "probe_barrier<0>")
        for blocks in sorted({min(b, most) for b in (8, 32, 132, 264)}):
            waits = self.size(1000, 5)

            def barriers(blocks: int = blocks, waits: int = waits) -> None:
                launch("probe", "probe_barrier<0>", blocks, cooperative=True, repeats=waits,
                       arrived=device.zeros(1, np.uint32))  # fmt: skip

            self.barrier = self.note(
                f"wait of {blocks} blocks", self.seconds(barriers), "us",
                lambda s, waits=waits: s / waits * 1e6,
            ) / 1e6  # fmt: skip
        size = self.size(1 << 28, 1 << 12)
        there, back = device.zeros(size, np.float32), device.zeros(size, np.float32)

        def copies() -> None:
            launch("probe", "probe_copy<0>", blocks_for(size), size=size, to=back,
                   **{"from": there})  # fmt: skip

        self.copy = self.note(
            "copy", self.seconds(copies, 20), "GB/s", lambda s: 8 * size / s / 1e9
        )
        self.copy *= 1e9

    @property
    def copy_bound(self) -> tuple[str, float]:
        """In GB/s."""
        return "copy", self.copy / 1e9

    # ---- Data ----

    def problem(self, n: int, d: int, loss: Any = None) -> Problem:
        """Rows of small integers over 32: sums of few of them are exact."""
        rng = np.random.default_rng(0)
        X = (rng.integers(-64, 64, (n, d), dtype=np.int8) / np.float32(32)).astype(np.float32)
        y = np.sign(X[:, 0] + 1e-3).astype(np.float32)
        return Problem(X, y, None, loss or losses.log_loss())

    def agree(self, what: str, found: Any, expected: Any, tolerance: float = 1e-3) -> None:
        """Stop where a kernel's result is not the reference's."""
        found, expected = np.asarray(found, float), np.asarray(expected, float)
        error = np.abs(found - expected).max() / max(np.abs(expected).max(), 1e-30)
        if not error <= tolerance:
            raise SystemExit(f"{what}: differs from the reference by {error:.2g}")

    # ---- The rows of the table ----

    def gradients(self) -> None:
        """Mini-batch gradients of shuffled rows."""
        for d, batch in ((1024, 65_536), (1024, 1 << 20), (256, 65_536), (32, 1 << 20)):
            n, batch = self.size(1 << 20, 600), self.size(batch, 300)
            problem = self.problem(n, self.size(d, 64))
            d = problem.n_features
            rows = self.reference.permute(n, round_keys(0, 0), 0, batch)
            theta = np.full(d + 1, 0.01, np.float32)
            few = rows[:200]
            self.agree(
                "gradient", self.backend.gradient(problem, theta, few)[1],
                self.reference.gradient(problem, theta, few)[1],
            )  # fmt: skip
            data = on_device(self.device, problem)
            places, weights = Places(self.device, rows), self.device.upload(data.spread(theta))
            sums = data.room(batch)
            turns = self.seconds(
                lambda data=data, places=places, weights=weights, sums=sums: data.add_up(
                    places, weights, sums, norms=False
                ),
                20,
            )
            name = f"gradient, float32, d={d}, B={batch}, shuffled"
            bytes_read = batch * d * 4
            self.note(name, turns, "GB/s", lambda s, b=bytes_read: b / s / 1e9, self.copy_bound)

    def epochs(self) -> None:
        """A whole epoch, by every way of making its steps."""
        n, d = self.size(4_000_000, 2_000), self.size(256, 40)
        problem = self.problem(n, d)
        data = on_device(self.device, problem)
        rows = self.reference.permute(n, round_keys(0, 0), 0, n)
        for batch in (32, 256, 4096, 65_536):
            segment = Segment(rows[: self.size(n, 600)], np.array([0.01]), batch)
            state = State.start(np.zeros(d + 1, np.float32), rules.sgd())
            expected = state.copy()
            few = Segment(rows[: 4 * batch][: self.size(2000, 300)], np.array([0.01]), batch)
            trial = state.copy()
            self.backend.descend(problem, trial, few)
            self.reference.descend(problem, expected, few)
            self.agree(f"B={batch}", trial.theta, expected.theta)
            for way in WAYS:
                run = _Chosen(way, self.device, data, state, segment)
                if way != "one launch":  # Python starts each step: fewer of them
                    few_steps = segment.steps(0, min(segment.n_steps, 2000))
                    run = _Chosen(way, self.device, data, state, few_steps)
                steps = run.segment.n_steps
                turns = self.seconds(run.steps)
                self.note(
                    f"update, d={d}, B={batch}, {way}", turns, "us",
                    lambda s, steps=steps: s / steps * 1e6,
                )  # fmt: skip

    def samples(self) -> None:
        """Exact per-sample descent by blocks of samples."""
        for loss in (losses.squared_error(), losses.hinge(), losses.log_loss()):
            for d in (100, 1000, 4000):
                n, d = self.size(200_000, 600), self.size(d, 40)
                problem = self.problem(n, d, loss)
                rows = self.reference.permute(n, round_keys(0, 0), 0, n)
                rates, zero = np.array([1e-4]), np.zeros(d + 1, np.float32)
                state, expected = (State.start(zero, rules.sgd()) for _ in range(2))
                few = Segment(rows[:500], rates, 1)
                self.backend.descend(problem, state, few)
                self.reference.descend(problem, expected, few)
                self.agree(f"{loss}, per sample", state.theta, expected.theta)
                data = on_device(self.device, problem)
                run = Run(self.device, data, state, Segment(rows, rates, 1))
                self.note(
                    f"sample, {loss.name}, d={d}, by blocks", self.seconds(run.steps), "ns",
                    lambda s, n=n: s / n * 1e9,
                )  # fmt: skip
                few = self.size(20_000, 300)
                self.note(
                    f"sample, {loss.name}, d={d}, row by row",
                    self.seconds(self._serially(data, rows[:few])), "ns",
                    lambda s, n=few: s / n * 1e9,
                )  # fmt: skip

    def _serially(self, data: DenseRows, rows: np.ndarray) -> Callable[[], None]:
        """The baseline of per-sample descent: one block, a row at a time."""
        device, packs = self.device, -(-data.width // (4 * BLOCK_THREADS))
        ones = {name: device.upload(np.full(1, value, np.float32)) for name, value in
                (("rate", 1e-4), ("keep", 1), ("tail", 1), ("reach", 1))}  # fmt: skip
        theta, places = device.zeros(data.columns, np.float32), Places(device, rows)
        made = outcome(device, data.room(1), data.columns)
        packs = next(p for p in (1, 2, 4, 8) if p >= packs)
        kernel = f"descend_serially<float, {data.problem.loss.name}, {BLOCK_THREADS}, {packs}>"
        return lambda: device.launch(
            "samples", kernel, 1, problem=data.arguments, rows=places.arguments,
            chain=ones | {"stride": 0}, theta=theta, outcome=made,
        )  # fmt: skip

    def vectors(self) -> None:
        """Steps of rules over many numbers, in one array and in many; the reduction."""
        size = self.size(100_000_000, 40_000)
        for rule, words in ((rules.sgd(momentum=0.9), 5), (rules.adamw(), 7)):
            for count in (1, self.size(100_000, 50)):
                arrays = [
                    [self.device.zeros(size // count, np.float32) for _ in range(count)]
                    for _ in range(2 + len(rule.slots))
                ]
                work = self._apply(rule, arrays, size // count, count)
                name = f"step of {rule.name}, {size} numbers in {count} arrays"
                self.note(
                    name, self.seconds(work, 20), "GB/s",
                    lambda s, w=words: 4 * w * size / s / 1e9, self.copy_bound,
                )  # fmt: skip
        dst, source = (self.device.zeros(size, np.float32) for _ in range(2))
        sources = self.device.upload(np.array([self.device.address(source)], np.int64))

        def reduce() -> None:
            self.device.launch("vectors", "reduce<float>", blocks_for(size), dst=dst,
                               sources=sources, count=1, size=size, scale=0.5)  # fmt: skip

        self.note("reduce of 1 source", self.seconds(reduce, 20), "GB/s",
                  lambda s: 12 * size / s / 1e9, self.copy_bound)  # fmt: skip

    def _apply(self, rule: Any, arrays: Any, each: int, count: int) -> Callable[[], None]:
        """A step whose tables are on the device already."""
        addresses = np.zeros((count, 4), np.int64)
        for column, own in enumerate(arrays):
            addresses[:, column] = [self.device.address(a) for a in own]
        chunks = -(-each // CHUNK_NUMBERS)
        table = {
            "addresses": self.device.upload(addresses),
            "sizes": self.device.upload(np.full(count, each, np.int64)),
            "first_chunk": self.device.upload(np.arange(count + 1, dtype=np.int64) * chunks),
            "arrays": count,
        }
        constants = self.device.upload(rule.constants(np.array([1]), np.array([1e-3]))[0])
        kernel = f"apply<float, {rule.formula}>"
        return lambda: self.device.launch(
            "vectors", kernel, chunks * count, arrays=table, constants=constants, decay=0.0
        )

    def parts(self) -> Iterator[Callable[[], None]]:
        yield from (self.machine, self.gradients, self.epochs, self.samples, self.vectors)


class _Chosen(Run):
    """A run whose steps are made in a way that is given."""

    def __init__(self, way: str, device: Device, data: DenseRows, *arguments: Any) -> None:
        super().__init__(device, data, *arguments)
        self.way = way

    def _way(self, n_steps: int) -> str:
        return self.way


def simulated_device() -> Device:
    """The simulator of the tests."""
    sys.path.insert(0, str(HERE.parent / "tests"))
    from cudasim.device import SimulatedDevice

    return SimulatedDevice()


def versions() -> dict[str, Any]:
    """What the figures depend on beside the code."""
    import cupy

    runtime = cupy.cuda.runtime
    return {
        "driver": runtime.driverGetVersion(),
        "runtime": runtime.runtimeGetVersion(),
        "nvrtc": cupy.cuda.nvrtc.getVersion(),
        "cupy": cupy.__version__,
    }


@click.command()
@click.option("--simulate", is_flag=True, help="Run on the CPU, at reduced size; write nothing.")
@click.option("--output", type=click.Path(path_type=Path), default=HERE / "results" / "gpu.json")
def main(simulate: bool, output: Path) -> None:
    """Check and time every kernel on the GPU at hand."""
    if not simulate and (why := why_not()):
        raise BackendError(f"no GPU to measure on: {why}; --simulate runs the flow on the CPU.")
    device = simulated_device() if simulate else CupyDevice()
    bench = Bench(device, simulate)
    for part in bench.parts():
        part()
    if simulate:
        click.echo(f"simulated: {len(bench.rows)} rows, none of which is a figure")
        return
    record = {
        "device": device.name,
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "host": platform.processor() or platform.machine(),
        "schuss": schuss.__version__,
        **versions(),
        "turns": TURNS,
        "rows": [dataclasses.asdict(row) for row in bench.rows],
    }
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    click.echo(f"written: {output}")


if __name__ == "__main__":
    main()
