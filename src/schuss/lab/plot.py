"""Records as a figure; needs matplotlib."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from schuss.errors import InvalidArgument, MissingPackage
from schuss.lab.record import Curve, Record, settings_of
from schuss.lab.table import setting_label

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw"]

MOST_PANELS = 12


def draw(record: Record, path: str | os.PathLike[str] | None) -> Figure:
    """A row of two charts for each setting."""
    try:
        from matplotlib.figure import Figure
    except ImportError:
        raise MissingPackage("Record.plot needs matplotlib: pip install matplotlib") from None
    settings = settings_of(record.cells)[:MOST_PANELS]
    if not settings:
        raise InvalidArgument("the record holds no cells: there is nothing to draw.")
    figure = Figure(figsize=(11, 4 * len(settings)), layout="constrained")
    panels = figure.subplots(len(settings), 2, squeeze=False)
    for (left, right), setting in zip(panels, settings, strict=True):
        curves = [curve for curve in record.curves() if curve.cells[0].setting == setting]
        for k, curve in enumerate(curves):
            _curve(left, right, curve, f"C{k}")
        _ceilings(left, record, curves)
        left.set(title=setting_label(setting), ylabel="samples / s")
        right.set(ylabel="seconds per update")
        for axes in (left, right):
            axes.set(xscale="log", yscale="log", xlabel="batch size")
            axes.grid(alpha=0.25)
        left.legend(frameon=False, fontsize="small")
    if path is not None:
        figure.savefig(path, dpi=150)
    return figure


def _curve(left: object, right: object, curve: Curve, colour: str) -> None:
    sizes = [cell.batch_size for cell in curve.cells]
    peer = curve.cells[0].kind == "peer"
    style = {"color": colour, "marker": "o", "ms": 4, "ls": "--" if peer else "-"}
    speeds = [cell.samples_per_second for cell in curve.cells]
    left.plot(sizes, speeds, label=curve.name, **style)  # type: ignore[attr-defined]
    low, high = zip(*(cell.spread for cell in curve.cells), strict=True)
    left.fill_between(sizes, low, high, color=colour, alpha=0.15, lw=0)  # type: ignore[attr-defined]
    knee = curve.knee
    left.plot(  # type: ignore[attr-defined]
        knee.batch_size, knee.samples_per_second, "o", ms=11, mfc="none", mec=colour
    )
    times = [cell.seconds_per_update for cell in curve.cells]
    right.plot(sizes, times, **style)  # type: ignore[attr-defined]


def _ceilings(axes: object, record: Record, curves: list[Curve]) -> None:
    """The ceilings that bind some cell, as horizontal lines."""
    bound: dict[str, float] = {}
    for curve in curves:
        for cell in curve.cells:
            ceilings = record.ceilings_for(cell)
            if ceilings is not None:
                label, speed = ceilings.of(cell.order, cell.cores)
                bound[label] = speed
    for label, speed in bound.items():
        axes.axhline(speed, color="0.4", ls=":", lw=1)  # type: ignore[attr-defined]
        axes.annotate(  # type: ignore[attr-defined]
            label,
            (0.01, speed),
            xycoords=("axes fraction", "data"),
            va="bottom",
            fontsize="x-small",
            color="0.4",
        )
