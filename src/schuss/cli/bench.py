"""``schuss bench``: its options, the live table, and what is written."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from rich.console import Console

    from schuss.lab.optim import OptimRecord
    from schuss.lab.record import Record

__all__ = ["bench"]

REGRESSED = 3  # exit code: neither a bug nor wrong input
QUICK = {"elements": 2_000_000, "repeats": 3, "seconds": 0.03}
FULL = {"elements": 100_000_000, "repeats": 5, "seconds": 0.2}
PAGES = ("README.md", "docs/lab.rst")
OPTIM_PAGES = ("README.md", "docs/torch.rst")


class _List(click.ParamType):
    """Values separated by commas (those within brackets apart)."""

    name = "LIST"

    def __init__(self, item: type = str) -> None:
        self.item = item

    def convert(self, value: Any, param: Any, ctx: Any) -> list[Any]:
        if isinstance(value, list):
            return value
        import re

        parts = [part.strip() for part in re.split(r",(?![^(]*\))", value) if part.strip()]
        try:
            return [self.item(part) for part in parts]
        except ValueError:
            self.fail(f"{value!r}: expected whole numbers separated by commas.", param, ctx)


class _Bench(click.Group):
    """A group whose first command is meant where none is named."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        if not args or (args[0] not in self.commands and args[0] not in ("-h", "--help")):
            args = ["throughput", *args]
        return super().parse_args(ctx, args)


@click.group(cls=_Bench)
def bench() -> None:
    """Measure speed, beside the machine's own ceilings and other libraries.

    `schuss bench OPTIONS` means `schuss bench throughput OPTIONS`; its options are listed by
    `schuss bench throughput --help`.
    """


EXAMPLES = """\b
Examples:
  schuss bench --quick --d 20 --batch-sizes 1,32,1024
  schuss bench --json new.json --html new.html --compare old.json
  schuss bench --load new.json --png new.png
  schuss bench --peers --json results.json
"""


@bench.command(epilog=EXAMPLES)
@click.option("--batch-sizes", type=_List(int), help="[default: 1, 4, 16, ... and all rows]")
@click.option("--d", type=_List(int), help="Columns of synthetic data. [default: 20,100,1000]")
@click.option("--dtype", type=_List(), default="float32", show_default=True)
@click.option("--loss", type=_List(), default="squared_error", show_default=True)
@click.option("--order", type=_List(), default="shuffle", show_default=True)
@click.option("--backends", type=_List(), help="[default: every compiled one there is]")
@click.option("--threads", type=click.IntRange(1), help="Most threads to use.")
@click.option(
    "--data",
    type=click.Path(path_type=Path),
    help="Measure on a file (.npz with X and y; or .npy or a table, whose last column is y), not "
    "on synthetic data.",
)
@click.option(
    "--peers",
    is_flag=True,
    help="Run the other libraries that are installed beside ours, and print the table of the "
    "speed to reach. With --batch-sizes, --order, --loss, --dtype or --data: beside those cells, "
    "without that table.",
)
@click.option("--quick", is_flag=True, help="Little data and short turns: for a look, no proof.")
@click.option("--elements", type=click.IntRange(1), help="n * d of synthetic data. [default: 10^8]")
@click.option("--repeats", type=click.IntRange(1), help="Turns of each. [default: 5]")
@click.option("--seconds", type=float, help="About how long a turn lasts. [default: 0.2]")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the record.")
@click.option("--png", type=click.Path(path_type=Path), help="Draw the curves (png, svg, pdf).")
@click.option("--html", type=click.Path(path_type=Path), help="Write an interactive page.")
@click.option(
    "--load", type=click.Path(path_type=Path), help="Show a record written before; measure nothing."
)
@click.option(
    "--compare",
    "old",
    type=click.Path(path_type=Path),
    help=f"Compare with an older record by fraction of the ceiling; exit code {REGRESSED} on a "
    "regression.",
)
@click.option(
    "--threshold",
    type=click.FloatRange(0, 1, min_open=True, max_open=True),
    default=0.15,
    show_default=True,
    help="Relative loss that counts as a regression.",
)
@click.option(
    "--report",
    is_flag=True,
    help="With --load: write its table into the numbers of README.md and docs/lab.rst here.",
)
@click.pass_context
def throughput(context: click.Context, **options: Any) -> int:
    """Samples per second against batch size."""
    from schuss.cli.outputs import check_writable
    from schuss.data.tables import require
    from schuss.lab import compare, load
    from schuss.lab.comparison import comparison_table

    given = {
        name
        for name in options
        if context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
    }
    _check(options)
    check_writable(options["json_path"], "--json", (".json",))
    check_writable(options["png"], "--png", (".png", ".svg", ".pdf"))
    check_writable(options["html"], "--html", (".html",))
    for option, package in (("png", "matplotlib"), ("html", "plotly")):
        if options[option]:
            require(package, "lab", f"--{option}")
    old = load(options["old"]) if options["old"] else None
    record = load(options["load"]) if options["load"] else _measure(options, given)
    if options["json_path"]:
        record.write(options["json_path"])
    _print(record.table())
    if options["png"]:
        record.plot(options["png"])
    if options["html"]:
        record.to_html(options["html"])
    if options["report"]:
        _report(record, PAGES)
    if old is None:
        return 0
    changes = compare(old, record, options["threshold"])
    if not changes:
        raise click.UsageError(
            f"--compare={str(options['old'])!r}: the two records share no cell of a backend with a "
            "fraction of a ceiling"
        )
    _print(comparison_table(changes))
    return REGRESSED if any(change.regressed for change in changes) else 0


@bench.command()
@click.option("--numbers", type=click.IntRange(1), help="Of all tensors together. [default: 10^7]")
@click.option("--tensors", type=_List(int), help="How many. [default: 1,1000,100000]")
@click.option("--threads", type=_List(int), help="[default: 1, and all there are]")
@click.option("--quick", is_flag=True, help="Few numbers and short turns: for a look, no proof.")
@click.option("--repeats", type=click.IntRange(1), help="Turns of each. [default: 5]")
@click.option("--json", "json_path", type=click.Path(path_type=Path), help="Write the record.")
@click.option(
    "--load", type=click.Path(path_type=Path), help="Show a record written before; measure nothing."
)
@click.option(
    "--report",
    is_flag=True,
    help="With --load: write its table into README.md and docs/torch.rst here.",
)
def optim(**options: Any) -> None:
    """Time a step of the optimizers of schuss.torch beside torch's own."""
    from schuss.cli.outputs import check_writable
    from schuss.lab import optim as lab
    from schuss.lab.table import outcomes_table

    if options["report"] and not options["load"]:
        raise click.UsageError("--report needs --load RECORD")
    check_writable(options["json_path"], "--json", (".json",))
    record = lab.load(options["load"]) if options["load"] else _measure_optimizers(options)
    if options["json_path"]:
        record.write(options["json_path"])
    _print(record.table())
    if record.settings["numbers"] >= lab.NUMBERS:
        _print(outcomes_table(record.outcomes()))
    if options["report"]:
        _report(record, OPTIM_PAGES)


def _measure_optimizers(options: dict[str, Any]) -> OptimRecord:
    """Run the lab, telling of each cell on standard error."""
    from schuss.lab import optim as lab

    quick: dict[str, Any] = {
        "numbers": 100_000,
        "tensors": (1, 1_000),
        "repeats": 3,
        "seconds": 0.02,
    }
    names = ("numbers", "tensors", "threads", "repeats")
    given = {name: options[name] for name in names if options[name]}
    return lab.optimizers(
        **(quick if options["quick"] else {}) | given,
        watch=lambda cell: click.echo(
            f"{cell.optimizer}, {cell.tensors} tensors, {cell.threads} threads", err=True
        ),
    )


def _check(options: dict[str, Any]) -> None:
    if options["report"] and not options["load"]:
        raise click.UsageError("--report needs --load RECORD")
    if options["data"] and options["d"]:
        raise click.UsageError("--d is for synthetic data; --data has its own columns")


def _console() -> Console:
    from rich.console import Console

    from schuss.lab.record import TABLE_WIDTH

    console = Console()
    return console if console.is_terminal else Console(width=TABLE_WIDTH)


def _print(what: Any) -> None:
    _console().print(what)


def _measure(options: dict[str, Any], given: set[str]) -> Record:
    """Run the lab, showing what there is so far on a terminal."""
    from schuss.lab import bars
    from schuss.lab import throughput as measure

    size = QUICK if options["quick"] else FULL
    common: dict[str, Any] = {
        name: options[name] if options[name] is not None else default
        for name, default in size.items()
    }
    common |= {"threads": options["threads"], "seed": options["seed"]}
    with _Live() as live:
        if options["peers"] and not given & {"batch_sizes", "order", "loss", "dtype", "data"}:
            return bars.measure(d=options["d"] or bars.COLUMNS, watch=live.show, **common)
        X, y = _read(options["data"]) if options["data"] else (None, None)
        return measure(
            X,
            y,
            batch_sizes=options["batch_sizes"],
            backends=options["backends"],
            d=options["d"] or (20, 100, 1000),
            dtype=options["dtype"],
            loss=options["loss"],
            order=options["order"],
            peers=options["peers"],
            watch=live.show,
            **common,
        )


class _Live:
    """The newest cells while they come, on standard error; nothing where nobody watches."""

    ROWS = 12

    def __enter__(self) -> _Live:
        from rich.console import Console
        from rich.live import Live

        console = Console(stderr=True)
        self.live = Live(console=console, transient=True, auto_refresh=False)
        self.shown = console.is_terminal
        if self.shown:
            self.live.start()
        return self

    def __exit__(self, *_: Any) -> None:
        if self.shown:
            self.live.stop()

    def show(self, record: Record, following: str) -> None:
        """Draw the record so far."""
        if not self.shown:
            return
        from rich.console import Group

        from schuss.lab.table import cells_table

        newest = list(record.cells[-self.ROWS :])
        parts: list[Any] = []
        for setting in dict.fromkeys(cell.setting for cell in newest):
            parts.append(cells_table([c for c in newest if c.setting == setting], setting))
        self.live.update(Group(*parts, f"measuring: {following}"), refresh=True)


def _read(path: Path) -> tuple[Any, Any]:
    """X and y of a file of numbers."""
    import numpy as np

    from schuss.errors import DataError

    if path.suffix == ".npz":
        with np.load(path, allow_pickle=False) as file:
            if not {"X", "y"} <= set(file.files):
                raise DataError(f"{path}: expected arrays X and y, found {', '.join(file.files)}.")
            return file["X"], file["y"]
    if path.suffix == ".npy":
        table = np.load(path, allow_pickle=False)
        if table.ndim != 2 or table.shape[1] < 2:
            raise DataError(f"{path}: expected a matrix of two columns at least.")
        return np.ascontiguousarray(table[:, :-1]), np.ascontiguousarray(table[:, -1])
    return _read_table(path)


def _read_table(path: Path) -> tuple[Any, Any]:
    """A table whose last column is the target, all of numbers."""
    import numpy as np

    from schuss.data import tables
    from schuss.errors import DataError

    table = tables.read(path)
    columns = [c.values for c in table.columns.values() if isinstance(c, tables.Numbers)]
    if len(columns) < len(table.columns) or len(columns) < 2:
        raise DataError(f"{path}: expected columns of numbers alone, the last one the target.")
    matrix = np.column_stack(columns).astype(np.float64)
    return np.ascontiguousarray(matrix[:, :-1]), np.ascontiguousarray(matrix[:, -1])


def _report(record: Record | OptimRecord, names: Sequence[str]) -> None:
    from schuss.lab import pages

    pages_here = [page for page in names if os.path.exists(page)]
    if not pages_here:
        raise click.UsageError(f"--report: there is no {' or '.join(names)} here")
    for page in pages_here:
        pages.rewrite(page, record)
        click.echo(f"wrote the numbers of {page}", err=True)
