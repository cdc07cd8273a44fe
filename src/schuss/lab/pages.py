"""The numbers on the README and in the docs, written from a record."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from schuss.errors import DataError
from schuss.lab.optim import HEADINGS as OPTIM_HEADINGS
from schuss.lab.optim import OptimRecord
from schuss.lab.record import Outcome, Record, fastest_peer
from schuss.lab.table import figure, machine_line

__all__ = ["markdown", "restructured", "rewrite"]

MARKS = {
    ".md": ("<!-- {}:begin -->", "<!-- {}:end -->"),
    ".rst": (".. {}:begin", ".. {}:end"),
}
HEADINGS = ("what", "data", "bar", "moonshot", "measured", "met")
VERDICTS = {"moonshot": "moonshot", "bar": "yes", "missed": "no", "not measured": "not measured"}


SHORT_HEADINGS = ("d", "batch size", "native", "jit", "fastest other", "native is faster by")


def short_rows(record: Record) -> list[tuple[str, ...]]:
    """Million rows per second in shuffled order, ours beside the fastest of the others."""
    setting = ("shuffle", "squared_error", "float32")
    cells = [c for c in record.cells if (c.order, c.loss, c.dtype) == setting]
    found = []
    for d, size in sorted({(c.d, c.batch_size) for c in cells}):
        here = [c for c in cells if (c.d, c.batch_size) == (d, size)]
        speeds = {c.name: c.samples_per_second / 1e6 for c in here if c.kind == "backend"}
        best = fastest_peer(here)
        cores = {c.name: f" ({c.cores} cores)" if c.cores > 1 else "" for c in here}
        ours = [
            f"{speeds[name]:.3g}{cores[name]}" if name in speeds else ""
            for name in ("native", "jit")
        ]
        if best is None:
            found.append((str(d), str(size), *ours, "", ""))
        else:
            speed = best.samples_per_second / 1e6
            ratio = f"{speeds['native'] / speed:.1f}×" if "native" in speeds else ""
            found.append((str(d), str(size), *ours, f"{speed:.3g} ({best.name})", ratio))
    return found


def rows(record: Record) -> list[tuple[str, ...]]:
    """The table of bars as text."""
    return [
        (
            made.what,
            made.column,
            _limit(made, made.bar),
            _limit(made, made.moonshot),
            figure(made.measured, made.unit) if made.measured is not None else made.note,
            VERDICTS[made.verdict],
        )
        for made in record.outcomes
    ]


def _limit(made: Outcome, limit: float | None) -> str:
    if limit is None:
        return ""
    return ("≥ " if made.at_least else "≤ ") + figure(limit, made.unit)


def caption(record: Record) -> str:
    """What the numbers are, and how to measure them anew."""
    settings = record.settings
    largest = max(settings.get("elements") or [0])
    versions = [
        f"{name} {record.machine[name]}"
        for name in ("scikit-learn", "torch", "jax")
        if record.machine.get(name)
    ]
    gone = f" Not run: {', '.join(record.absent)}." if record.absent else ""
    return (
        f"n·d = {largest:.0e}, float32, medians of {settings['repeats']} interleaved turns; "
        f"{machine_line(record.machine)}{''.join(', ' + v for v in versions)}.{gone} "
        "`schuss bench --peers` measures it anew, with those that are installed."
    )


def markdown(record: Record) -> str:
    """The table for the README: speeds, without the bars."""
    title = "Million rows per second, visited in shuffled order, squared error:"
    table = pipes((SHORT_HEADINGS, *short_rows(record)))
    return "\n".join([title, "", *table, "", caption(record)])


def pipes(rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown; the first row is its headings."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return [lines[0], "|" + "---|" * len(rows[0]), *lines[1:]]


def restructured(record: Record) -> str:
    """The table for the docs: bars, and whether they are met."""
    lines = listed((HEADINGS, *rows(record)), "40 20 10 10 10 10")
    return "\n".join(["", *lines, "", caption(record), ""])


def listed(rows: Sequence[Sequence[str]], widths: str) -> list[str]:
    """A table in reStructuredText; the first row is its headings."""
    lines = [".. list-table::", "   :header-rows: 1", f"   :widths: {widths}", ""]
    for row in rows:
        lines += [f"   {'*' if k == 0 else ' '} - {text}".rstrip() for k, text in enumerate(row)]
    return lines


def optim_markdown(record: OptimRecord) -> str:
    """The optimizers for the README: the middle one of the numbers of tensors, one thread."""
    counts, cores = record.settings["tensors"], min(record.settings["threads"])
    middle = sorted(counts)[len(counts) // 2]
    shown = [
        row
        for cell, row in zip(record.cells, record.rows(), strict=True)
        if (cell.tensors, cell.threads) == (middle, cores)
    ]
    return "\n".join([*pipes((OPTIM_HEADINGS, *shown)), "", optim_caption(record)])


def optim_restructured(record: OptimRecord) -> str:
    """The optimizers for the docs: every cell."""
    lines = listed((OPTIM_HEADINGS, *record.rows()), "22 13 11 11 15 14 14")
    return "\n".join(["", *lines, "", optim_caption(record), ""])


def optim_caption(record: OptimRecord) -> str:
    """What the numbers are, and how to measure them anew."""
    settings = record.settings
    return (
        f"A step over {settings['numbers']:,} float32 numbers, medians of {settings['repeats']} "
        f"interleaved turns, ratios of times; {machine_line(record.machine)}, torch "
        f"{record.machine['torch']}. The triad reads and writes the same numbers in place. "
        "`schuss bench optim` measures it anew."
    )


WRITERS: dict[tuple[type, str], Callable[[Any], str]] = {
    (Record, ".md"): markdown,
    (Record, ".rst"): restructured,
    (OptimRecord, ".md"): optim_markdown,
    (OptimRecord, ".rst"): optim_restructured,
}
NAMES = {Record: "numbers", OptimRecord: "optimizers"}


def marks(suffix: str, kind: type) -> tuple[str, str]:
    """The lines between which a record of that kind is written."""
    begin, end = (mark.format(NAMES[kind]) for mark in MARKS[suffix])
    return begin, end


def rewrite(path: str | os.PathLike[str], record: Record | OptimRecord) -> None:
    """Put the record's table between the marks of a page.

    Parameters
    ----------
    path : path-like
        A ``.md`` or ``.rst`` file.
    record : Record, with outcomes, or OptimRecord
    """
    page = Path(path)
    text = page.read_text(encoding="utf-8")
    begin, end = marks(page.suffix, type(record))
    if text.count(begin) != 1 or text.count(end) != 1:
        raise DataError(f"{str(page)!r}: expected the marks {begin!r} and {end!r} once each.")
    if isinstance(record, Record) and not record.outcomes:
        raise DataError("the record has no table of bars; measure it with 'schuss bench --peers'.")
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    table = WRITERS[type(record), page.suffix](record)
    page.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")
