"""Losses over whole data sets, for the history."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from schuss.backends import Backend, Problem
from schuss.backends.protocol import Rows, length
from schuss.checks import combine, encode
from schuss.data import arrays, sparse
from schuss.errors import DataError, InvalidArgument, unknown_name
from schuss.formulas.penalties import shrink_towards_zero
from schuss.formulas.rules import Rule

__all__ = ["evaluator", "validation_data", "validator"]


def evaluator(
    evaluate: str,
    gtol: float | None,
    engine: Backend,
    problem: Problem,
    rows: Rows,
    rule: Rule,
) -> Callable[[np.ndarray], tuple[float, float]] | None:
    """Full training loss and norm of the objective's gradient, where they are wanted.

    With an L1 penalty the norm is that of the smallest subgradient, which is 0 at the optimum.
    """
    if evaluate not in ("running", "full", "both"):
        raise unknown_name("evaluate", evaluate, ["running", "full", "both"])
    if evaluate == "running" and gtol is None:
        return None
    n = length(rows)
    l2 = problem.penalty.l2 + rule.coupled_decay

    def full(theta: np.ndarray) -> tuple[float, float]:
        loss, total = engine.gradient(problem, theta, rows)
        total /= n
        coef, slope = (v.reshape(problem.n_outputs, -1)[:, :-1] for v in (theta, total))
        slope += l2 * coef
        l1 = problem.penalty.l1
        slope[:] = np.where(coef != 0, slope + l1 * np.sign(coef), shrink_towards_zero(slope, l1))
        return loss / n, float(np.linalg.norm(total))

    return full


def validation_data(
    validation: Any,
    held_out: np.ndarray | None,
    problem: Problem,
    classes: np.ndarray | None,
    per_class: tuple[float, ...] | None,
) -> tuple[Problem, Rows] | None:
    """The validation data and their rows; class weights count there as in training."""
    if validation is None:
        return None
    if held_out is not None:
        return problem, held_out
    given = validation_problem(validation, problem, classes, per_class)
    return given, (0, given.X.shape[0])


def validator(
    engine: Backend, held_data: tuple[Problem, Rows] | None
) -> Callable[[np.ndarray], float] | None:
    """Mean loss over the validation data."""
    if held_data is None:
        return None
    data, rows = held_data
    n = length(rows)

    def validate(theta: np.ndarray) -> float:
        return engine.gradient(data, theta, rows)[0] / n

    return validate


def validation_problem(
    validation: Any,
    problem: Problem,
    classes: np.ndarray | None,
    per_class: tuple[float, ...] | None,
) -> Problem:
    """Validation data given as (X, y) or (X, y, sample_weight)."""
    if len(validation) not in (2, 3):
        raise InvalidArgument(
            f"validation: expected a fraction, (X, y) or (X, y, sample_weight); got "
            f"{len(validation)} parts."
        )
    X = sparse.as_rows(validation[0], problem.dtype, "validation X")
    n, d = X.shape
    if d != problem.n_features:
        raise DataError(f"validation X: has {d} columns, X has {problem.n_features}.")
    loss = problem.loss
    y, _ = encode(validation[1], n, problem.dtype, loss, classes, "validation y")
    if y.shape[1:] != problem.y.shape[1:]:
        raise DataError(
            f"validation y: has shape {y.shape}, y has {problem.y.shape}; expected as many outputs."
        )
    weights = None
    if len(validation) == 3:
        weights = arrays.as_weights(
            validation[2], n, problem.dtype, name="validation sample_weight"
        )
    weights = combine(weights, arrays.by_class(per_class, y))
    return dataclasses.replace(problem, X=X, y=y, sample_weight=weights)
