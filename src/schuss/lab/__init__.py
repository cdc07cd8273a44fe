"""The lab: throughput against batch size, beside the machine's own ceilings and beside peers.

>>> import schuss
>>> record = schuss.lab.throughput(
...     d=5, elements=5_000, batch_sizes=[1, 32], backends=["reference"], repeats=1, seconds=0.001
... )
>>> [cell.batch_size for cell in record.cells]
[1, 32]
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from schuss.lab.comparison import Change, compare
    from schuss.lab.grid import throughput
    from schuss.lab.machine import ceilings
    from schuss.lab.optim import OptimCell, OptimRecord, optimizers
    from schuss.lab.record import Ceilings, Cell, Curve, Outcome, Record, load
    from schuss.lab.steps import sweep

__all__ = [
    "Ceilings",
    "Cell",
    "Change",
    "Curve",
    "OptimCell",
    "OptimRecord",
    "Outcome",
    "Record",
    "ceilings",
    "compare",
    "load",
    "optimizers",
    "sweep",
    "throughput",
]

# Loaded when first asked for: the pytest plugin imports this package in every test run.
_HOMES = {
    "Ceilings": "record",
    "Cell": "record",
    "Change": "comparison",
    "Curve": "record",
    "OptimCell": "optim",
    "OptimRecord": "optim",
    "Outcome": "record",
    "Record": "record",
    "ceilings": "machine",
    "compare": "comparison",
    "load": "record",
    "optimizers": "optim",
    "sweep": "steps",
    "throughput": "grid",
}


def __getattr__(name: str) -> Any:
    from importlib import import_module

    if name not in _HOMES:
        raise AttributeError(f"module 'schuss.lab' has no attribute {name!r}")
    value = getattr(import_module(f"schuss.lab.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
