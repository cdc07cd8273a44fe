"""``schuss predict``: a model and a data file in, predictions out."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import click

from schuss.cli.console import Notes

if TYPE_CHECKING:
    import numpy as np

    from schuss.data.preprocess import Encoder
    from schuss.data.tables import Table
    from schuss.result import Result

__all__ = ["predict"]


@click.command()
@click.argument("model", type=click.Path(path_type=Path))
@click.argument("data", type=click.Path(path_type=Path))
@click.option(
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Write to a .csv, .npy or .parquet file.  [default: CSV on standard output]",
)
@click.option(
    "--probabilities",
    is_flag=True,
    help="Add the probability of each class (log_loss and multinomial only).",
)
@click.option("--quiet", "-q", is_flag=True, help="Print nothing but warnings and errors.")
def predict(model: Path, data: Path, output: Path | None, probabilities: bool, quiet: bool) -> None:
    """Predict with a model that `schuss train` saved.

    DATA must have the columns the model was trained with, in any order; further columns are
    ignored. If the target is among them, the score is shown. There is one line of output for each
    row, in the same order.
    """
    from schuss.cli.outputs import check_distinct, check_writable, write_columns

    notes = Notes(quiet)
    check_writable(output, "--output", (".csv", ".npy", ".parquet"))
    check_distinct([("the model", model), ("the data file", data), ("--output", output)])
    with notes.warnings():
        result = _load(model, data)
        if probabilities and result.loss.name not in ("log_loss", "multinomial"):
            raise click.ClickException(
                f"--probabilities needs a model of log_loss or multinomial; {model} was trained "
                f"with {result.loss}"
            )
        table, X, y = _matrix(result, data, notes)
        result = replace(result, preprocessing=None)  # X is encoded already
        columns = {"prediction": result.predict(X)}
        if probabilities:
            columns |= _probabilities(result, X)
            if output is not None and output.suffix.lower() == ".npy":
                del columns["prediction"]
        write_columns(output, columns, sys.stdout)
        _say_score(result, table, X, y, notes)
    if output is not None:
        notes.say(f"{table.n_rows:,} predictions written to {output}")


def _load(model: Path, data: Path) -> Result:
    """The model; where it is the other file, say so."""
    import schuss
    from schuss.errors import DataError

    try:
        return schuss.load(model)
    except DataError:
        try:
            schuss.load(data)
        except DataError:
            pass
        else:
            raise click.ClickException(
                f"{model} is not a model, but {data} is; the model comes first: "
                f"schuss predict {data} {model}"
            ) from None
        raise


def _matrix(
    result: Result, data: Path, notes: Notes
) -> tuple[Table, np.ndarray, np.ndarray | None]:
    """The table, its matrix, and the target if the table has it whole."""
    from schuss.data import tables
    from schuss.data.preprocess import Encoder

    dtype = result.coef.dtype
    if result.preprocessing is None:
        table = tables.read(data)
        return table, _plain_matrix(result, table), None
    encoder = Encoder.from_dict(result.preprocessing)
    wanted = None if encoder.file_columns else [*encoder.columns, encoder.target or ""]
    table = tables.read(
        data,
        columns=wanted,
        text=encoder.text_columns,
        missing=encoder.missing,
        decimal=encoder.decimal,
    )
    return table, encoder.encode(table, dtype=dtype, say=notes.say), _target(encoder, table, result)


def _plain_matrix(result: Result, table: Table) -> np.ndarray:
    """All columns in the file's order, for a model that knows no names."""
    import numpy as np

    from schuss.data.preprocess import Encoder, Number

    names = [
        name
        for name in table.columns
        if name not in table.beside and not (table.sparse and name == table.target)
    ]
    width = result.coef.shape[-1]
    if len(names) != width:
        raise click.ClickException(
            f"{table.source} has {len(names)} columns; the model has {width} coefficients and was "
            "saved without column names"
        )
    encoder = Encoder(tuple(Number(name) for name in names))
    return encoder.encode(table, dtype=np.dtype(result.coef.dtype))


def _target(encoder: Encoder, table: Table, result: Result) -> np.ndarray | None:
    """The target column, where the table has it, whole and of the same type."""
    from schuss.data.preprocess import target_values
    from schuss.errors import DataError

    name = encoder.target
    if name is None or name not in table.columns:
        return None
    if table.positional and len(table.columns) - len(table.beside) != encoder.file_columns:
        return None
    try:
        y = target_values(table, name)
    except DataError:
        return None
    if (y.dtype.kind == "U") != encoder.text_target:
        return None
    return y


def _probabilities(result: Result, X: np.ndarray) -> dict[str, np.ndarray]:
    """Probability of each class; with one model for each, scaled to sum to 1."""
    shares = result.predict_proba(X)
    assert result.classes is not None
    return {f"probability_{label}": shares[:, k] for k, label in enumerate(result.classes)}


def _say_score(
    result: Result, table: Table, X: np.ndarray, y: np.ndarray | None, notes: Notes
) -> None:
    from schuss.cli.report import score_name, score_text

    if y is not None:
        notes.say(
            f"{score_name(result)} {score_text(result, X, y)} on the target column of "
            f"{table.source} ({table.n_rows:,} rows)"
        )
