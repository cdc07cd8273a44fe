"""``sweep``: throughput against batch size of any step function."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from typing import Any

from schuss.data import order as orders
from schuss.errors import InvalidArgument, InvalidType
from schuss.formulas.spec import check_number
from schuss.lab import clock as clocks
from schuss.lab import machine
from schuss.lab.record import Ceilings, Cell, Record

__all__ = ["sweep"]

Step = Callable[[int], Any]


def sweep(
    step: Step | dict[str, Step],
    batch_sizes: Sequence[int],
    repeats: int = 5,
    seconds: float = 0.2,
    clock: str = "auto",
    ceilings: Ceilings | None = None,
    order: str = "shuffle",
    cores: int | None = None,
) -> Record:
    """Measure samples per second against batch size for a step function of your own.

    ``step(batch_size)`` makes one update from ``batch_size`` samples, in whatever library. It is
    called twice for each batch size before it is timed, which compiles and fills caches; then often
    enough to fill ``seconds``, ``repeats`` times, all batch sizes taking turns. What it returns is
    waited for where it is computed in the background (JAX); on a GPU, CUDA events measure.

    Parameters
    ----------
    step : callable, or dict of str to callable
        Several are measured side by side, by name.
    batch_sizes : int or sequence of int
    repeats : int, default=5
    seconds : float, default=0.2
        About how long a measurement lasts.
    clock : {"auto", "cpu", "cuda"}, default="auto"
        "auto" takes CUDA events where a step returns a tensor of torch or an array of CuPy that
        lies on a GPU.
    ceilings : Ceilings, optional
        From :func:`ceilings`, measured on the data that the step reads, to give fractions.
    order : str, default="shuffle"
        In which order the step reads its rows: which of the ceilings binds.
    cores : int, optional
        Cores that the step uses; by default all that ``ceilings`` knows of.

    Returns
    -------
    Record

    Raises
    ------
    schuss.errors.SchussError
        For arguments that are not accepted.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> X, w = np.ones((1000, 8)), np.zeros(8)
    >>> def step(batch_size):
    ...     batch = X[:batch_size]
    ...     w[:] -= 0.01 / batch_size * ((batch @ w - 1) @ batch)
    >>> record = schuss.lab.sweep(step, [1, 10, 100], repeats=2, seconds=0.001)
    >>> [cell.batch_size for cell in record.curves()[0].cells]
    [1, 10, 100]
    """
    steps = step if isinstance(step, dict) else {"step": step}
    for name, function in steps.items():
        if not callable(function):
            raise InvalidType(f"step {name!r}={function!r}: expected a function of a batch size.")
    sizes = [batch_sizes] if isinstance(batch_sizes, int) else list(batch_sizes)
    for size in sizes:
        check_number("batch_sizes", size, {">=": 1}, integer=True)
    if not (steps and sizes):
        raise InvalidArgument(f"batch_sizes={sizes!r}: expected at least one, and a step.")
    check_number("repeats", repeats, {">=": 1}, integer=True)
    check_number("seconds", seconds, {">": 0.0})
    orders.get(order)
    if ceilings is not None and not isinstance(ceilings, Ceilings):
        raise InvalidType(f"ceilings={ceilings!r}: expected what schuss.lab.ceilings returns.")
    if cores is not None:
        most = {} if ceilings is None else {"<=": ceilings.cores}
        check_number("cores", cores, {">=": 1, **most}, integer=True)
    turns = [Turns(name, steps[name], size, clock, seconds) for name in steps for size in sizes]
    for _ in range(repeats):
        for turn in turns:
            turn.take()
    used = sorted({turn.clock for turn in turns})
    return Record(
        machine=machine.describe(),
        settings={"repeats": repeats, "seconds": seconds, "clock": ", ".join(used)},
        ceilings=() if ceilings is None else (ceilings,),
        cells=tuple(turn.cell(ceilings, order, cores) for turn in turns),
    )


class Turns:
    """One step function at one batch size: warmed up, then measured whenever it is its turn."""

    def __init__(self, name: str, step: Step, size: int, clock: str, seconds: float) -> None:
        self.name, self.size = name, size
        self.step = step
        step(size)
        self.clock, self.measure = clocks.choose(clock, step(size))
        self.calls = 1
        while (once := self.measure(self._call)) < seconds / 4 and self.calls < 1 << 24:
            self.calls = max(2 * self.calls, int(self.calls * seconds / 4 / max(once, 1e-9)))
        self.calls = max(1, int(self.calls * seconds / once))
        self.times: list[float] = []

    def _call(self) -> Any:
        for _ in range(self.calls - 1):
            self.step(self.size)
        return self.step(self.size)

    def take(self) -> None:
        """Measure once."""
        self.times.append(self.measure(self._call) / self.calls)

    def cell(self, ceilings: Ceilings | None, order: str, cores: int | None) -> Cell:
        """What was measured."""
        once = statistics.median(self.times)
        speed = self.size / once
        label, limit = "", None
        used = cores or (ceilings.cores if ceilings else 0)
        if ceilings is not None:
            label, limit = ceilings.of(order, used)
        return Cell(
            name=self.name,
            kind="step",
            n=ceilings.n if ceilings else 0,
            d=ceilings.d if ceilings else 0,
            dtype=ceilings.dtype if ceilings else "",
            loss="",
            order=order if ceilings else "",
            batch_size=self.size,
            cores=used,
            samples_per_second=speed,
            spread=(self.size / max(self.times), self.size / min(self.times)),
            repeats=len(self.times),
            seconds_per_update=once,
            ceiling=label,
            ceiling_speed=limit,
            fraction=None if limit is None else speed / limit,
        )
