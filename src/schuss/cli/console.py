"""What the commands say: results on standard output, everything else on standard error."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

__all__ = ["Notes", "error"]


def _line(kind: str, colour: str, message: str) -> None:
    text = " ".join(message.split())
    click.echo(f"{click.style(kind, fg=colour, bold=True)}: {text}", err=True)


def error(message: str) -> None:
    """One line about why the command ends here."""
    _line("error", "red", message)


class Notes:
    """Lines about what a command does on its own account, unless it is to be quiet."""

    def __init__(self, quiet: bool = False) -> None:
        self.quiet = quiet

    def say(self, message: str) -> None:
        """One line the user should know."""
        if not self.quiet:
            _line("note", "cyan", message)

    def warn(self, message: str) -> None:
        """One line about something that is probably not meant; shown even when quiet."""
        _line("warning", "yellow", message)

    @contextmanager
    def warnings(self) -> Iterator[None]:
        """Show Python's warnings as lines of this command, each once."""
        seen = set()

        def show(message: Warning | str, *_: Any, **__: Any) -> None:
            if str(message) not in seen:
                seen.add(str(message))
                self.warn(str(message))

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.showwarning = show
            yield
