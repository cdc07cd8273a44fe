"""Records as text: tables for the terminal, and figures as people read them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from schuss.lab.record import Ceilings, Cell, Curve, Outcome, Record, settings_of

if TYPE_CHECKING:
    from rich.console import RenderableType
    from rich.table import Table

__all__ = [
    "ceilings_table",
    "figure",
    "headed",
    "machine_line",
    "outcomes_table",
    "record_table",
    "setting_label",
    "short",
]

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

    parts: list[Any] = [machine_line(record.machine)]
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


def machine_line(facts: dict[str, Any]) -> str:
    """The machine in one line."""
    parts = [
        facts.get("cpu"),
        f"{facts.get('threads')} threads",
        facts.get("instruction set"),
        *(f"{name} {facts[name]}" for name in ("schuss", "numpy", "numba") if facts.get(name)),
    ]
    return ", ".join(str(part) for part in parts if part)


def headed(title: str, *columns: str) -> Table:
    """A table without rows; its first column is text, the others figures."""
    from rich import box
    from rich.table import Table

    table = Table(title=title, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for k, name in enumerate(columns):
        table.add_column(name, justify="left" if k == 0 else "right", no_wrap=True)
    return table


def ceilings_table(ceilings: Iterable[Ceilings]) -> RenderableType:
    """What the machine can do, a row for each shape of data."""
    table = headed(
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
    table = headed(
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
    table = headed("", "name", "best", "at batch", "knee at batch", "the largest loses")
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
    """The table of bars: a heading for each row, its figures below."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    parts: list[Any] = [Text("The speed to reach", style="bold")]
    last = ""
    for made in outcomes:
        if made.what != last:
            parts.append(Text(f"\n{made.what}", style="bold"))
            last = made.what
        sign = "≥ " if made.at_least else "≤ "
        limits = [
            f"{name} {sign}{figure(limit, made.unit)}" if limit is not None else ""
            for name, limit in (("bar", made.bar), ("moonshot", made.moonshot))
        ]
        row = Table.grid(padding=(0, 1))
        for width in (26, 20, 24, 14, 13):
            row.add_column(width=width)
        row.add_column(overflow="fold")
        verdict = Text(made.verdict, style=VERDICTS[made.verdict])
        row.add_row(
            f"  {made.column}", *limits, figure(made.measured, made.unit), verdict, made.note
        )
        parts.append(row)
    return Group(*parts)
