"""Timing: everybody warms up, then all take turns, round after round, with the ceiling among them.

Turns make what disturbs the machine for a second disturb all alike; medians forget it.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

__all__ = ["Competitor", "Pass", "Standing", "contest"]

# Threads of other libraries go on spinning for a while after their work is done.
REST = 0.02


@dataclass(frozen=True)
class Pass:
    """What was done in one turn."""

    rows: int
    updates: int
    seconds: float

    @property
    def speed(self) -> float:
        """Rows per second."""
        return self.rows / self.seconds


class Competitor(Protocol):
    """Whoever can be timed."""

    name: str
    cores: int

    def warm_up(self) -> None:
        """Compile, allocate, and find out how much to do in a turn."""

    def run(self, seconds: float) -> Pass:
        """One turn of about that long."""


@dataclass(frozen=True)
class Standing:
    """The turns of one competitor, and the ceiling's speed beside each (empty without one)."""

    competitor: Any
    passes: tuple[Pass, ...]
    ceilings: tuple[float, ...]

    @property
    def speed(self) -> float:
        """Median rows per second."""
        return statistics.median(turn.speed for turn in self.passes)

    @property
    def spread(self) -> tuple[float, float]:
        """Slowest and fastest turn."""
        speeds = [turn.speed for turn in self.passes]
        return min(speeds), max(speeds)

    @property
    def seconds_per_update(self) -> float:
        """Median."""
        return statistics.median(turn.seconds / turn.updates for turn in self.passes)

    @property
    def ceiling(self) -> float | None:
        """Median speed of the ceiling."""
        return statistics.median(self.ceilings) if self.ceilings else None

    @property
    def fraction(self) -> float | None:
        """Median ratio of neighbours in time."""
        if not self.ceilings:
            return None
        pairs = zip(self.passes, self.ceilings, strict=True)
        return statistics.median(turn.speed / ceiling for turn, ceiling in pairs)


def contest(
    competitors: Sequence[Competitor],
    repeats: int,
    seconds: float,
    ceiling: Callable[[int], float] | None = None,
) -> list[Standing]:
    """Let all take turns.

    Parameters
    ----------
    competitors : sequence of Competitor
    repeats : int
        Rounds, after one that warms up.
    seconds : float
        About how long a turn lasts.
    ceiling : callable, optional
        Measures the ceiling for a number of cores now, in rows per second.
    """
    for competitor in competitors:
        competitor.warm_up()
    passes: list[list[Pass]] = [[] for _ in competitors]
    bounds: list[list[float]] = [[] for _ in competitors]
    for _ in range(repeats):
        time.sleep(REST)
        now = {c.cores: ceiling(c.cores) for c in competitors} if ceiling else {}
        for k, competitor in enumerate(competitors):
            passes[k].append(competitor.run(seconds))
            if ceiling:
                bounds[k].append(now[competitor.cores])
    return [
        Standing(competitor, tuple(mine), tuple(bound))
        for competitor, mine, bound in zip(competitors, passes, bounds, strict=True)
    ]
