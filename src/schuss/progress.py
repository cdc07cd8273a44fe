"""A live line about a running fit; nothing is drawn where nobody watches."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress, TaskID

__all__ = ["Bar"]

_WIDE = 110  # columns of a terminal that need no abbreviations


class Bar:
    """Progress bar with epoch, loss, learning rate, samples per second and time left.

    ``fit(progress=True)`` uses one; any object with these three methods will do. On a terminal the
    bar is drawn on standard error, ten times a second at most; elsewhere nothing is written.

    Parameters
    ----------
    label : str
        What stands before the bar.
    epochs : int, optional
        Number of epochs, to show beside the current one.
    console : rich.console.Console, optional
        Where to draw; standard error by default.

    Examples
    --------
    >>> from schuss.progress import Bar
    >>> bar = Bar(epochs=2)
    >>> bar.start(100)
    >>> bar.update(50, 0, 0.7, None, 0.1, 1e6)
    >>> bar.stop()
    """

    def __init__(
        self, label: str = "", epochs: int | None = None, console: Console | None = None
    ) -> None:
        self.label = label
        self.epochs = epochs
        # Loaded here, not in start(): the clock of the run is not running yet.
        from rich.console import Console

        self._console = console or Console(stderr=True)
        self._progress: Progress | None = None
        self._task: TaskID | None = None

    def start(self, total_updates: int) -> None:
        """Show the bar at 0 of `total_updates` updates."""
        if not (self._console.is_terminal or self._console.is_jupyter):
            return
        self._progress = _progress(self._console, self.label)
        self._task = self._progress.add_task(self.label, total=max(total_updates, 1), status="")
        self._progress.start()

    def update(
        self,
        updates: int,
        epoch: int,
        loss: float,
        validation_loss: float | None,
        learning_rate: float,
        samples_per_second: float,
    ) -> None:
        """Show the state after `updates` updates, in the epoch that is counted from 0."""
        if self._progress is None or self._task is None:
            return
        wide = self._progress.console.width >= _WIDE
        digits = 4 if wide else 3
        parts = [f"loss {loss:.{digits}g}"]
        if validation_loss is not None and not math.isnan(validation_loss):
            parts.append(f"{'validation' if wide else 'val'} {validation_loss:.{digits}g}")
        parts.append(f"lr {learning_rate:.{digits}g}")
        parts.append(rate(samples_per_second))
        if not wide:
            parts[-1] = parts[-1].replace(" samples", "").replace(" ", "")
        if wide or not self.label:
            now = f"{min(epoch + 1, self.epochs)}/{self.epochs}" if self.epochs else f"{epoch + 1}"
            parts.insert(0, f"epoch {now}")
        self._progress.update(self._task, completed=updates, status="  ".join(parts))

    def stop(self) -> None:
        """Remove the bar: what comes after it on the terminal says how it ended."""
        if self._progress is not None:
            self._progress.stop()
            self._progress = self._task = None


def _progress(console: Console, label: str) -> Progress:
    from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

    wide = console.width >= _WIDE
    return Progress(
        *([TextColumn("{task.description}", markup=False)] if label else []),
        BarColumn(bar_width=20 if wide else 8),
        TextColumn("{task.fields[status]}", markup=False),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    )


def rate(samples_per_second: float) -> str:
    """A speed in a few characters: ``870 samples/s``, ``1.25 M samples/s``."""
    value, unit = samples_per_second, ""
    for larger in (" k", " M", " G"):
        if abs(value) < 999.5:
            break
        value, unit = value / 1000, larger
    return f"{value:.3g}{unit} samples/s"
