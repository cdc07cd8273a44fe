"""The history of a run: one row per epoch, or per ``record_every`` updates."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from schuss.errors import InvalidArgument, MissingPackage

if TYPE_CHECKING:
    import pandas
    from matplotlib.axes import Axes

__all__ = ["History"]

COLUMNS = (
    "epoch",
    "updates",
    "samples",
    "train_loss",
    "validation_loss",
    "learning_rate",
    "grad_norm",
    "seconds",
    "samples_per_second",
)


class History:
    """What a run recorded, column by column.

    Columns are ``epoch`` (finished epochs), ``updates``, ``samples``, ``train_loss`` (mean over
    rows, without the penalty), ``validation_loss`` (NaN without validation data),
    ``learning_rate`` (of the last update), ``grad_norm`` (of the objective: over all rows where
    they were evaluated, else of the last mini-batch), ``seconds`` and ``samples_per_second``.
    With ``evaluate="both"``, ``running_loss`` stands beside the full ``train_loss``.

    ``history["updates"]`` and ``history.updates`` give a column as an array; iterating gives the
    rows as dicts.

    Parameters
    ----------
    columns : tuple of str, optional
        Names of the columns.

    Examples
    --------
    >>> import numpy as np, schuss
    >>> X = np.random.default_rng(0).normal(size=(100, 3))
    >>> result = schuss.fit(X, X @ [1.0, 2.0, 3.0], epochs=2)
    >>> result.history["updates"]
    array([4, 8])
    """

    def __init__(self, columns: tuple[str, ...] = COLUMNS) -> None:
        # Lists may be longer where a fork has gone on in them: rows beyond are not this one's.
        self._columns: dict[str, list[float]] = {name: [] for name in columns}
        self._length = 0

    def append(self, **row: float) -> None:
        """Add one row; every column must be given."""
        if len(next(iter(self._columns.values()))) > self._length:
            self._columns = self.to_dict()
        for name, values in self._columns.items():
            values.append(row[name])
        self._length += 1

    def fork(self) -> History:
        """A history that begins with these rows; what is added to one is not in the other.

        It costs the same whatever the number of rows: they are shared.
        """
        made = History(())
        made._columns, made._length = self._columns, self._length
        return made

    @property
    def columns(self) -> list[str]:
        """Names of the columns."""
        return list(self._columns)

    @property
    def last(self) -> dict[str, float]:
        """The last row."""
        if not self._length:
            return {}
        return {name: values[self._length - 1] for name, values in self._columns.items()}

    def __len__(self) -> int:
        return self._length

    def __iter__(self) -> Iterator[dict[str, float]]:
        for values in zip(*self.to_dict().values(), strict=True):
            yield dict(zip(self._columns, values, strict=True))

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._columns:
            raise KeyError(f"history has no column {name!r}; it has {', '.join(self._columns)}")
        return np.array(self._columns[name][: self._length])

    def __getattr__(self, name: str) -> np.ndarray:
        if name.startswith("_") or name not in self._columns:
            raise AttributeError(f"history has no attribute or column {name!r}")
        return self[name]

    def __repr__(self) -> str:
        if not len(self):
            return "History(empty)"
        shown = ", ".join(f"{name}={value:.6g}" for name, value in self.last.items())
        return f"History({len(self)} rows; last: {shown})"

    def to_dict(self) -> dict[str, list[float]]:
        """Columns as lists."""
        return {name: values[: self._length] for name, values in self._columns.items()}

    @classmethod
    def from_dict(cls, columns: dict[str, list[float]]) -> History:
        """The inverse of :meth:`to_dict`.

        Parameters
        ----------
        columns : dict of str to list of float
        """
        history = cls(tuple(columns))
        history._columns = {name: list(values) for name, values in columns.items()}
        history._length = len(next(iter(columns.values()), ()))
        return history

    def to_pandas(self) -> pandas.DataFrame:
        """Columns as a data frame; needs pandas."""
        try:
            import pandas
        except ImportError:
            raise MissingPackage("History.to_pandas needs pandas: pip install pandas") from None
        return pandas.DataFrame(self.to_dict())

    def plot(self, smooth: int = 1, ax: Axes | None = None) -> Axes:
        """Draw the loss curves against epochs (updates, within the first); needs matplotlib.

        Parameters
        ----------
        smooth : int, default=1
            Width of a moving average over rows.
        ax : matplotlib Axes, optional
            Where to draw; a new figure by default.
        """
        if not isinstance(smooth, int) or smooth < 1:
            raise InvalidArgument(f"smooth={smooth!r}: expected an integer >= 1.")
        if ax is None:
            try:
                import matplotlib.pyplot as plt
            except ImportError:
                raise MissingPackage(
                    "History.plot needs matplotlib: pip install '.[plot]' from a clone of schuss"
                ) from None
            ax = plt.subplots(layout="constrained")[1]
        rows = self._rows_per_epoch
        time = self["samples"] / rows if rows else self["updates"]
        for name, label in (("train_loss", "training"), ("validation_loss", "validation")):
            values = self._finite(name)
            if values is not None:
                ax.plot(time, _moving_average(values, smooth), label=label)
        ax.set_xlabel("epochs" if rows else "updates")
        ax.set_ylabel("mean loss")
        lines, score = list(ax.lines), self._finite("validation_score")
        if score is not None:
            right = ax.twinx()
            lines += right.plot(time, _moving_average(score, smooth), "C1", label="validation")
            right.set_ylabel("validation score")
        if lines:
            ax.legend(handles=lines, frameon=False)
        return ax

    def _finite(self, name: str) -> np.ndarray | None:
        """A column, if there is one and it holds a finite number."""
        values = self[name].astype(float) if name in self._columns else np.empty(0)
        return values if np.isfinite(values).any() else None

    @property
    def _rows_per_epoch(self) -> float:
        """Rows visited per epoch, or 0 where none was finished.

        Every row of the history bounds it from above; one at the end of an epoch is exact.
        """
        epoch, samples = self["epoch"], self["samples"]
        whole = epoch > 0
        return float((samples[whole] / epoch[whole]).min()) if whole.any() else 0.0


def _moving_average(values: np.ndarray, width: int) -> np.ndarray:
    """Mean of the last ``width`` values, of those there are at the start."""
    # Not by differences of a running sum, in which small late losses would drown.
    return np.array([values[max(k - width, 0) : k].mean() for k in range(1, values.size + 1)])


def plain_columns(columns: dict[str, Any]) -> dict[str, list[float]]:
    """Columns as JSON can hold them: Python numbers."""
    return {name: [x.item() if hasattr(x, "item") else x for x in v] for name, v in columns.items()}
