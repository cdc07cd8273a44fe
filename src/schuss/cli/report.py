"""What ``schuss train`` shows at the end: a table, and a picture of the loss curves."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from schuss.data.container import atomic_write
from schuss.data.tables import counted
from schuss.progress import rate

if TYPE_CHECKING:
    from rich.table import Table

    from schuss.cli.run import Prepared
    from schuss.result import Result

__all__ = ["mean_loss", "plot", "score_name", "summary"]

STOPPED = {
    "updates": "--updates",
    "time_limit": "--time-limit",
    "tol": "--tol: no further improvement",
    "gtol": "--gtol: the gradient is that small",
    "interrupted": "Ctrl-C",
}


def mean_loss(result: Result, X: np.ndarray, y: np.ndarray) -> float:
    """Mean loss over the rows; with one model for each class, their mean."""
    margin = np.asarray(result.margin(X), dtype=np.float64)
    if result.classes is None:
        return float(result.loss(margin, y).mean())
    if result.loss.domain == "classes":
        return float(result.loss(margin, np.searchsorted(result.classes, y)).mean())
    if margin.ndim == 1:
        return float(result.loss(margin, np.where(y == result.classes[1], 1.0, -1.0)).mean())
    signs = np.where(y[:, None] == np.asarray(result.classes)[None, :], 1.0, -1.0)
    return float(result.loss(margin, signs).mean())


def score_name(result: Result) -> str:
    """What ``result.score`` is."""
    return "R²" if result.classes is None else "accuracy"


def score_text(result: Result, X: np.ndarray, y: np.ndarray) -> str:
    """Accuracy in percent, or R²."""
    value = float(result.score(X, y))
    return f"{value:.4f}" if result.classes is None else f"{100 * value:.2f} %"


def summary(result: Result, results: list[Result], data: Prepared) -> None:
    """Print the tables on standard output."""
    from rich.console import Console

    console = Console(markup=False, highlight=False)
    console.print(_scores(result, data))
    console.print(_facts(result, results))


def _scores(result: Result, data: Prepared) -> Table:
    """Loss and score of both parts of the rows."""
    from rich import box
    from rich.table import Table

    parts = [0, 1] if len(data.y[1]) else [0]
    sets = [(data.X[part], data.y[part]) for part in parts]
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("", style="bold", min_width=_width(result))
    for name in ("training", "validation")[: len(parts)]:
        table.add_column(name, justify="right")
    table.add_row(str(result.loss), *(f"{mean_loss(result, X, y):.6g}" for X, y in sets))
    if result.classes is None:
        table.add_row("RMSE", *(f"{_rmse(result, X, y):.6g}" for X, y in sets))
    table.add_row(score_name(result), *(score_text(result, X, y) for X, y in sets))
    if result.classes is not None:
        # What a model without columns would reach.
        table.add_row(_BASELINE, *(_most_frequent(data.y[0], y) for _, y in sets))
    table.add_row("rows", *(f"{len(y):,}" for _, y in sets))
    return table


_BASELINE = "most frequent class"


def _width(result: Result) -> int:
    """Characters of the longest name, so that both tables line up."""
    return len("learning rate" if result.classes is None else _BASELINE)


def _rmse(result: Result, X: np.ndarray, y: np.ndarray) -> float:
    """Root of the mean squared error, in the unit of the target."""
    return float(np.sqrt(np.mean((np.asarray(result.predict(X), dtype=np.float64) - y) ** 2)))


def _most_frequent(training: np.ndarray, y: np.ndarray) -> str:
    """Share of the class that is most frequent among the training rows."""
    classes, counts = np.unique(training, return_counts=True)
    return f"{100 * np.mean(y == classes[counts.argmax()]):.2f} %"


# What a run has done that was interrupted at its start.
NOTHING_YET = {"updates": 0, "seconds": 0.0, "samples": 0, "epoch": 0}


def _facts(result: Result, results: list[Result]) -> Table:
    """What was run, and how fast."""
    from rich.table import Table

    # An interrupt can come before the first row.
    last = [part.history.last or NOTHING_YET for part in results]
    updates = sum(int(row["updates"]) for row in last)
    seconds = sum(row["seconds"] for row in last)
    samples = sum(row["samples"] for row in last)
    epochs = max(int(row["epoch"]) for row in last)
    each = f" for each of {len(results)} models, one against the rest" if len(results) > 1 else ""
    speed = f", {rate(samples / seconds)}" if seconds > 0 else ""
    table = Table(box=None, show_header=False, padding=(0, 1))
    table.add_column("", style="bold", min_width=_width(result))
    batch = counted(result.config["batch_size"], "row")
    table.add_row("epochs", f"{epochs}{each}")
    table.add_row("updates", f"{updates:,}, of {batch} each")
    table.add_row("learning rate", _schedules(results))
    table.add_row("features", f"{result.n_features:,}")
    table.add_row("time", f"{_duration(seconds)}{speed}")
    table.add_row("backend", f"{result.backend}, {result.config['dtype']}")
    reasons = {part.stop_reason for part in results} - {"epochs"}
    if reasons:
        table.add_row("stopped by", ", ".join(STOPPED.get(name, name) for name in sorted(reasons)))
    return table


def _schedules(results: list[Result]) -> str:
    """The schedule, its numbers rounded; with several models, that of the first."""
    texts = [
        re.sub(r"\d+\.\d{5,}(?:e[-+]?\d+)?", lambda m: f"{float(m[0]):.4g}", text)
        for text in dict.fromkeys(part.config["learning_rate"] for part in results)
    ]
    return texts[0] + (" and others" if len(texts) > 1 else "")


def _duration(seconds: float) -> str:
    if seconds < 1:
        return f"{1000 * seconds:.3g} ms"
    if seconds < 120:
        return f"{seconds:.3g} s"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"


# ---------------------------------------------------------------------------------------- picture


def plot(path: Path, results: list[Result], rows: int, title: str) -> None:
    """Draw training and validation loss, and below them the learning rate.

    Parameters
    ----------
    path : Path
        Its ending says the format.
    results : list of Result
        One for each class, or one.
    rows : int
        Number of training rows, to count in epochs.
    title : str
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(7.2, 4.8), dpi=160, layout="constrained")
    FigureCanvasAgg(figure)
    upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=(4, 1))
    columns = [{name: part.history[name] for name in _DRAWN} for part in results]
    for axes in (upper, lower):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.tick_params(colors="0.3", labelsize=9)
    ends = [
        _curve(upper, columns, rows, "train_loss", "training", "#1f6fb4"),
        _curve(upper, columns, rows, "validation_loss", "validation", "#d1600a"),
    ]
    _scale(upper, columns)
    _label_ends(upper, [end for end in ends if end is not None])
    _curve(lower, columns, rows, "learning_rate", None, "0.35")
    lower.set_ylim(0, 1.15 * max(part["learning_rate"].max() for part in columns))
    lower.yaxis.set_major_locator(MaxNLocator(3, steps=[1, 2, 5, 10]))
    lower.set_xlim(left=0)
    lower.xaxis.set_major_locator(MaxNLocator(integer=lower.get_xlim()[1] > 2, steps=[1, 2, 5, 10]))
    upper.set_ylabel(str(results[0].loss), fontsize=9)
    lower.set_ylabel("learning rate", fontsize=9)
    lower.set_xlabel("epochs", fontsize=9)
    if len(results) > 1:
        title += f": {len(results)} models, one against the rest, and their mean"
    upper.set_title(title, loc="left", fontsize=11)
    with atomic_write(path) as temporary:
        figure.savefig(temporary, format=path.suffix[1:].lower())


_DRAWN = ("samples", "train_loss", "validation_loss", "learning_rate")


def _curve(
    axes: Any,
    columns: list[dict[str, np.ndarray]],
    rows: int,
    name: str,
    label: str | None,
    colour: str,
) -> tuple[float, float, str, str] | None:
    """One quantity over the epochs: faintly for each class, and their mean.

    Returns the last point with its label and colour.
    """
    curves = [(part["samples"] / rows, part[name].astype(float)) for part in columns]
    # The row of an interrupted epoch may hold no loss.
    curves = [(x[np.isfinite(y)], y[np.isfinite(y)]) for x, y in curves]
    curves = [(x, y) for x, y in curves if len(x)]
    if not curves:
        return None
    if len(curves) > 1:
        for x, y in curves:
            axes.plot(x, y, color=colour, linewidth=0.7, alpha=0.25)
    length = min(len(x) for x, _ in curves)
    x = curves[0][0][:length]
    y = np.mean([values[:length] for _, values in curves], axis=0)
    marker = "o" if length < 3 else None
    # Not clipped: the first and last point stand on the edge of the axes.
    axes.plot(x, y, color=colour, linewidth=1.8, marker=marker, markersize=4, clip_on=False)
    return (x[-1], y[-1], label, colour) if label else None


_SPAN = 10


def _scale(axes: Any, columns: list[dict[str, np.ndarray]]) -> None:
    """The range of the losses; on a logarithmic scale where they span more than a factor of 10."""
    values = np.concatenate([part[name] for part in columns for name in _DRAWN[1:3]]).astype(float)
    values = values[np.isfinite(values)]
    if values.size and values.min() > 0 and values.max() > _SPAN * values.min():
        axes.set_yscale("log")
    axes.autoscale_view()  # the labels' places depend on it


def _label_ends(axes: Any, ends: list[tuple[float, float, str, str]]) -> None:
    """Write each curve's name beside its end, one above the other where they are close."""
    to_pixels = axes.transData.transform
    heights = [to_pixels((x, y))[1] for x, y, _, _ in ends]
    order = np.argsort(heights)
    apart = 28.0  # pixels at the figure's resolution: a line of text
    shift = 0.0
    if len(ends) == 2 and (gap := heights[order[1]] - heights[order[0]]) < apart:
        shift = (apart - gap) / 2
    for place, k in enumerate(order):
        x, y, label, colour = ends[k]
        offset = (-shift if place == 0 else shift) * 72 / axes.figure.dpi
        axes.annotate(
            f"{label} {y:.4g}",
            (x, y),
            xytext=(6, offset),
            textcoords="offset points",
            color=colour,
            fontsize=9,
            va="center",
            annotation_clip=False,
        )
