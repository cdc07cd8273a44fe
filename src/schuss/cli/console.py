"""What the commands say: results on standard output, everything else on standard error."""

from __future__ import annotations

import logging
import os
import re
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import click

__all__ = ["Notes", "as_options", "error"]


def _line(kind: str, colour: str, message: str) -> None:
    text = " ".join(message.split())
    kind = kind if os.environ.get("NO_COLOR") else click.style(kind, fg=colour, bold=True)
    click.echo(f"{kind}: {text}", err=True)


#: Arguments that messages also name without a value; no words of plain English.
_BARE = "learning_rate|batch_size|class_weight|clip_norm|l1_ratio|record_every|time_limit|drop_last"


def as_options(message: str) -> str:
    """A message of the library, whose arguments are options here.

    >>> as_options("batch_size=0: expected a number; use learning_rate='auto'.")
    "--batch-size=0: expected a number; use --learning-rate='auto'."
    >>> as_options("use a smaller learning_rate.")
    'use a smaller --learning-rate.'
    """

    def option(found: re.Match[str]) -> str:
        return "--" + found[0].replace("_", "-")

    message = re.sub(r"\b[a-z]\w*_\w+(?==)", option, message)
    message = re.sub(rf"(?<!['\w-])(?:{_BARE})\b", option, message)
    return re.sub(r"^[a-z]\w*(?==)", option, message)


def error(message: str) -> None:
    """One line about why the command ends here."""
    _line("error", "red", message)


class _Saying(logging.Handler):
    """Passes a logger's messages on: kernels compiled at first use take seconds."""

    def __init__(self, say: Callable[[str], None]) -> None:
        super().__init__()
        self.say = say

    def emit(self, record: logging.LogRecord) -> None:
        self.say(record.getMessage())


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
    def warnings(self, hints: Mapping[type[Warning], str] | None = None) -> Iterator[None]:
        """Show Python's warnings as lines of this command, each once.

        Parameters
        ----------
        hints : dict of warning class to str
            What to do, in place of the message's last sentences.
        """
        seen = set()

        def show(message: Any, *_: Any, **__: Any) -> None:
            if str(message) not in seen:
                seen.add(str(message))
                hint = (hints or {}).get(type(message))
                text = (
                    str(message) if hint is None else f"{str(message).partition('. ')[0]}. {hint}"
                )
                self.warn(as_options(text))

        compiled, handler = logging.getLogger("schuss.compile"), _Saying(self.say)
        level = compiled.level
        compiled.addHandler(handler)
        compiled.setLevel(logging.INFO)
        try:
            with self._shown(show):
                yield
        finally:
            compiled.removeHandler(handler)
            compiled.setLevel(level)

    @contextmanager
    def _shown(self, show: Any) -> Iterator[None]:
        """Python's warnings by way of ``show``."""
        from schuss.errors import InterruptedWarning

        with warnings.catch_warnings():
            warnings.simplefilter("always")
            for category in (DeprecationWarning, InterruptedWarning):
                warnings.simplefilter("ignore", category)
            warnings.showwarning = show
            yield
