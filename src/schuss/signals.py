"""Ctrl-C and SIGTERM during a run: served at once or between segments, never in the middle."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

__all__ = ["Asked", "served"]


class Asked:
    """What signals have asked for, and whether Ctrl-C may raise where the program stands."""

    def __init__(self) -> None:
        self.interrupt = False
        self.termination = False
        self.raising = False

    @contextlib.contextmanager
    def may_raise(self) -> Iterator[None]:
        """A stretch that KeyboardInterrupt may end: the state before it is kept.

        Python raises it in the main thread; others, in which classes train side by side, go on.
        """
        self.raising = threading.current_thread() is threading.main_thread()
        try:
            yield
        except KeyboardInterrupt:
            self.interrupt = True
            raise
        finally:
            self.raising = False

    def on_interrupt(self, number: int, frame: Any) -> None:
        """Ctrl-C: served now, or between segments; a second one ends whatever runs."""
        again, self.interrupt = self.interrupt, True
        if self.raising or again:
            raise KeyboardInterrupt

    def on_termination(self, number: int, frame: Any) -> None:
        """SIGTERM: served between segments."""
        self.termination = True


@contextlib.contextmanager
def served(asked: Asked, terminate: bool) -> Iterator[None]:
    """Turn Ctrl-C, and SIGTERM where wanted, into requests that the loop serves.

    Only in the main thread, and only in place of Python's own handlers.
    """
    replaced: dict[int, Any] = {}
    if threading.current_thread() is threading.main_thread():
        if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            replaced[signal.SIGINT] = signal.signal(signal.SIGINT, asked.on_interrupt)
        if terminate and signal.getsignal(signal.SIGTERM) is signal.SIG_DFL:
            replaced[signal.SIGTERM] = signal.signal(signal.SIGTERM, asked.on_termination)
    try:
        yield
    finally:
        for number, handler in replaced.items():
            signal.signal(number, handler)
