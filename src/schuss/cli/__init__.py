"""The command ``schuss``.

This package translates: options into arguments of :func:`schuss.fit`, errors into one line and an
exit code. Commands import what they need when they run, so that ``schuss --help`` is instant.

Exit codes: 0 done, 1 a bug in schuss, 2 wrong input, 3 slower than before (``bench --compare``),
130 interrupted.
"""

from __future__ import annotations

import difflib
import os
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import click

from schuss._version import __version__
from schuss.cli import console
from schuss.cli.bench import bench
from schuss.cli.info import info
from schuss.cli.predict import predict
from schuss.cli.train import train

__all__ = ["cli", "main"]

INTERRUPTED = 130


class _Group(click.Group):
    """A group of commands whose errors are one line on standard error."""

    def main(
        self,
        args: Sequence[str] | None = None,
        prog_name: str | None = None,
        complete_var: str | None = None,
        standalone_mode: bool = True,
        **extra: Any,
    ) -> Any:
        """Run a command and exit with its code."""
        if not standalone_mode:
            return super().main(args, prog_name, complete_var, False, **extra)
        try:
            code = super().main(args, prog_name or "schuss", complete_var, False, **extra)
            sys.stdout.flush()
        except BaseException as error:
            code = _report(error)
        sys.exit(code if isinstance(code, int) else 0)


def _report(error: BaseException) -> int:
    """Say in one line what went wrong; return the exit code."""
    from schuss.errors import SchussError

    if os.environ.get("SCHUSS_DEBUG") and not isinstance(error, SystemExit):
        traceback.print_exception(error)
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else 1
    if isinstance(error, click.exceptions.Exit):
        return error.exit_code
    if isinstance(error, (click.Abort, KeyboardInterrupt)):
        console.error("interrupted")
        return INTERRUPTED
    if isinstance(error, BrokenPipeError):
        # The reader of standard output has gone; Python would complain while flushing it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    if isinstance(error, click.NoSuchOption) and error.possibilities:
        near = difflib.get_close_matches(error.option_name, error.possibilities, n=1)
        error = click.NoSuchOption(error.option_name, possibilities=near, ctx=error.ctx)
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "schuss"
        message = error.format_message().rstrip(".")
        stop = "" if message.endswith("?") else "."
        console.error(f"{message}{stop} Try '{command} --help'.")
        return 2
    if isinstance(error, click.ClickException):
        console.error(error.format_message())
        return 2
    if isinstance(error, SchussError):
        console.error(console.as_options(str(error)))
        return 2
    if isinstance(error, OSError):
        what = f"{error.filename}: " if error.filename else ""
        console.error(f"{what}{error.strerror or error}")
        return 2
    if isinstance(error, MemoryError):
        console.error("out of memory")
        return 2
    console.error(
        f"unexpected {type(error).__name__}: {error}. This is a bug in schuss; please report it "
        "with the output of 'schuss info'. SCHUSS_DEBUG=1 shows the traceback."
    )
    return 1


EXAMPLES = """\b
Examples:
  schuss train --example breast-cancer
  schuss train houses.csv --target price --standardize --output model.npz
  schuss predict model.npz new.csv --output predictions.csv
"""


@click.group(
    cls=_Group,
    epilog=EXAMPLES,
    invoke_without_command=True,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
)
@click.version_option(__version__, "-V", "--version", message="schuss %(version)s")
@click.pass_context
def cli(context: click.Context) -> None:
    """Train linear models by stochastic gradient descent, at the speed of the hardware."""
    if context.invoked_subcommand is None:
        click.echo(context.get_help())


for command in (train, predict, bench, info):
    cli.add_command(command)


def main() -> None:
    """Entry point of the command ``schuss``."""
    cli()
