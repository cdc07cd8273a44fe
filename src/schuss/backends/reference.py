"""The reference backend: NumPy, written to be read. Slow on purpose; the others are held to it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from schuss.backends import reference_classic
from schuss.backends.classic import ClassicState, ClassicStep
from schuss.backends.protocol import Problem, Rows, Segment, State
from schuss.formulas import bijection
from schuss.formulas.losses import Loss
from schuss.formulas.penalties import shrink_towards_zero
from schuss.formulas.rules import FORMULAS, Rule

__all__ = ["ReferenceBackend"]


class ReferenceBackend:
    """Every verb in plain NumPy, in the data's dtype."""

    name = "reference"

    def supports(self, loss: Loss) -> str | None:
        return None

    def segment_rows(self, n_features: int, batch_size: int) -> int:
        return max(2000 * min(batch_size, 50), batch_size)

    def descend(self, problem: Problem, state: State, segment: Segment) -> tuple[float, float]:
        rows = indices(segment.rows)
        total = norm = 0.0
        for k in range(segment.n_steps):
            batch = rows[k * segment.batch_size : (k + 1) * segment.batch_size]
            loss, gradient = self.gradient(problem, state.theta, batch)
            lr = segment.learning_rate[k if segment.learning_rate.size > 1 else 0]
            with quiet():
                norm = update(problem, state, gradient / batch.size, lr)
            total += loss
        return total, norm

    def descend_classic(
        self, problem: Problem, step: ClassicStep, state: ClassicState, segment: Segment
    ) -> np.ndarray:
        with quiet():
            rows = indices(segment.rows)
            return reference_classic.descend(problem, step, state, segment, rows)

    def gradient(self, problem: Problem, theta: np.ndarray, rows: Rows) -> tuple[float, np.ndarray]:
        with quiet():
            value, slope, Xb = samples(problem, theta, rows)
            if problem.is_sparse:
                total = np.append(Xb.times_transposed(slope), slope.sum() * problem.fit_intercept)
            elif problem.n_outputs == 1:
                total = np.append(Xb.T @ slope, slope.sum() * problem.fit_intercept)
            else:
                bias = slope.sum(axis=0) * problem.fit_intercept
                total = np.column_stack([slope.T @ Xb, bias]).reshape(-1)
            return float(value.sum(dtype=np.float64)), total.astype(np.float64)

    def apply(
        self,
        rule: Rule,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        slots: Sequence[Sequence[np.ndarray]],
        step: int,
        lr: float,
    ) -> None:
        constants = rule.constants(np.array([step]), np.array([lr], dtype=np.float64))[0]
        for w, g, memory in zip(params, grads, slots, strict=True):
            c = constants.astype(w.dtype)
            apply_formula(rule, w, g + w.dtype.type(rule.coupled_decay) * w, memory, c)

    def reduce(self, dst: np.ndarray, sources: Sequence[np.ndarray], scale: float) -> None:
        for source in sources:
            dst += source
        dst *= dst.dtype.type(scale)

    def margin(self, X: Any, theta: np.ndarray, rows: Rows) -> np.ndarray:
        with quiet():
            return margins(rows_of(X, indices(rows), theta.dtype), theta)

    def variance(
        self, problem: Problem, theta: np.ndarray, rows: Rows
    ) -> tuple[float, np.ndarray, float]:
        loss, gradient = self.gradient(problem, theta, rows)
        with quiet():
            _, slope, Xb = samples(problem, theta, rows)
            if problem.is_sparse:
                squares = Xb.squared_norms() + problem.fit_intercept
            else:
                squares = (Xb.astype(np.float64) ** 2).sum(axis=1) + problem.fit_intercept
            return loss, gradient, float((slope.astype(np.float64).T ** 2 * squares).sum())

    def permute(self, n: int, keys: np.ndarray, start: int, stop: int) -> np.ndarray:
        return bijection.permute(n, keys, start, stop)

    def mix(
        self,
        block: np.ndarray,
        row: np.ndarray,
        starts: np.ndarray,
        turned: np.ndarray,
        start: int,
        stop: int,
    ) -> np.ndarray:
        return bijection.mix(block, row, starts, turned, start, stop)


def quiet() -> np.errstate:
    """Divergence is told by the values, as on the other backends, not by warnings."""
    return np.errstate(over="ignore", invalid="ignore", divide="ignore")


def indices(rows: Rows) -> np.ndarray:
    """Rows as an array of indices."""
    return np.arange(rows[0], rows[0] + rows[1]) if isinstance(rows, tuple) else rows


def rows_of(X: Any, chosen: np.ndarray, dtype: np.dtype[Any]) -> Any:
    """The rows in ``dtype``; sparse rows stay sparse."""
    if not isinstance(X, np.ndarray):
        return X.take(chosen)
    return X[chosen].astype(dtype, copy=False)


def margins(Xb: Any, theta: np.ndarray) -> np.ndarray:
    """Decision values: shape (n_rows,), or (n_rows, n_outputs) where theta holds several rows."""
    d = Xb.shape[1]
    if not isinstance(Xb, np.ndarray):
        return (Xb.times(theta[:-1]) + theta[-1]).astype(theta.dtype)
    if theta.size == d + 1:
        return Xb @ theta[:-1] + theta[-1]
    rows = theta.reshape(-1, d + 1)
    return Xb @ rows[:, :-1].T + rows[:, -1]


def samples(problem: Problem, theta: np.ndarray, rows: Rows) -> tuple[np.ndarray, np.ndarray, Any]:
    """Weighted loss of each row, weighted slope of each margin, and the rows of X."""
    chosen = indices(rows)
    Xb, y = rows_of(problem.X, chosen, problem.dtype), problem.y[chosen]
    margin = margins(Xb, theta)
    weight = 1 if problem.sample_weight is None else problem.sample_weight[chosen]
    value, slope = problem.loss(margin, y), problem.loss.derivative(margin, y)
    if value.ndim == 2:
        value = value.sum(axis=1)
    value = weight * value
    slope = (weight * slope.T).T  # one weight for all of a row's outputs
    dtype = problem.dtype
    return value.astype(dtype), slope.astype(dtype), Xb


def update(problem: Problem, state: State, gradient: np.ndarray, lr: float) -> float:
    """One update from a mean gradient; returns its norm before clipping."""
    rule, dtype = state.rule, problem.dtype
    # One row for each output: coefficients, then the intercept.
    w, gradient = (v.reshape(problem.n_outputs, -1) for v in (state.theta, gradient.astype(dtype)))
    slots = [s.reshape(w.shape) for s in state.slots]
    coef, intercept = np.s_[:, :-1], np.s_[:, -1:]
    l2 = problem.penalty.l2 + rule.coupled_decay
    gradient[coef] += dtype.type(l2) * w[coef]
    norm = float(np.linalg.norm(gradient.astype(np.float64)))
    if state.clip_norm and norm > state.clip_norm:
        gradient *= dtype.type(state.clip_norm / norm)
    constants = rule.constants(np.array([state.step]), np.array([lr]))[0].astype(dtype)
    undecayed = constants.copy()
    undecayed[1:2] = 1
    apply_formula(rule, w[coef], gradient[coef], [s[coef] for s in slots], constants)
    if problem.penalty.l1:
        w[coef] = shrink_towards_zero(w[coef], dtype.type(lr * problem.penalty.l1))
    if problem.fit_intercept:
        memory = [s[intercept] for s in slots]
        apply_formula(rule, w[intercept], gradient[intercept], memory, undecayed)
    state.step += 1
    if state.average is not None:
        state.averaged += 1
        state.average += (state.theta - state.average) / state.averaged
    return norm


def apply_formula(
    rule: Rule, w: np.ndarray, g: np.ndarray, slots: Sequence[np.ndarray], c: np.ndarray
) -> None:
    """Run the rule's formula over whole arrays, in place."""
    memory = [*slots, *[np.zeros((), w.dtype)] * (2 - len(slots))]
    changed = FORMULAS[rule.formula](w, g, *memory, c)
    for target, value in zip([w, *slots], changed, strict=False):
        target[...] = value
