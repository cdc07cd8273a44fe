"""The jit backend: the Numba kernels of ``kernels.py`` for the table of formulas at hand."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from schuss.backends import arguments
from schuss.backends.arguments import (
    Classic,
    Data,
    Formulas,
    Parameters,
    SparseData,
    Updates,
    Visit,
    Walk,
)
from schuss.backends.compiled import Memory, Objective, Steps
from schuss.backends.protocol import TILE_ROWS, Rows
from schuss.errors import InvalidArgument
from schuss.formulas import bijection, penalties
from schuss.formulas.losses import LOSSES, VECTOR_LOSSES, Loss, VectorLoss, _Custom
from schuss.formulas.rules import FORMULAS, Rule
from schuss.formulas.spec import source_of

__all__ = ["JitKernels"]


def _read_only(array: np.ndarray) -> np.ndarray:
    """A view that Numba compiles one kernel for, whether the array may be written or not."""
    view = array.view()
    view.flags.writeable = False
    return view


def _bits(X: np.ndarray) -> np.ndarray:
    """16-bit numbers go to the kernels as their bits: float16 as signed, bfloat16 as unsigned."""
    if X.itemsize > 2:
        return X
    return X.view(np.int16 if X.dtype == np.float16 else np.uint16)


# The file that a file of kernels goes on from.
BEFORE = {
    "kernels_outputs.py": "kernels.py",
    "kernels_sparse.py": "kernels.py",
    "kernels_classic.py": "kernels_sparse.py",
}


def _sources(formulas: Formulas) -> list[str]:
    """What the kernels for these formulas are made from, besides their own files."""
    files = [arguments.__file__, penalties.__file__, bijection.__file__]
    functions = (*formulas.values, *formulas.slopes, *formulas.rules, *formulas.vectors)
    return [
        *(Path(file).read_text(encoding="utf-8") for file in files),
        *(source_of(f) for f in functions),
        str(TILE_ROWS) if formulas.cache else repr(functions),
    ]


@cache
def _load(formulas: Formulas, file_name: str = "kernels.py") -> ModuleType:
    """Execute ``kernels.py``, or a file that goes on from it, for these formulas.

    It becomes a module of its own; one that goes on finds the one before it as ``KERNELS``.
    """
    source = Path(__file__).with_name(file_name)
    before = _load(formulas, BEFORE[file_name]) if file_name in BEFORE else None
    made_from = _sources(formulas) if before is None else [before.FORMULAS.digest]
    parts = [source.read_text(encoding="utf-8"), *made_from]
    digest = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    # Numba looks a compiled function's module up by its name, also when it comes from the cache.
    name = f"schuss.backends._kernels_{digest[:16]}"
    spec = importlib.util.spec_from_file_location(name, source)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["FORMULAS"] = formulas._replace(digest=digest)
    if before is not None:
        module.__dict__["KERNELS"] = before
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


def _adapt(function: Callable[..., Any]) -> Callable[..., Any]:
    """A user's function of (margin, y) in the form of the table's, once Numba has compiled it."""
    import numba
    from numba.core.errors import NumbaError

    try:
        compiled = function
        if not hasattr(function, "py_func"):
            compiled = numba.njit(function, error_model="numpy")

        def adapted(margin, y, p):  # type: ignore[no-untyped-def]
            return compiled(margin, y)

        numba.njit("float64(float64, float64, float64)")(adapted)
    except (NumbaError, TypeError) as error:
        lines = str(error).splitlines()
        reason = next((x for x in lines if x and not x.startswith("Failed in")), repr(error))
        raise InvalidArgument(
            f"loss function {getattr(function, '__name__', function)!r}: Numba cannot compile it "
            f"({reason}); write a function of two scalars (margin, y) that returns a number, or "
            "use backend='reference'."
        ) from error
    return adapted


@cache
def _adapted(functions: tuple[Callable[..., Any], ...]) -> tuple[Callable[..., Any], ...]:
    return tuple(_adapt(f) for f in functions)


class JitKernels:
    """The kernel set that Numba compiles.

    Attributes
    ----------
    outputs : JitOutputKernels
        The same for problems of several outputs.
    sparse : JitSparseKernels
        The same for sparse rows.
    classic : JitClassicKernels
        The classic step.
    """

    outputs: JitOutputKernels
    sparse: JitSparseKernels
    classic: JitClassicKernels
    file_name = "kernels.py"
    threaded = False

    def __init__(self) -> None:
        if type(self) is JitKernels:
            self.outputs, self.sparse = JitOutputKernels(), JitSparseKernels()
            self.classic = JitClassicKernels()

    def supports(self, loss: Loss) -> str | None:
        """None: Numba compiles any loss."""
        return None

    def _kernels(self, loss: Loss | None = None) -> tuple[ModuleType, int]:
        """The kernels for a loss and its number in their table."""
        table = Formulas.builtin()
        if isinstance(loss, _Custom):
            value, slope = _adapted(loss.functions)
            return _load(table._replace(values=(value,), slopes=(slope,)), self.file_name), 0
        rows = [*LOSSES, *VECTOR_LOSSES]
        if loss is not None and type(loss) not in rows:
            if isinstance(loss, VectorLoss):
                own = table._replace(vectors=(type(loss).weigh,))
                return _load(own, self.file_name), len(list(LOSSES))
            own = table._replace(values=(type(loss).value,), slopes=(type(loss).slope,))
            return _load(own, self.file_name), 0
        number = 0 if loss is None else rows.index(type(loss))
        return _load(table._replace(cache=True), self.file_name), number

    @staticmethod
    def _data(o: Objective, number: int) -> Any:
        X, y, weight = (_read_only(array) for array in (_bits(o.X), o.y, o.weight))
        return Data(X, y, weight, number, o.loss_parameters.astype(y.dtype), o.fit_intercept)

    @staticmethod
    def _visit(rows: Rows) -> Visit:
        if isinstance(rows, tuple):
            return Visit(_read_only(np.empty(0, np.int32)), *rows)
        return Visit(_read_only(rows), 0, int(rows.size))

    @staticmethod
    def _rule(rule: Rule) -> int:
        return list(FORMULAS).index(rule.formula)

    def _updates(self, steps: Steps) -> Updates:
        constants = _read_only(np.ascontiguousarray(steps.constants))
        strengths = float(steps.l2), float(steps.l1), float(steps.clip_norm)
        return Updates(self._rule(steps.rule), constants, *strengths)

    @staticmethod
    def _parameters(memory: Memory) -> Parameters:
        return Parameters(memory.theta, memory.slots, memory.average, memory.averaged)

    def descend_samples(
        self, objective: Objective, rows: Rows, steps: Steps, memory: Memory
    ) -> tuple[float, float, int]:
        kernels, number = self._kernels(objective.loss)
        data, parameters = self._data(objective, number), self._parameters(memory)
        return kernels.descend_samples(data, self._visit(rows), self._updates(steps), parameters)

    def descend_batches(
        self,
        objective: Objective,
        rows: Rows,
        batch_size: int,
        steps: Steps,
        memory: Memory,
        threads: int,
    ) -> tuple[float, float, int]:
        kernels, number = self._kernels(objective.loss)
        data, parameters = self._data(objective, number), self._parameters(memory)
        visit, updates = self._visit(rows), self._updates(steps)
        return kernels.descend_batches(data, visit, batch_size, updates, parameters)

    def add_gradient(
        self,
        objective: Objective,
        rows: Rows,
        theta: np.ndarray,
        total: np.ndarray,
        threads: int,
    ) -> float:
        kernels, number = self._kernels(objective.loss)
        data = self._data(objective, number)
        return kernels.add_gradient(data, self._visit(rows), _read_only(theta), total)

    def finish_step(
        self, objective: Objective, total: np.ndarray, count: int, steps: Steps, memory: Memory
    ) -> tuple[float, int]:
        kernels, _ = self._kernels(objective.loss)
        updates, parameters = self._updates(steps), self._parameters(memory)
        return kernels.finish_step(total, count, updates, objective.fit_intercept, parameters)

    def variance(
        self, objective: Objective, rows: Rows, theta: np.ndarray, gradient: np.ndarray
    ) -> tuple[float, float]:
        kernels, number = self._kernels(objective.loss)
        data = self._data(objective, number)
        return kernels.variance(data, self._visit(rows), _read_only(theta), gradient)

    def margin(self, X: Any, rows: Rows, theta: np.ndarray, out: np.ndarray) -> None:
        self._kernels()[0].margin(_read_only(_bits(X)), self._visit(rows), _read_only(theta), out)

    def apply(
        self,
        rule: Rule,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        slots: Sequence[Sequence[np.ndarray]],
        constants: np.ndarray,
        decay: float,
    ) -> None:
        kernel = self._kernels()[0].apply
        for w, g, memory in zip(params, grads, slots, strict=True):
            flat = [s.reshape(-1) for s in memory] + [np.empty(0, w.dtype)] * (2 - len(memory))
            g = _read_only(g.reshape(-1))
            kernel(w.reshape(-1), g, tuple(flat), self._rule(rule), constants, float(decay))

    def reduce(self, dst: np.ndarray, sources: Sequence[np.ndarray], scale: float) -> None:
        kernel = self._kernels()[0].reduce
        flat = dst.reshape(-1)
        for k, source in enumerate(sources):
            factor = scale if k == len(sources) - 1 else 1.0
            kernel(flat, _read_only(source.reshape(-1)), factor)
        if not sources:
            flat *= flat.dtype.type(scale)

    def permute(self, n: int, keys: np.ndarray, start: int, out: np.ndarray, threads: int) -> None:
        del threads
        self._kernels()[0].permute(n, _read_only(keys), *bijection.split(n), start, out)

    def mix(
        self,
        block: np.ndarray,
        row: np.ndarray,
        starts: np.ndarray,
        turned: np.ndarray,
        start: int,
        out: np.ndarray,
    ) -> None:
        given = (_read_only(array) for array in (block, row, starts, turned))
        self._kernels()[0].mix(*given, start, out)


class JitOutputKernels(JitKernels):
    """The loops over rows of ``kernels_outputs.py``; they take the same arguments."""

    file_name = "kernels_outputs.py"

    @staticmethod
    def _data(o: Objective, number: int) -> Data:
        X, weight = _read_only(o.X), _read_only(o.weight)
        y = _read_only(o.y.reshape(o.X.shape[0], -1))  # numbers of classes are one column
        return Data(X, y, weight, number, o.loss_parameters.astype(X.dtype), o.fit_intercept)

    def finish_step(
        self, objective: Objective, total: np.ndarray, count: int, steps: Steps, memory: Memory
    ) -> tuple[float, int]:
        kernels, _ = self._kernels(objective.loss)
        updates, parameters = self._updates(steps), self._parameters(memory)
        d, intercept = objective.X.shape[1], objective.fit_intercept
        return kernels.finish_step(total, count, updates, intercept, d, parameters)


class JitSparseKernels(JitKernels):
    """The loops over sparse rows of ``kernels_sparse.py``; they take the same arguments."""

    file_name = "kernels_sparse.py"

    @staticmethod
    def _data(o: Objective, number: int) -> SparseData:
        X, p = o.X, o.loss_parameters.astype(o.y.dtype)
        arrays = (_read_only(v) for v in (X.data, X.indices, X.indptr, o.y, o.weight))
        data, indices, indptr, y, weight = arrays
        return SparseData(data, indices, indptr, y, weight, number, p, o.fit_intercept)

    def descend_batches(
        self,
        objective: Objective,
        rows: Rows,
        batch_size: int,
        steps: Steps,
        memory: Memory,
        threads: int,
    ) -> tuple[float, float, int]:
        kernels, number = self._kernels(objective.loss)
        descend = kernels.descend_all if steps.all_weights else kernels.descend_batches
        data, parameters = self._data(objective, number), self._parameters(memory)
        return descend(data, self._visit(rows), batch_size, self._updates(steps), parameters)

    def descend_freely(
        self,
        objective: Objective,
        rows: Rows,
        steps: Steps,
        memory: Memory,
        scales: np.ndarray,
        threads: int,
    ) -> tuple[float, int, int, int, int]:
        kernels, number = self._kernels(objective.loss)
        data, visit = self._data(objective, number), self._visit(rows)
        updates, scales = self._updates(steps), _read_only(scales)
        # A cache line for each thread, so that none waits for another's.
        done, met = np.zeros((threads, 8), np.int64), np.zeros((threads, 8), np.int64)

        def train(rank: int) -> float:
            found: float = kernels.descend_freely(
                data, visit, updates, memory.theta, scales, done, rank, met[rank]
            )
            return found

        if threads == 1:
            loss = train(0)
        else:
            with ThreadPoolExecutor(threads) as pool:
                loss = sum(pool.map(train, range(threads)))
        if scales[-1] != 1:
            memory.theta[:-1] *= memory.theta.dtype.type(scales[-1])
        looked_at, conflicts, delay = (int(n) for n in met[:, :3].sum(axis=0))
        return loss, looked_at, conflicts, delay, int(met[:, 3].max())

    def margin(self, X: Any, rows: Rows, theta: np.ndarray, out: np.ndarray) -> None:
        matrix = (_read_only(array) for array in (X.data, X.indices, X.indptr))
        self._kernels()[0].margin(*matrix, self._visit(rows), _read_only(theta), out)


class JitClassicKernels(JitKernels):
    """The classic step of ``kernels_classic.py``."""

    file_name = "kernels_classic.py"

    def descend(
        self, objective: Objective, rows: Rows, classic: Classic, walk: Walk, averaged: int
    ) -> int:
        kernels, number = self._kernels(objective.loss)
        given = walk._replace(
            own=_read_only(walk.own),
            active=_read_only(walk.active),
            factor=_read_only(walk.factor),
        )
        step = classic._replace(rates=_read_only(classic.rates))
        dense = isinstance(objective.X, np.ndarray)
        data = (JitKernels if dense else JitSparseKernels)._data(objective, number)
        verb = kernels.descend if dense else kernels.descend_sparse
        return int(verb(data, self._visit(rows), step, given, averaged))
