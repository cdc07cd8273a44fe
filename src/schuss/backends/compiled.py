"""What the compiled backends share: packing a problem and a state for their kernels.

A kernel set (``jit`` or ``native``) offers the same functions with plain arguments; this class
turns the verbs of the protocol into calls of them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from schuss.backends.arguments import Classic, Walk
from schuss.backends.classic import ClassicState, ClassicStep
from schuss.backends.protocol import (
    TILE_ROWS,
    Problem,
    Rows,
    Segment,
    State,
    changes_all_weights,
    length,
    take,
)
from schuss.formulas import bijection
from schuss.formulas.losses import Loss
from schuss.formulas.rules import Rule

__all__ = ["CompiledBackend", "KernelSet", "Memory", "Objective", "Steps"]

# A segment reads about this many elements of X: some ten milliseconds.
SEGMENT_ELEMENTS = 30_000_000
# A step brings up to 7 constants of its own: bounds the memory they take.
SEGMENT_STEPS = 1 << 18
# A single step over more elements than this is cut into slabs, so that signals are served.
LARGE_STEP_ELEMENTS = 200_000_000
# Below this many elements per step and thread, barriers cost more than another thread saves.
ELEMENTS_PER_THREAD = 1 << 11
# Below so many indices of a permutation, one thread makes them as fast as several.
THREADED_PLACES = 1 << 18


class Objective:
    """Arguments that describe data and loss, in the form kernels take them."""

    def __init__(self, problem: Problem) -> None:
        empty = np.empty(0, problem.dtype)
        self.X = problem.X
        self.y = problem.y
        self.weight = empty if problem.sample_weight is None else problem.sample_weight
        self.loss = problem.loss
        self.loss_parameters = np.array(problem.loss.parameters or (0.0,), dtype=np.float64)
        self.fit_intercept = problem.fit_intercept
        self.n_outputs = problem.n_outputs


class Memory:
    """Arguments that describe the state."""

    def __init__(self, state: State) -> None:
        self.theta = state.theta
        self.slots = state.slots
        self.average = np.empty(0) if state.average is None else state.average
        self.averaged = state.averaged


class Steps:
    """Arguments that describe the updates of a run of steps."""

    def __init__(self, problem: Problem, state: State, lr: np.ndarray, n_steps: int) -> None:
        rule = state.rule
        self.rule = rule
        if rule.formula == "sgd":
            self.constants = lr[:, None]
        else:
            steps = np.arange(state.step, state.step + n_steps)
            self.constants = rule.constants(steps, np.broadcast_to(lr, n_steps))
        self.l2 = problem.penalty.l2 + rule.coupled_decay
        self.l1 = problem.penalty.l1
        self.clip_norm = state.clip_norm
        averaged = state.average is not None
        self.all_weights = changes_all_weights(rule, bool(self.clip_norm), averaged, self.l1)


class KernelSet(Protocol):
    """The functions a compiled kernel set offers; see ``native.py`` and ``jit.py``.

    ``outputs`` offers those that loop over rows for problems of several outputs, ``sparse`` those
    for sparse rows, ``classic`` the classic step. ``threaded`` says whether several threads may
    share a step.
    """

    threaded: bool

    @property
    def outputs(self) -> KernelSet: ...

    @property
    def sparse(self) -> KernelSet: ...

    @property
    def classic(self) -> ClassicKernels: ...

    def descend_samples(
        self, objective: Objective, rows: Rows, steps: Steps, memory: Memory
    ) -> tuple[float, float, int]: ...

    def descend_batches(
        self,
        objective: Objective,
        rows: Rows,
        batch_size: int,
        steps: Steps,
        memory: Memory,
        threads: int,
    ) -> tuple[float, float, int]: ...

    def add_gradient(
        self,
        objective: Objective,
        rows: Rows,
        theta: np.ndarray,
        total: np.ndarray,
        threads: int,
    ) -> float: ...

    def finish_step(
        self, objective: Objective, total: np.ndarray, count: int, steps: Steps, memory: Memory
    ) -> tuple[float, int]: ...

    def variance(
        self, objective: Objective, rows: Rows, theta: np.ndarray, gradient: np.ndarray
    ) -> tuple[float, float]: ...

    def margin(self, X: Any, rows: Rows, theta: np.ndarray, out: np.ndarray) -> None: ...

    def descend_freely(
        self,
        objective: Objective,
        rows: Rows,
        steps: Steps,
        memory: Memory,
        scales: np.ndarray,
        threads: int,
    ) -> tuple[float, int, int, int, int]: ...

    def apply(
        self,
        rule: Rule,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        slots: Sequence[Sequence[np.ndarray]],
        constants: np.ndarray,
        decay: float,
    ) -> None: ...

    def reduce(self, dst: np.ndarray, sources: Sequence[np.ndarray], scale: float) -> None: ...

    def permute(
        self, n: int, keys: np.ndarray, start: int, out: np.ndarray, threads: int
    ) -> None: ...

    def mix(
        self,
        block: np.ndarray,
        row: np.ndarray,
        starts: np.ndarray,
        turned: np.ndarray,
        start: int,
        out: np.ndarray,
    ) -> None: ...


class ClassicKernels(Protocol):
    """The classic step; returns how many iterates the mean holds then."""

    def descend(
        self,
        objective: Objective,
        rows: Rows,
        classic: Classic,
        walk: Walk,
        averaged: int,
    ) -> int: ...


class CompiledBackend:
    """The verbs over a kernel set.

    Parameters
    ----------
    name : str
    kernels : KernelSet
    threads : int
        Most threads a call may use; results do not depend on it.
    """

    def __init__(self, name: str, kernels: Any, threads: int) -> None:
        self.name = name
        self.kernels: KernelSet = kernels
        self.threads = threads

    def supports(self, loss: Loss) -> str | None:
        """None if the backend can train with ``loss``, else why not."""
        why: str | None = self.kernels.supports(loss)  # type: ignore[attr-defined]
        return why

    def segment_rows(self, n_features: int, batch_size: int) -> int:
        """Rows of a segment, a multiple of the batch size."""
        steps = SEGMENT_ELEMENTS // ((n_features + 16) * batch_size)
        return min(max(1, steps), SEGMENT_STEPS) * batch_size

    def _kernels(self, X: Any, n_outputs: int) -> KernelSet:
        """The loops over rows of this kind for so many outputs."""
        if not isinstance(X, np.ndarray):
            return self.kernels.sparse
        return self.kernels if n_outputs == 1 else self.kernels.outputs

    @property
    def _most_threads(self) -> int:
        """Threads that may share a step."""
        return self.threads if self.kernels.threaded else 1

    def crew(self, rows: int, width: int) -> int:
        """Threads that pay for a step over ``rows`` rows."""
        useful = min(rows // (2 * TILE_ROWS), rows * width // ELEMENTS_PER_THREAD)
        return max(1, min(self._most_threads, useful))

    def descend(self, problem: Problem, state: State, segment: Segment) -> tuple[float, float]:
        """Run the segment's steps on ``state``."""
        if plain_per_sample(problem, state, segment):
            return self._descend_samples(problem, state, segment)
        if min(segment.batch_size, segment.n_rows) * work_per_row(problem) > LARGE_STEP_ELEMENTS:
            return self._descend_large(problem, state, segment)
        return self._descend_batches(problem, state, segment)

    def _descend_samples(
        self, problem: Problem, state: State, segment: Segment
    ) -> tuple[float, float]:
        steps = Steps(problem, state, segment.learning_rate, segment.n_steps)
        memory = Memory(state)
        loss, norm, state.averaged = self._kernels(problem.X, problem.n_outputs).descend_samples(
            Objective(problem), segment.rows, steps, memory
        )
        state.step += segment.n_steps
        return loss, norm

    def _descend_batches(
        self, problem: Problem, state: State, segment: Segment
    ) -> tuple[float, float]:
        steps = Steps(problem, state, segment.learning_rate, segment.n_steps)
        threads = self.crew(min(segment.batch_size, segment.n_rows), work_per_row(problem))
        loss, norm, state.averaged = self._kernels(problem.X, problem.n_outputs).descend_batches(
            Objective(problem), segment.rows, segment.batch_size, steps, Memory(state), threads
        )
        state.step += segment.n_steps
        return loss, norm

    def _descend_large(
        self, problem: Problem, state: State, segment: Segment
    ) -> tuple[float, float]:
        """Steps so large that Python drives them, slab by slab."""
        objective = Objective(problem)
        total_loss = norm = 0.0
        for k in range(segment.n_steps):
            first = k * segment.batch_size
            batch = take(segment.rows, first, first + segment.batch_size)
            loss, gradient = self.gradient(problem, state.theta, batch)
            lr = segment.learning_rate[k : k + 1]
            steps = Steps(problem, state, lr if lr.size else segment.learning_rate, 1)
            norm, state.averaged = self._kernels(problem.X, problem.n_outputs).finish_step(
                objective, gradient, length(batch), steps, Memory(state)
            )
            state.step += 1
            total_loss += loss
        return total_loss, norm

    def descend_classic(
        self, problem: Problem, step: ClassicStep, state: ClassicState, segment: Segment
    ) -> np.ndarray:
        """Run the segment's classic steps on every active output of ``state``."""
        penalty, losses = problem.penalty, np.zeros(state.coef.shape[0])
        classic = Classic(
            np.ascontiguousarray(segment.learning_rate),
            penalty.l2,
            penalty.l1,
            step.intercept_decay,
            step.drift,
            step.passive,
            step.aggressiveness,
        )
        walk = Walk(
            state.coef,
            state.intercept,
            np.empty(0, state.coef.dtype) if state.own is None else state.own,
            state.active,
            state.factor,
            state.owed,
            state.paid,
            np.empty((state.coef.shape[0], 0)) if state.average is None else state.average,
            losses,
        )
        state.averaged = self.kernels.classic.descend(
            Objective(problem), segment.rows, classic, walk, state.averaged
        )
        return losses

    def gradient(self, problem: Problem, theta: np.ndarray, rows: Rows) -> tuple[float, np.ndarray]:
        """Summed weighted loss and gradient of the rows."""
        objective, total, loss = Objective(problem), np.zeros(theta.size), 0.0
        kernels = self._kernels(problem.X, problem.n_outputs)
        for slab in slabs(rows, work_per_row(problem)):
            threads = self.crew(length(slab), work_per_row(problem))
            loss += kernels.add_gradient(objective, slab, theta, total, threads)
        return loss, total

    def apply(
        self,
        rule: Rule,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        slots: Sequence[Sequence[np.ndarray]],
        step: int,
        lr: float,
    ) -> None:
        """One rule step over a list of C-contiguous arrays, in place."""
        constants = rule.constants(np.array([step]), np.array([lr], dtype=np.float64))[0]
        self.kernels.apply(rule, params, grads, slots, constants, rule.coupled_decay)

    def reduce(self, dst: np.ndarray, sources: Sequence[np.ndarray], scale: float) -> None:
        """``dst = scale * (dst + sum of sources)``, in place."""
        self.kernels.reduce(dst, sources, scale)

    def margin(self, X: Any, theta: np.ndarray, rows: Rows) -> np.ndarray:
        """Decision values of the rows."""
        n_outputs = theta.size // (X.shape[1] + 1)
        kernels = self._kernels(X, n_outputs)
        out = np.empty((length(rows), n_outputs) if n_outputs > 1 else length(rows), theta.dtype)
        first = 0
        width = X.shape[1] if isinstance(X, np.ndarray) else X.row_elements
        for slab in slabs(rows, width * n_outputs):
            kernels.margin(X, slab, theta, out[first : first + length(slab)])
            first += length(slab)
        return out

    def variance(
        self, problem: Problem, theta: np.ndarray, rows: Rows
    ) -> tuple[float, np.ndarray, float]:
        """Summed loss, gradient and squared norms of the samples' gradients."""
        objective, gradient = Objective(problem), np.zeros(theta.size)
        loss = second = 0.0
        kernels = self._kernels(problem.X, problem.n_outputs)
        for slab in slabs(rows, work_per_row(problem)):
            part, norms = kernels.variance(objective, slab, theta, gradient)
            loss, second = loss + part, second + norms
        return loss, gradient, second

    def permute(self, n: int, keys: np.ndarray, start: int, stop: int) -> np.ndarray:
        """The index bijection at positions start <= i < stop."""
        out = np.empty(stop - start, dtype=bijection.index_dtype(n))
        threads = self._most_threads if out.size >= THREADED_PLACES else 1
        self.kernels.permute(n, keys, start, out, threads)
        return out

    def mix(
        self,
        block: np.ndarray,
        row: np.ndarray,
        starts: np.ndarray,
        turned: np.ndarray,
        start: int,
        stop: int,
    ) -> np.ndarray:
        """Rows of buffers that are mixed by one pattern."""
        out = np.empty(stop - start, dtype=starts.dtype)
        self.kernels.mix(block, row, starts, turned, start, out)
        return out


def work_per_row(problem: Problem) -> int:
    """Products that a row's margins take: what the sizes of segments, slabs and crews go by."""
    return problem.row_elements * problem.n_outputs


def plain_per_sample(problem: Problem, state: State, segment: Segment) -> bool:
    """Whether the segment runs on the per-sample kernel."""
    clipped, averaged = bool(state.clip_norm), state.average is not None
    if problem.is_sparse and changes_all_weights(state.rule, clipped, averaged, problem.penalty.l1):
        return False
    return segment.batch_size == 1 and state.rule.formula == "sgd" and not clipped


def slabs(rows: Rows, n_features: int) -> list[Rows]:
    """The rows in pieces of whole tiles, enough for a crew, that last some ten milliseconds."""
    size = max(8, SEGMENT_ELEMENTS // ((n_features + 16) * TILE_ROWS)) * TILE_ROWS
    return [take(rows, k, k + size) for k in range(0, length(rows), size)]
