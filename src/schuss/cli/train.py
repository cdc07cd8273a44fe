"""``schuss train``: its options."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

__all__ = ["train"]


class _Section(click.Option):
    """An option that stands under a heading in the help text."""

    def __init__(self, *args: Any, section: str = "", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.section = section


class _Command(click.Command):
    """A command whose help groups its options under headings."""

    def format_options(self, context: click.Context, formatter: click.HelpFormatter) -> None:
        sections: dict[str, list[tuple[str, str]]] = {}
        for parameter in self.get_params(context):
            record = parameter.get_help_record(context)
            if record is not None and isinstance(parameter, click.Option):
                heading = getattr(parameter, "section", "") or "Other"
                sections.setdefault(heading, []).append(record)
        for heading, records in sections.items():
            with formatter.section(heading):
                formatter.write_dl(records)


def _option(section: str, *names: str, **settings: Any) -> Any:
    return click.option(*names, cls=_Section, section=section, **settings)


class _Number(click.ParamType):
    """A whole number, or one of some words."""

    def __init__(self, *words: str) -> None:
        self.words = words
        self.name = "|".join(["N", *words])

    def convert(self, value: Any, param: Any, ctx: Any) -> int | str:
        if value in self.words or isinstance(value, int):
            return value
        try:
            return int(value)
        except ValueError:
            accepted = " or ".join(["a whole number", *map(repr, self.words)])
            self.fail(f"{value!r} is not {accepted}.", param, ctx)


class _Duration(click.ParamType):
    """Seconds, or a text such as ``90s``, ``5min``, ``2h``."""

    name = "TIME"
    units = {"s": 1.0, "sec": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0}  # noqa: RUF012

    def convert(self, value: Any, param: Any, ctx: Any) -> float:
        text = str(value).strip().lower()
        unit = text.lstrip("0123456789.").strip()
        try:
            return float(text.removesuffix(unit)) * self.units[unit or "s"]
        except (ValueError, KeyError):
            self.fail(f"{value!r} is not a time such as 30, 90s, 5min or 2h.", param, ctx)


DATA, MODEL, DESCENT, STOP, OUTPUT = "Data", "Model", "Descent", "Stopping", "Output"


EXAMPLES = """\b
Examples:
  schuss train --example breast-cancer
  schuss train houses.csv --target price --loss squared_error --batch-size 256
      --epochs 20 --validation 0.2 --standardize --output model.npz --plot curves.png
"""


@click.command(cls=_Command, epilog=EXAMPLES)
@click.argument("data", required=False, type=click.Path(path_type=Path))
@_option(
    DATA,
    "--example",
    metavar="NAME",
    help="Train on a table that comes with schuss: breast-cancer, diabetes or digits.",
)
@_option(DATA, "--target", metavar="COLUMN", help="Column to predict. Needed for CSV and Parquet.")
@_option(
    DATA,
    "--drop",
    multiple=True,
    metavar="COLUMN",
    help="Leave a column out; '#3' is the third. Repeatable.",
)
@_option(
    DATA,
    "--keep",
    multiple=True,
    metavar="COLUMN",
    help="Use a column although it looks like an identifier or date. Repeatable.",
)
@_option(DATA, "--weight", metavar="COLUMN", help="Column of sample weights.")
@_option(
    DATA,
    "--impute",
    type=click.Choice(["mean"]),
    help="Fill missing numbers with the column's mean; missing text becomes a category.",
)
@_option(
    DATA,
    "--missing",
    multiple=True,
    metavar="TEXT",
    help="What else stands for a missing value in a CSV file, such as '?'. Repeatable.",
)
@_option(
    DATA,
    "--decimal",
    type=click.Choice([".", ","]),
    default=".",
    show_default=True,
    help="Decimal mark of a CSV file.",
)
@_option(
    DATA,
    "--max-categories",
    metavar="N",
    type=click.IntRange(1),
    default=100,
    show_default=True,
    help="Refuse text columns with more distinct values.",
)
@_option(
    DATA,
    "--standardize/--no-standardize",
    default=None,
    help="Give columns of numbers mean 0 and deviation 1 over the training rows. "
    "[default: only with --example]",
)
@_option(
    DATA,
    "--validation",
    type=click.FloatRange(0, 1, max_open=True),
    metavar="SHARE",
    help="Share of the rows to validate on. [default: 0; 0.2 with --example]",
)
@_option(
    DATA,
    "--seed",
    metavar="N",
    type=click.IntRange(0),
    default=0,
    show_default=True,
    help="Of the split and of the order of visits.",
)
@_option(
    MODEL,
    "--loss",
    metavar="LOSS",
    help="Name or text form, such as 'huber(epsilon=1.35)'. [default: from the target]",
)
@_option(
    MODEL,
    "--alpha",
    metavar="X",
    type=float,
    default=0.0,
    show_default=True,
    help="Strength of the penalty.",
)
@_option(
    MODEL,
    "--l1-ratio",
    metavar="X",
    type=float,
    default=0.0,
    show_default=True,
    help="Share of L1 in the penalty.",
)
@_option(
    MODEL,
    "--class-weight",
    multiple=True,
    metavar="LABEL=WEIGHT",
    help="'balanced', or a weight for a class. Repeatable.",
)
@_option(MODEL, "--no-intercept", is_flag=True, help="Fit no intercept.")
@_option(
    DESCENT,
    "--batch-size",
    metavar="N|full",
    type=_Number("full"),
    help="Rows for each update; 'full' for all of them. [default: 32, or fewer rows]",
)
@_option(
    DESCENT,
    "--epochs",
    metavar="N",
    type=int,
    default=20,
    show_default=True,
    help="Visits of every row.",
)
@_option(
    DESCENT,
    "--learning-rate",
    default="auto",
    show_default=True,
    metavar="RATE",
    help="A number, 'auto', or a schedule such as 'cosine(0.1, steps=1000)'.",
)
@_option(
    DESCENT,
    "--rule",
    default="sgd",
    show_default=True,
    metavar="RULE",
    help="sgd, adam, adamw, adagrad, or a text form such as 'sgd(momentum=0.9)'.",
)
@_option(
    DESCENT,
    "--order",
    default="shuffle",
    show_default=True,
    metavar="ORDER",
    help="shuffle, sequential, replacement, weighted, stratified, blocks, or a text form.",
)
@_option(DESCENT, "--drop-last", is_flag=True, help="Leave out an epoch's last, shorter batch.")
@_option(
    DESCENT,
    "--accumulate",
    metavar="N",
    type=int,
    default=1,
    show_default=True,
    help="Batches summed for one update.",
)
@_option(DESCENT, "--clip-norm", metavar="X", type=float, help="Largest norm of a gradient.")
@_option(DESCENT, "--average", is_flag=True, help="Average the coefficients over the updates.")
@_option(
    DESCENT,
    "--dtype",
    type=click.Choice(["float32", "float64"]),
    default="float64",
    show_default=True,
    help="Arithmetic; float32 is about twice as fast.",
)
@_option(
    DESCENT,
    "--backend",
    default="auto",
    show_default=True,
    metavar="NAME",
    help="auto, native, jit or reference.",
)
@_option(
    DESCENT,
    "--threads",
    metavar="N",
    type=int,
    help="Most threads to use. [default: what the machine allows]",
)
@_option(STOP, "--updates", metavar="N", type=int, help="Stop after so many updates.")
@_option(STOP, "--time-limit", type=_Duration(), help="Stop after this time, such as 90s or 5min.")
@_option(
    STOP, "--tol", metavar="X", type=float, help="Stop when the loss improves by less than this ..."
)
@_option(
    STOP,
    "--patience",
    metavar="N",
    type=int,
    default=5,
    show_default=True,
    help="... in so many records in a row.",
)
@_option(
    STOP, "--gtol", metavar="X", type=float, help="Stop when the gradient's norm is below this."
)
@_option(
    OUTPUT,
    "--output",
    "-o",
    type=click.Path(path_type=Path),
    metavar="FILE.npz",
    help="Save the model.",
)
@_option(
    OUTPUT,
    "--plot",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Draw the loss curves: .png, .svg or .pdf.",
)
@_option(
    OUTPUT,
    "--checkpoint",
    type=click.Path(path_type=Path),
    metavar="FILE",
    help="Save the state as it goes; the same command later goes on from there.",
)
@_option(
    OUTPUT,
    "--checkpoint-every",
    default="5min",
    show_default=True,
    metavar="TIME|UPDATES",
    help="How often.",
)
@_option(
    OUTPUT,
    "--evaluate",
    type=click.Choice(["running", "full", "both"]),
    default="running",
    show_default=True,
    help="How the training loss is recorded: the epoch's mean, a pass over the data, both.",
)
@_option(
    OUTPUT,
    "--record-every",
    type=int,
    metavar="UPDATES",
    help="Record so often. [default: once an epoch]",
)
@_option(OUTPUT, "--quiet", "-q", is_flag=True, help="Print nothing but warnings and errors.")
def train(**options: Any) -> int:
    """Train a linear model on a data file.

    DATA is a CSV, Parquet, .npy, .npz or svmlight file; the ending says which. Text columns are
    one-hot encoded, a text target is a class. More than two classes are trained together with the
    loss multinomial; a loss for two classes gives one model for each, against the rest.
    """
    from schuss.cli.run import Options, run

    return run(Options(**options))
