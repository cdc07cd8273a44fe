"""The native backend: the C++ kernels of ``csrc/cpu`` behind the extension module."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from schuss import _native
from schuss.backends.arguments import Classic, Walk
from schuss.backends.compiled import Memory, Objective, Steps
from schuss.backends.protocol import Rows
from schuss.formulas.losses import Loss
from schuss.formulas.rules import Rule

__all__ = ["NativeKernels"]


@cache
def _function(name: str, dtype: np.dtype[Any]) -> Any:
    """A function of the extension, for one type of numbers; to spell that out takes its time."""
    return getattr(_native, f"{name}_{dtype.name}")


class NativeKernels:
    """The kernel set of the extension module.

    Attributes
    ----------
    outputs : NativeOutputKernels
        The same for problems of several outputs.
    sparse : NativeSparseKernels
        The same for sparse rows.
    classic : NativeClassicKernels
        The classic step.
    """

    threaded = True
    outputs: NativeOutputKernels
    sparse: NativeSparseKernels
    classic: NativeClassicKernels

    def __init__(self) -> None:
        if type(self) is NativeKernels:
            self.outputs, self.sparse = NativeOutputKernels(), NativeSparseKernels()
            self.classic = NativeClassicKernels(self)
        names = [*_native.losses(), *_native.vector_losses()]
        self._losses = {name: k for k, name in enumerate(names)}
        self._rules = {name: k for k, name in enumerate(_native.rules())}

    def supports(self, loss: Loss) -> str | None:
        """None if there is a compiled struct for the loss, else why not."""
        if loss.name in self._losses and loss.builtin:
            return None
        return f"csrc/formulas.h has no struct for loss {loss.name!r}; use backend='jit'"

    def _data(self, o: Objective) -> Any:
        row = self._losses[o.loss.name]
        return _native.Data(
            self._bits(o.X), o.y, o.weight, o.loss_parameters, row, o.fit_intercept, o.n_outputs
        )

    @staticmethod
    def _parameters(memory: Memory) -> Any:
        return _native.Parameters(memory.theta, memory.slots, memory.average, memory.averaged)

    @staticmethod
    def _steps(steps: Steps) -> Any:
        constants = np.ascontiguousarray(steps.constants)
        return _native.Steps(constants, steps.l2, steps.l1, steps.clip_norm)

    @staticmethod
    def _bits(X: np.ndarray) -> np.ndarray:
        """16-bit numbers go to the extension as their bits."""
        return X.view(np.uint16) if X.itemsize == 2 else X

    @staticmethod
    def _verb(name: str, dtype: np.dtype[Any]) -> Any:
        return _function(name, dtype)

    def descend_samples(
        self, objective: Objective, rows: Rows, steps: Steps, memory: Memory
    ) -> tuple[float, float, int]:
        parameters = self._parameters(memory)
        verb = self._verb("descend_samples", objective.X.dtype)
        loss, norm = verb(self._data(objective), rows, self._steps(steps), parameters)
        return loss, norm, parameters.averaged

    def descend_batches(
        self,
        objective: Objective,
        rows: Rows,
        batch_size: int,
        steps: Steps,
        memory: Memory,
        threads: int,
    ) -> tuple[float, float, int]:
        parameters = self._parameters(memory)
        loss, norm = self._verb("descend_batches", objective.X.dtype)(
            self._data(objective),
            rows,
            batch_size,
            self._rules[steps.rule.formula],
            self._steps(steps),
            parameters,
            threads,
        )
        return loss, norm, parameters.averaged

    def add_gradient(
        self,
        objective: Objective,
        rows: Rows,
        theta: np.ndarray,
        total: np.ndarray,
        threads: int,
    ) -> float:
        verb = self._verb("add_gradient", objective.X.dtype)
        loss: float = verb(self._data(objective), rows, theta, total, threads)
        return loss

    def finish_step(
        self, objective: Objective, total: np.ndarray, count: int, steps: Steps, memory: Memory
    ) -> tuple[float, int]:
        parameters = self._parameters(memory)
        norm = self._verb("finish_step", memory.theta.dtype)(
            self._data(objective),
            total,
            count,
            self._rules[steps.rule.formula],
            self._steps(steps),
            0,
            parameters,
        )
        return norm, parameters.averaged

    def variance(
        self, objective: Objective, rows: Rows, theta: np.ndarray, gradient: np.ndarray
    ) -> tuple[float, float]:
        verb = self._verb("variance", objective.X.dtype)
        result: tuple[float, float] = verb(self._data(objective), rows, theta, gradient)
        return result

    def margin(self, X: Any, rows: Rows, theta: np.ndarray, out: np.ndarray) -> None:
        self._verb("margin", X.dtype)(self._bits(X), rows, theta, out)

    def apply(
        self,
        rule: Rule,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        slots: Sequence[Sequence[np.ndarray]],
        constants: np.ndarray,
        decay: float,
    ) -> None:
        verb = self._verb("apply", params[0].dtype) if params else None
        if verb:
            memory = [list(s) for s in slots]
            verb(self._rules[rule.formula], list(params), list(grads), memory, constants, decay)

    def reduce(self, dst: np.ndarray, sources: Sequence[np.ndarray], scale: float) -> None:
        self._verb("reduce", dst.dtype)(dst, list(sources), scale)

    def permute(self, n: int, keys: np.ndarray, start: int, out: np.ndarray, threads: int) -> None:
        self._verb("permute", out.dtype)(n, keys, start, out, threads)

    def mix(
        self,
        block: np.ndarray,
        row: np.ndarray,
        starts: np.ndarray,
        turned: np.ndarray,
        start: int,
        out: np.ndarray,
    ) -> None:
        self._verb("mix", out.dtype)(block, row, starts, turned, start, out)


class NativeOutputKernels(NativeKernels):
    """The loops over rows for several outputs; they take the same arguments."""

    @staticmethod
    def _verb(name: str, dtype: np.dtype[Any]) -> Any:
        return _function(f"outputs_{name}", dtype)


class NativeSparseKernels(NativeKernels):
    """The loops over sparse rows; they take the same arguments."""

    @staticmethod
    def _verb(name: str, dtype: np.dtype[Any]) -> Any:
        return _function(f"sparse_{name}", dtype)

    @staticmethod
    def _matrix(X: Any) -> Any:
        return _native.Matrix(X.data, X.indices, X.indptr, X.shape[1])

    def _data(self, o: Objective) -> Any:
        row = self._losses[o.loss.name]
        matrix = self._matrix(o.X)
        return _native.SparseData(matrix, o.y, o.weight, o.loss_parameters, row, o.fit_intercept)

    def descend_batches(
        self,
        objective: Objective,
        rows: Rows,
        batch_size: int,
        steps: Steps,
        memory: Memory,
        threads: int,
    ) -> tuple[float, float, int]:
        parameters = self._parameters(memory)
        loss, norm = self._verb("descend_batches", objective.X.dtype)(
            self._data(objective),
            rows,
            batch_size,
            self._rules[steps.rule.formula],
            self._steps(steps),
            parameters,
            steps.all_weights,
            threads,
        )
        return loss, norm, parameters.averaged

    def descend_freely(
        self,
        objective: Objective,
        rows: Rows,
        steps: Steps,
        memory: Memory,
        scales: np.ndarray,
        threads: int,
    ) -> tuple[float, int, int, int, int]:
        data, updates = self._data(objective), self._steps(steps)
        verb = self._verb("descend_freely", objective.X.dtype)
        found: tuple[float, int, int, int, int]
        found = verb(data, rows, updates, memory.theta, scales, threads)
        return found

    def finish_step(
        self, objective: Objective, total: np.ndarray, count: int, steps: Steps, memory: Memory
    ) -> tuple[float, int]:
        parameters = self._parameters(memory)
        norm = self._verb("finish_step", memory.theta.dtype)(
            objective.fit_intercept,
            total,
            count,
            self._rules[steps.rule.formula],
            self._steps(steps),
            parameters,
        )
        return norm, parameters.averaged

    def margin(self, X: Any, rows: Rows, theta: np.ndarray, out: np.ndarray) -> None:
        self._verb("margin", X.dtype)(self._matrix(X), rows, theta, out)


class NativeClassicKernels:
    """The classic step on the rows that a kernel set packs."""

    def __init__(self, kernels: NativeKernels) -> None:
        self.kernels = kernels

    def descend(
        self, objective: Objective, rows: Rows, classic: Classic, walk: Walk, averaged: int
    ) -> int:
        dense = isinstance(objective.X, np.ndarray)
        packing = self.kernels if dense else self.kernels.sparse
        state = _native.Walk(*walk, averaged)
        name = "classic_descend" if dense else "classic_sparse_descend"
        verb = _function(name, walk.coef.dtype)
        verb(packing._data(objective), rows, _native.Classic(*classic), state)
        return int(state.averaged)
