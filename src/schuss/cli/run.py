"""What ``schuss train`` does: read, split, encode, fit, save, report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np

import schuss
from schuss import backends, losses, orders, rules, schedules
from schuss.cli import report, task
from schuss.cli.console import Notes
from schuss.cli.outputs import check_distinct, check_writable
from schuss.data import examples, preprocess, tables
from schuss.data.preprocess import Encoder
from schuss.data.tables import Table, counted, listing
from schuss.errors import DataError, ScalingWarning
from schuss.formulas.spec import check_number
from schuss.progress import Bar

if TYPE_CHECKING:
    from schuss.cli.task import Task
    from schuss.result import Result

__all__ = ["INTERRUPTED", "Options", "run"]

INTERRUPTED = 130
PLOT_ENDINGS = (".png", ".svg", ".pdf")


class Options(SimpleNamespace):
    """The options of ``schuss train``, by their names in Python."""


@dataclass
class Prepared:
    """What the model is trained and validated on.

    Attributes
    ----------
    source : str
    encoder : Encoder
    task : Task
        With the target of every row of the file.
    rows : tuple of two ndarrays
        Training and validation rows.
    X : tuple of two ndarrays of shape (n_rows, n_features)
    y : tuple of two ndarrays of shape (n_rows,)
    weight : tuple of two ndarrays, or None
    """

    source: str
    encoder: Encoder
    task: Task
    X: tuple[np.ndarray, np.ndarray]
    y: tuple[np.ndarray, np.ndarray]
    weight: tuple[np.ndarray, np.ndarray] | None

    @property
    def validation(self) -> tuple[np.ndarray, ...] | None:
        """The validation part, as :func:`schuss.fit` takes it."""
        if not len(self.y[1]):
            return None
        return (self.X[1], self.y[1]) + (() if self.weight is None else (self.weight[1],))


class Interrupted(Exception):
    """Ctrl-C before there was a model of every class."""


def run(options: Options) -> int:
    """Train as the options say; return the exit code."""
    notes = Notes(options.quiet)
    with notes.warnings(_scaling_hint(options)):
        _check(options)
        table = _read(options, notes)
        data = _prepare(table, options, notes)
        try:
            fitted = _fit(data, options, notes)
        except Interrupted as error:
            notes.warn(f"training was interrupted {error}")
            return INTERRUPTED
        result, results = fitted
        if options.output:
            # The summary below goes on with the matrix, the saved model takes raw columns.
            replace(result, preprocessing=data.encoder.to_dict()).save(options.output)
        if options.plot and len(results[0].history):
            report.plot(options.plot, results, len(data.y[0]), data.source)
        if not options.quiet:
            report.summary(result, results, data)
        _say_what_was_written(options, notes)
    if result.stop_reason == "interrupted":
        updates = int(result.history.last.get("updates", 0))
        saved = f"; the model so far is in {options.output}" if options.output else ""
        again = _goes_on(options.checkpoint)
        notes.warn(f"training was interrupted after {counted(updates, 'update')}{saved}{again}")
        return INTERRUPTED
    return 0


def _goes_on(checkpoint: Path | None) -> str:
    """End of a message about an interrupt: what a repeat of the command goes on from."""
    if checkpoint is None or not checkpoint.exists():
        return ""
    return f"; the same command goes on from checkpoint {checkpoint}"


def _scaling_hint(options: Options) -> dict[type[Warning], str]:
    """What to do about columns of different scale, in terms of options."""
    return {} if options.standardize or options.example else {ScalingWarning: "Pass --standardize."}


def _say_what_was_written(options: Options, notes: Notes) -> None:
    if options.plot:
        notes.say(f"loss curves drawn in {options.plot}")
    if options.output:
        notes.say(f"model saved in {options.output}")
    else:
        notes.say("the model was not saved; --output model.npz does that")


# --------------------------------------------------------------------------------------- checks


def _check(options: Options) -> None:
    """Refuse whatever can be refused before the data is read."""
    if options.validation is not None:
        check_number("--validation", options.validation, {">=": 0.0, "<": 1.0})
    if (options.data is None) == (options.example is None):
        raise DataError("name a data file, or one of the examples with --example; not both")
    check_writable(options.output, "--output", (".npz",))
    check_writable(options.plot, "--plot", PLOT_ENDINGS)
    check_writable(options.checkpoint, "--checkpoint", ())
    check_distinct(
        [
            ("the data file", options.data),
            ("--output", options.output),
            ("--plot", options.plot),
            ("--checkpoint", options.checkpoint),
        ]
    )
    if options.plot:
        tables.require("matplotlib", "plot", "--plot")
    loss = losses.get(options.loss) if options.loss else None
    rules.get(options.rule)
    orders.get(options.order)
    options.learning_rate = _learning_rate(options.learning_rate)
    options.class_weight = _class_weight(options.class_weight)
    backends.choose(options.backend, loss, options.threads)


def _learning_rate(text: str) -> Any:
    """A number, ``auto``, or a schedule."""
    if text == "auto":
        return text
    try:
        return float(text)
    except ValueError:
        return schedules.get(text)


def _class_weight(entries: tuple[str, ...]) -> str | dict[str, float] | None:
    """``balanced``, or the weight of each label named."""
    if not entries:
        return None
    if entries == ("balanced",):
        return "balanced"
    weights = {}
    for entry in entries:
        label, equals, text = entry.rpartition("=")
        try:
            weights[label] = float(text)
        except ValueError:
            equals = ""
        if not equals:
            raise DataError(f"--class-weight {entry}: expected 'balanced', or LABEL=WEIGHT")
    return weights


# ------------------------------------------------------------------------------- reading, splitting


def _read(options: Options, notes: Notes) -> Table:
    if options.example:
        table = examples.table(options.example)
        example = examples.EXAMPLES[options.example]
        notes.say(f"example {example.name}: {example.description}")
        options.target = options.target or example.target
        if options.validation is None:
            options.validation = 0.2
        if options.standardize is None:
            options.standardize = True
        return table
    options.validation = options.validation or 0.0
    options.standardize = bool(options.standardize)
    table = tables.read(
        options.data, drop=options.drop, missing=options.missing, decimal=options.decimal
    )
    options.target = _target(table, options.target)
    if options.weight is None and table.weight:
        options.weight = table.weight
        notes.say(f"array {table.weight!r} of {table.source} weights the samples")
    return table


def _target(table: Table, target: str | None) -> str:
    """Name of the target column."""
    if target is None:
        if table.target in table.columns:
            return table.target
        raise DataError(
            f"pass --target COLUMN; {table.source} has the columns {listing(list(table.columns))}"
        )
    if table.positional and target not in table.columns and target.lstrip("-").isdecimal():
        return str(int(target) % table.file_columns)  # -1 is the last column
    return target


def _prepare(table: Table, options: Options, notes: Notes) -> Prepared:
    """Split, then fit the encoding on the training rows alone."""
    y = preprocess.target_values(table, options.target)
    chosen, told = task.choose(options.target, y, options.loss)
    if told:
        notes.say(told)
    labels = chosen.y if chosen.classes is not None else None
    rows = preprocess.split(table.n_rows, options.validation, options.seed, labels)
    if options.validation and not len(rows[1]):
        raise DataError(
            f"--validation {options.validation:g} of {counted(table.n_rows, 'row')} is no row"
        )
    if not len(rows[0]):
        raise DataError(
            f"--validation {options.validation:g} leaves no row of {table.n_rows} to train on"
        )
    encoder = Encoder.fit(
        table,
        rows[0],
        target=options.target,
        ignore=[options.weight] if options.weight else [],
        keep=options.keep,
        standardize=options.standardize,
        impute=options.impute is not None,
        max_categories=options.max_categories,
        missing=options.missing,
        decimal=options.decimal,
        say=notes.say,
    )
    dtype = np.dtype(options.dtype)
    weight = _weights(table, options, chosen)
    return Prepared(
        source=f"example {options.example}" if options.example else table.source,
        encoder=encoder,
        task=chosen,
        X=(encoder.encode(table, rows[0], dtype), encoder.encode(table, rows[1], dtype, notes.say)),
        y=(chosen.y[rows[0]], chosen.y[rows[1]]),
        weight=None if weight is None else (weight[rows[0]], weight[rows[1]]),
    )


def _weights(table: Table, options: Options, chosen: Task) -> np.ndarray | None:
    """Sample weights of all rows, with the weights of the classes multiplied in."""
    weight = None
    if options.weight:
        weight = preprocess.target_values(table, options.weight)
        if weight.dtype.kind != "f":
            raise DataError(f"{table.source}: the weights in column {options.weight!r} are text")
    if isinstance(options.class_weight, dict):
        weight = np.ones(table.n_rows) if weight is None else weight
        known = {} if chosen.classes is None else {str(label): label for label in chosen.classes}
        for name, factor in options.class_weight.items():
            if name not in known:
                raise DataError(
                    f"--class-weight {name}={factor:g}: the target {options.target!r} has no class "
                    f"{name!r}{tables.suggestion(name, known)}"
                )
            weight = np.where(chosen.y == known[name], weight * factor, weight)
    return weight


# --------------------------------------------------------------------------------------- fitting


def _fit(data: Prepared, options: Options, notes: Notes) -> tuple[Result, list[Result]]:
    """The model, and the models it consists of (itself, or one for each class)."""
    if not data.task.one_against_rest:
        result = _fit_one(data, options, options.checkpoint, "", notes)
        return result, [result]
    classes = data.task.classes
    assert classes is not None
    count = len(classes)
    options = Options(**vars(options))
    if options.time_limit is not None:
        options.time_limit /= count
    results = []
    for k, label in enumerate(classes):
        one = replace(data, y=(_signs(data.y[0], label), _signs(data.y[1], label)))
        checkpoint = options.checkpoint
        if checkpoint is not None:
            checkpoint = checkpoint.with_name(f"{checkpoint.stem}.class{k}{checkpoint.suffix}")
        results.append(_fit_one(one, options, checkpoint, f"class {k + 1} of {count}", notes))
        if results[-1].stop_reason == "interrupted":
            raise Interrupted(
                f"at class {str(label)!r}, number {k + 1} of {count}; no model was saved"
                f"{_goes_on(checkpoint)}"
            )
    return schuss.Result.one_against_rest(results, classes), results


def _signs(y: np.ndarray, label: Any) -> np.ndarray:
    """+1 where the class is `label`, -1 elsewhere."""
    return np.where(y == label, 1, -1)


def _fit_one(
    data: Prepared, options: Options, checkpoint: Path | None, label: str, notes: Notes
) -> Result:
    balanced = options.class_weight == "balanced"
    return schuss.fit(
        data.X[0],
        data.y[0],
        loss=data.task.loss,
        batch_size=_batch_size(options.batch_size, len(data.y[0])),
        learning_rate=options.learning_rate,
        epochs=options.epochs,
        rule=options.rule,
        alpha=options.alpha,
        l1_ratio=options.l1_ratio,
        sample_weight=None if data.weight is None else data.weight[0],
        class_weight="balanced" if balanced else None,
        fit_intercept=not options.no_intercept,
        order=options.order,
        drop_last=options.drop_last,
        accumulate=options.accumulate,
        clip_norm=options.clip_norm,
        average=options.average,
        validation=data.validation,
        evaluate=options.evaluate,
        record_every=options.record_every,
        updates=options.updates,
        time_limit=options.time_limit,
        tol=options.tol,
        patience=options.patience,
        gtol=options.gtol,
        seed=options.seed,
        backend=options.backend,
        threads=options.threads,
        checkpoint=_checkpoint(checkpoint, options.checkpoint_every, notes),
        progress=False
        if options.quiet
        else Bar(label, None if options.updates else options.epochs),
    )


def _batch_size(asked: int | str | None, rows: int) -> int | str:
    """What was asked for; else 32, or all rows where there are fewer."""
    return min(32, rows) if asked is None else asked


def _checkpoint(path: Path | None, every: str, notes: Notes) -> Any:
    if path is None:
        return None
    from schuss.data import Checkpoint

    if path.exists():
        notes.say(f"going on from checkpoint {path}")
    return Checkpoint(path, every=int(every) if every.isdecimal() else every)
