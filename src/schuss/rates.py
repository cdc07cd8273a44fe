"""``learning_rate="auto"``, and what to say when a learning rate was too large."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from schuss import curvature
from schuss.backends import Problem
from schuss.errors import DataError, InvalidArgument, ScalingWarning
from schuss.formulas import schedules
from schuss.formulas.rules import Rule
from schuss.formulas.schedules import Schedule

__all__ = ["check_schedule", "choose_schedule", "explain_divergence", "rates_of"]

log = logging.getLogger("schuss")

# Columns whose standard deviations differ by more than this ask for different learning rates.
WIDE_SPREAD = 100.0
# How many steps of a user's schedule are looked at before training, and how many at a time.
CHECKED_STEPS = 10_000_000
CHUNK = 1 << 18


def choose_schedule(
    learning_rate: Any,
    measure_limit: Callable[[], float],
    problem: Problem,
    rows: np.ndarray | None,
    n: int,
    batch_size: int,
    rule: Rule,
    total: int,
) -> Schedule:
    """The schedule asked for, or measured for "auto"."""
    if not (isinstance(learning_rate, str) and learning_rate == "auto"):
        return schedules.get(learning_rate)
    warn_if_unscaled(problem, rows, n)
    if rule.default_learning_rate is not None:
        peak, why = rule.default_learning_rate, f"usual for {rule.name}"
    else:
        limit = measure_limit()
        if not limit > 0:
            raise DataError(
                "learning_rate='auto': X is so large that the curvature of the loss overflows; "
                "scale X, or give a number."
            )
        peak = limit / 2 if np.isfinite(limit) else 1.0
        why = f"half the stability limit {limit:.4g} for batch size {batch_size}"
        momentum = getattr(rule, "momentum", 0.0)
        if momentum:
            peak *= 1 - momentum
            why += f", times 1 - momentum {momentum:g}"
    schedule: Schedule = schedules.constant(peak)
    if batch_size < n and total > 1:
        schedule = schedules.cosine(peak, steps=total)
    log.info("learning_rate: %s (%s)", schedule, why)
    return schedule


def rates_of(schedule: Schedule, first: int, count: int) -> np.ndarray:
    """Learning rates of the steps first <= t < first + count, checked."""
    try:
        rates = np.ascontiguousarray(schedule(np.arange(first, first + count)))
    except (TypeError, ValueError, LookupError) as error:
        raise InvalidArgument(
            f"learning_rate={schedule!s} failed for steps {first} ... {first + count - 1} "
            f"({error}): expected a function from an array of step numbers to as many rates."
        ) from error
    bad = np.flatnonzero(~(np.isfinite(rates) & (rates >= 0)))
    if bad.size:
        raise InvalidArgument(
            f"learning_rate={schedule!s} returned {rates[bad[0]]} at step {first + bad[0]}: "
            "expected a finite number >= 0 for each step."
        )
    return rates


def check_schedule(schedule: Schedule, total: int) -> None:
    """Look at the rates of a user's own function before the first step is made."""
    if schedule.trusted:
        return
    last = min(total, CHECKED_STEPS)
    largest = 0.0
    for first in range(0, last, CHUNK):
        rates = rates_of(schedule, first, min(CHUNK, last - first))
        largest = max(largest, float(rates.max()))
    if largest == 0:
        raise InvalidArgument(
            f"learning_rate={schedule!s} is 0 at every step; nothing would train."
        )


def warn_if_unscaled(problem: Problem, rows: np.ndarray | None, n: int) -> None:
    """One learning rate cannot suit columns of very different scale."""
    spread = curvature.measure_spread(problem, rows, n)
    if spread > WIDE_SPREAD:
        warnings.warn(
            f"columns of X differ in scale by a factor of {spread:.3g}; training will be slow. "
            + scaling(problem),
            ScalingWarning,
            stacklevel=4,
        )


def explain_divergence(
    limit: float,
    asked: str,
    problem: Problem,
    rows: np.ndarray | None,
    n: int,
    batch_size: int,
) -> str:
    """The measured stability limit, and what to do; ``asked`` is the learning rate asked for."""
    hint = (
        f"The measured stability limit for batch size {batch_size} is about {limit:.3g}; use a "
        "smaller learning_rate"
    )
    hint += "." if asked == "auto" else ", or learning_rate='auto'."
    if not problem.loss.builtin:
        hint += " Check that the loss's slope is its derivative, and that neither overflows."
    spread = curvature.measure_spread(problem, rows, n)
    if spread > WIDE_SPREAD:
        hint += f" Columns of X differ in scale by a factor of {spread:.3g}. {scaling(problem)}"
    return hint


def scaling(problem: Problem) -> str:
    """How to bring columns to one scale."""
    if problem.is_sparse:
        return "Divide each column by its largest magnitude."
    return "Standardize them (subtract the mean, divide by the standard deviation)."
