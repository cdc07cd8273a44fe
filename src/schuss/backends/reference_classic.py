"""The classic step in NumPy, one row and one output at a time."""

from __future__ import annotations

from typing import Any

import numpy as np

from schuss.backends.classic import ClassicState, ClassicStep
from schuss.backends.protocol import Problem, Segment

__all__ = ["descend"]

LARGEST_SLOPE = 1e12


def descend(
    problem: Problem, step: ClassicStep, state: ClassicState, segment: Segment, rows: np.ndarray
) -> np.ndarray:
    """Run the segment's steps over ``rows``; return each output's summed loss, unweighted."""
    losses = np.zeros(state.coef.shape[0])
    rates = np.broadcast_to(segment.learning_rate, rows.size)
    for i, rate in zip(rows, rates, strict=True):
        columns, x = entries_of(problem, i)
        norm = float(np.square(x, dtype=np.float64).sum())
        state.averaged += state.average is not None and not (step.passive == 1 and norm == 0)
        for k in state.active:
            losses[k] += walk(problem, step, state, int(k), int(i), columns, x, norm, rate)
    return losses


def entries_of(problem: Problem, i: int) -> tuple[Any, np.ndarray]:
    """The columns that a row touches, and its numbers there."""
    if not problem.is_sparse:
        return slice(0, problem.n_features), problem.X[i]
    entries = slice(problem.X.indptr[i], problem.X.indptr[i + 1])
    return problem.X.indices[entries], problem.X.data[entries]


def label_and_weight(
    problem: Problem, state: ClassicState, k: int, i: int
) -> tuple[np.ndarray, float]:
    """What row ``i`` is to output ``k``."""
    weight = 1.0 if problem.sample_weight is None else float(problem.sample_weight[i])
    if state.own is None:
        return problem.y[i], weight
    own = problem.y[i] == k
    return problem.dtype.type(1 if own else -1), weight * float(state.own[k] if own else 1)


def walk(
    problem: Problem,
    step: ClassicStep,
    state: ClassicState,
    k: int,
    i: int,
    columns: Any,
    x: np.ndarray,
    norm: float,
    rate: float,
) -> float:
    """One step of output ``k`` by one row; returns the row's loss."""
    dtype, w = problem.dtype.type, state.coef[k]
    b, rate = float(state.intercept[k]), rate * state.factor[k]
    y, weight = label_and_weight(problem, state, k, i)
    margin = dtype(x @ w[columns] + dtype(b))
    value = float(problem.loss(margin, y))
    slope = np.clip(float(problem.loss.derivative(margin, y)), -LARGEST_SLOPE, LARGEST_SLOPE)
    if step.passive == 1 and norm == 0:
        return value + step.drift * b
    change = -length_of(step, rate, value, norm) * slope * weight
    w *= dtype(max(1 - rate * problem.penalty.l2, 0.0))
    w[columns] += dtype(change) * x
    if problem.penalty.l1:
        state.owed[k] += rate * problem.penalty.l1
        w[columns] = pay(w[columns], dtype(state.owed[k]), state.paid[k], columns)
    if problem.fit_intercept:
        state.intercept[k] = b + (change - rate * step.drift) * step.intercept_decay
    if state.average is not None:
        iterate = np.append(w, state.intercept[k])
        state.average[k] += (iterate - state.average[k]) / state.averaged
    return value + step.drift * b


def length_of(step: ClassicStep, rate: float, loss: float, norm: float) -> float:
    """How long the step is: the rate, or what the row asks for."""
    if step.passive == 1:
        return min(step.aggressiveness, loss / norm)
    if step.passive == 2:
        return loss / (norm + 0.5 / step.aggressiveness)
    return rate


def pay(w: np.ndarray, owed: Any, paid: np.ndarray, columns: Any) -> np.ndarray:
    """The weights moved towards zero by what they still owe; it is written up in ``paid``."""
    now = np.where(
        w > 0,
        np.maximum(w - (owed + paid[columns]), 0),
        np.where(w < 0, np.minimum(w + (owed - paid[columns]), 0), w),
    )
    paid[columns] += now - w
    return now
