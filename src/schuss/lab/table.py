"""Records as text: tables for the terminal, and figures as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from schuss.lab.record import Ceilings, Cell, Curve, Outcome, Record, settings_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = ["ceilings_table", "figure", "outcomes_table", "record_table", "setting_label", "short"]

VERDICTS = {"moonshot": "bold green", "bar": "green", "missed": "red", "not measured": "dim"}


def short(number: float | None, unit: str = "") -> str:
    """A number in three digits with a prefix: ``12.3 M``, ``870 n``; a dash for None."""
    if number is None:
        return "–"
    if number == 0:
        return f"0 {unit}".rstrip()
    for size, prefix in (
        (1e12, "T"),
        (1e9, "G"),
        (1e6, "M"),
        (1e3, "k"),
        (1, ""),
        (1e-3, "m"),
        (1e-6, "µ"),
        (1e-9, "n"),
    ):
        if abs(number) >= 0.9995 * size or size == 1e-9:
            digits = number / size
            text = f"{digits:.0f}" if abs(digits) >= 99.95 else f"{digits:.3g}"
            return f"{text} {prefix}{unit}".rstrip()
    raise AssertionError("the smallest prefix takes what is left")


def millions(speed: float) -> str:
    """Three digits, without an exponent."""
    return short(speed / 1e6) if speed < 999.5e6 else f"{speed / 1e6:,.0f}"


def spread(cell: Cell) -> str:
    """Slowest and fastest repeat, relative to the median."""
    low, high = (100 * (speed / cell.samples_per_second - 1) for speed in cell.spread)
    return f"{low:+.0f} {high:+.0f} %"


def percent(part: float | None) -> str:
    """A part in per cent; a dash for None."""
    return "–" if part is None else f"{100 * part:.0f} %"


def figure(value: float | None, unit: str) -> str:
    """A figure of the table of bars in its unit."""
    if value is None:
        return "–"
    if unit == "fraction":
        return percent(value)
    if unit == "ratio":
        return f"{value:.2f}×" if value < 9.995 else f"{value:.0f}×"
    return short(value, unit if unit != "bytes" else "B")


def setting_label(setting: tuple[int, str, str, str]) -> str:
    """Columns, dtype, loss and order in one line."""
    d, dtype, loss, order = setting
    return " · ".join(part for part in (f"d = {d}" if d else "", dtype, loss, order) if part)


def record_table(record: Record) -> RenderableType:
    """All tables of a record, one below the other."""
    from rich.console import Group

    parts: list[Any] = [machine_line(record)]
    if record.ceilings:
        parts += [ceilings_table(record.ceilings)]
    for setting in settings_of(record.cells):
        parts.append(cells_table([c for c in record.cells if c.setting == setting], setting))
        curves = [c for c in record.curves() if c.cells[0].setting == setting and len(c.cells) > 1]
        if curves:
            parts.append(curves_table(curves))
    if record.outcomes:
        parts.append(outcomes_table(record.outcomes))
    parts += [f"not run: {name} ({why})" for name, why in record.absent.items()]
    parts += [f"note: {note}" for note in record.notes]
    return Group(*parts)


def machine_line(record: Record) -> str:
    """The machine in one line."""
    facts = record.machine
    parts = [
        facts.get("cpu"),
        f"{facts.get('threads')} threads",
        facts.get("instruction set"),
        *(f"{name} {facts[name]}" for name in ("schuss", "numpy", "numba") if facts.get(name)),
    ]
    return ", ".join(str(part) for part in parts if part)


def _table(title: str, *columns: str) -> Table:
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for k, name in enumerate(columns):
        table.add_column(name, justify="left" if k == 0 else "right", no_wrap=True)
    return table


def ceilings_table(ceilings: Iterable[Ceilings]) -> RenderableType:
    """What the machine can do, a row for each shape of data."""
    table = _table(
        "The machine's ceilings, M rows/s: one core · all cores",
        "data",
        "in order",
        "random-row",
        "GFLOP/s",
        "fork-join",
        "measured by",
    )
    for c in ceilings:
        flops = "–" if c.flops_one is None else f"{c.flops_one / 1e9:.0f} · {c.flops_all / 1e9:.0f}"  # type: ignore[operator]
        table.add_row(
            f"d = {c.d}, {c.dtype}",
            f"{millions(c.sequential_one)} · {millions(c.sequential_all)}",
            f"{millions(c.random_one)} · {millions(c.random_all)}",
            flops,
            short(c.fork_join, "s"),
            c.measured_by,
        )
    return table


def cells_table(cells: list[Cell], setting: tuple[int, str, str, str]) -> RenderableType:
    """One setting: a row for each batch size and name."""
    table = _table(
        setting_label(setting) or "steps",
        "name",
        "batch",
        "samples/s",
        "spread",
        "update",
        "GB/s",
        "cores",
        "of ceiling",
    )
    for cell in sorted(cells, key=lambda cell: (cell.batch_size, -cell.samples_per_second)):
        mark = " [red](wrong result)[/]" if cell.verified is False else ""
        gigabytes = cell.gigabytes_per_second
        table.add_row(
            cell.name + mark,
            f"{cell.batch_size}",
            short(cell.samples_per_second),
            spread(cell),
            short(cell.seconds_per_update, "s"),
            "–" if gigabytes is None else f"{gigabytes:.2f}",
            f"{cell.cores or '–'}",
            percent(cell.fraction),
        )
    return table


def curves_table(curves: list[Curve]) -> RenderableType:
    """Best, knee and decline of every curve."""
    table = _table("", "name", "best", "at batch", "knee at batch", "the largest loses")
    for curve in curves:
        table.add_row(
            curve.name,
            short(curve.best.samples_per_second),
            f"{curve.best.batch_size}",
            f"{curve.knee.batch_size}",
            percent(curve.decline),
        )
    return table


def outcomes_table(outcomes: Iterable[Outcome]) -> RenderableType:
    """The table of bars."""
    table = _table(
        "The speed to reach", "what", "data", "bar", "moonshot", "measured", "met", "note"
    )
    last = ""
    for made in outcomes:
        sign = "≥ " if made.at_least else "≤ "
        style = VERDICTS[made.verdict]
        table.add_row(
            made.what if made.what != last else "",
            made.column,
            sign + figure(made.bar, made.unit) if made.bar is not None else "–",
            sign + figure(made.moonshot, made.unit) if made.moonshot is not None else "–",
            figure(made.measured, made.unit),
            f"[{style}]{made.verdict}[/]",
            made.note,
        )
        last = made.what
    for column in (table.columns[0], table.columns[-1]):
        column.no_wrap, column.justify = False, "left"
    return table
