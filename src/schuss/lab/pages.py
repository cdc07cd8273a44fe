"""The numbers on the README and in the docs, written from a record."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from schuss.errors import DataError
from schuss.lab.record import Outcome, Record
from schuss.lab.table import figure, machine_line

__all__ = ["markdown", "restructured", "rewrite"]

MARKS = {
    ".md": ("<!-- numbers:begin -->", "<!-- numbers:end -->"),
    ".rst": (".. numbers:begin", ".. numbers:end"),
}
HEADINGS = ("what", "data", "bar", "moonshot", "measured", "met")
VERDICTS = {"moonshot": "moonshot", "bar": "yes", "missed": "no", "not measured": "not measured"}


def rows(record: Record, everything: bool) -> list[tuple[str, ...]]:
    """The table of bars as text; the cells beside the best peer only where all are wanted."""
    kept = [o for o in record.outcomes if everything or not _single_cell(o)]
    return [
        (
            made.what,
            made.column,
            _limit(made, made.bar),
            _limit(made, made.moonshot),
            figure(made.measured, made.unit) if made.measured is not None else made.note,
            VERDICTS[made.verdict],
        )
        for made in kept
    ]


def _single_cell(made: Outcome) -> bool:
    return made.key == "best peer" and made.column.startswith("d = ")


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
        f"{machine_line(record)}{''.join(', ' + v for v in versions)}.{gone} "
        "`schuss bench --peers` measures it anew."
    )


def markdown(record: Record) -> str:
    """The table for the README."""
    lines = [f"| {' | '.join(HEADINGS)} |", "|" + "---|" * len(HEADINGS)]
    lines += [f"| {' | '.join(row)} |" for row in rows(record, everything=False)]
    return "\n".join([*lines, "", caption(record)])


def restructured(record: Record) -> str:
    """The table for the docs, with every cell."""
    lines = [".. list-table::", "   :header-rows: 1", "   :widths: 40 20 10 10 10 10", ""]
    for row in (HEADINGS, *rows(record, everything=True)):
        lines += [f"   {'*' if k == 0 else ' '} - {text}".rstrip() for k, text in enumerate(row)]
    return "\n".join(["", *lines, "", caption(record), ""])


WRITERS: dict[str, Callable[[Record], str]] = {".md": markdown, ".rst": restructured}


def rewrite(path: str | os.PathLike[str], record: Record) -> None:
    """Put the record's table between the marks of a page.

    Parameters
    ----------
    path : path-like
        A ``.md`` or ``.rst`` file.
    record : Record
        With outcomes.
    """
    page = Path(path)
    text = page.read_text(encoding="utf-8")
    begin, end = MARKS[page.suffix]
    if text.count(begin) != 1 or text.count(end) != 1:
        raise DataError(f"{str(page)!r}: expected the marks {begin!r} and {end!r} once each.")
    if not record.outcomes:
        raise DataError("the record has no table of bars; measure it with 'schuss bench --peers'.")
    before, rest = text.split(begin)
    after = rest.split(end)[1]
    table = WRITERS[page.suffix](record)
    page.write_text(f"{before}{begin}\n{table}\n{end}{after}", encoding="utf-8")
