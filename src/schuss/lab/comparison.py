"""Two records beside each other, by fraction of the ceiling that each measured.

Absolute times do not compare between runs: another machine, another neighbour. What part of the
machine's own limit a kernel reaches does.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from typing import TYPE_CHECKING

from schuss.formulas.spec import check_number
from schuss.lab.record import Record

if TYPE_CHECKING:
    from rich.console import RenderableType

__all__ = ["Change", "compare", "comparison_table"]

THRESHOLD = 0.15


@dataclasses.dataclass(frozen=True)
class Change:
    """One cell in two records.

    Attributes
    ----------
    name, order, dtype, loss : str
    d, batch_size : int
    before, after : float
        Fractions of the ceiling.
    regressed : bool
        Whether it fell by more than the threshold.

    Examples
    --------
    >>> import schuss
    >>> change = schuss.lab.Change("native", "shuffle", "float32", "mse", 20, 32, 0.8, 0.6, True)
    >>> round(change.relative, 2)
    -0.25
    """

    name: str
    order: str
    dtype: str
    loss: str
    d: int
    batch_size: int
    before: float
    after: float
    regressed: bool

    @property
    def relative(self) -> float:
        """Relative change: -0.25 is a quarter less."""
        return self.after / self.before - 1


def compare(old: Record, new: Record, threshold: float = THRESHOLD) -> list[Change]:
    """Compare the cells of our own backends that both records hold.

    Parameters
    ----------
    old, new : Record
    threshold : float, default=0.15
        Relative loss of the fraction of the ceiling that counts as a regression.

    Returns
    -------
    list of Change
        Worst first.

    Examples
    --------
    >>> import schuss
    >>> record = schuss.lab.throughput(
    ...     d=5, elements=5_000, batch_sizes=[32], backends="reference", repeats=1, seconds=0.001
    ... )
    >>> [change.relative for change in schuss.lab.compare(record, record)]
    [0.0]
    """
    check_number("threshold", threshold, {">": 0.0, "<": 1.0})
    before = {cell.key: cell for cell in old.cells if cell.kind == "backend" and cell.fraction}
    changes = []
    for cell in new.cells:
        was = before.get(cell.key)
        if cell.kind != "backend" or was is None or was.fraction is None or cell.fraction is None:
            continue
        changes.append(
            Change(
                cell.name,
                cell.order,
                cell.dtype,
                cell.loss,
                cell.d,
                cell.batch_size,
                was.fraction,
                cell.fraction,
                cell.fraction < (1 - threshold) * was.fraction,
            )
        )
    return sorted(changes, key=lambda change: change.relative)


def comparison_table(changes: Iterable[Change]) -> RenderableType:
    """The changes as a table for the terminal, worst first."""
    from schuss.lab.table import headed, percent

    table = headed(
        "Fraction of the ceiling", "name", "data", "batch", "before", "after", "change", ""
    )
    for change in changes:
        table.add_row(
            change.name,
            f"d = {change.d}, {change.dtype}, {change.loss}, {change.order}",
            f"{change.batch_size}",
            percent(change.before),
            percent(change.after),
            f"{100 * change.relative:+.0f} %",
            "[red]regressed[/]" if change.regressed else "",
        )
    return table
