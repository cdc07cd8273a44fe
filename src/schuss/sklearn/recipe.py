"""From an estimator's parameters to formulas and a backend, made once for the same parameters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from schuss.backends import Backend, choose
from schuss.backends.classic import ClassicStep
from schuss.backends.compiled import THREADED_PLACES
from schuss.backends.threads import usable_threads
from schuss.formulas.losses import Loss
from schuss.formulas.penalties import Penalty
from schuss.sklearn.training import formula_of, schedule_of, strength_of

__all__ = ["Recipe", "recipe_of"]

# What scikit-learn takes.
SPARSE_INTERCEPT_DECAY = 0.01


@dataclass(frozen=True)
class Recipe:
    """What an estimator's parameters ask for.

    Attributes
    ----------
    engine : Backend
    loss : Loss
    penalty : Penalty
    schedule : callable
        Rates by update.
    step : ClassicStep
    falling : bool
        Whether rates never rise.
    """

    engine: Backend
    loss: Loss
    penalty: Penalty
    schedule: Callable[[Any], Any]
    step: ClassicStep
    falling: bool


def recipe_of(model: Any, n_rows: int, sparse: bool, alpha: float, drift: float) -> Recipe:
    """The recipe of an estimator for so many rows."""
    threads = model.threads
    if threads is None:  # nothing is shared of few rows; to look up the limits takes milliseconds
        threads = 1 if n_rows < THREADED_PLACES else usable_threads(None)
    decay = model.intercept_decay
    if decay == "auto":
        decay = SPARSE_INTERCEPT_DECAY if sparse else 1.0
    return _made(
        model.backend,
        threads,
        model.loss,
        model.epsilon,
        model.penalty,
        alpha,
        model.l1_ratio,
        model.learning_rate,
        model.eta0,
        model.power_t,
        decay,
        drift,
    )


@lru_cache(maxsize=128)
def _made(
    backend: str,
    threads: int,
    loss: str,
    epsilon: float,
    penalty: str | None,
    alpha: float,
    l1_ratio: float | None,
    learning_rate: str,
    eta0: float,
    power_t: float,
    decay: float,
    drift: float,
) -> Recipe:
    formula = formula_of(loss, epsilon)
    passive = {"pa1": 1, "pa2": 2}.get(learning_rate, 0)
    return Recipe(
        choose(backend, formula, threads),
        formula,
        strength_of(penalty, alpha, l1_ratio),
        schedule_of(learning_rate, eta0, power_t, alpha),
        ClassicStep(decay, drift, passive, eta0),
        learning_rate != "invscaling" or power_t >= 0,
    )
