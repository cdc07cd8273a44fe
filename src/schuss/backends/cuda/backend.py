"""The verbs on a GPU.

A problem's arrays are copied to the device when they are first needed and stay there as long as the
problem lives. Parameters and what the rule remembers go there for a segment and come back after it.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from typing import Any

import numpy as np

from schuss.backends.classic import ClassicState, ClassicStep
from schuss.backends.compiled import work_per_row
from schuss.backends.cuda.data import (
    STORED,
    WARPS,
    Kind,
    Places,
    on_device,
    packs_of,
    sparse_matrix,
    spread,
)
from schuss.backends.cuda.device import Device
from schuss.backends.cuda.shapes import CHUNK_NUMBERS, TILE_SIDE, blocks_for, held
from schuss.backends.cuda.steps import Run, combine, no_update, outcome
from schuss.backends.protocol import Problem, Rows, Segment, State, length, take
from schuss.errors import BackendError, InvalidArgument
from schuss.formulas import bijection
from schuss.formulas.losses import LOSSES, VECTOR_LOSSES, Loss
from schuss.formulas.rules import Rule

__all__ = ["CudaBackend"]

# A segment reads about as many elements of X: some ten milliseconds.
SEGMENT_ELEMENTS = 10_000_000_000
SEGMENT_STEPS = 1 << 16
# Rows whose sums are made together, outside of steps.
SLAB_ELEMENTS = 2_000_000_000

INDEX = {np.dtype(np.int32): "int32_t", np.dtype(np.int64): "int64_t"}


class CudaBackend:
    """The verbs over a device.

    Parameters
    ----------
    device : Device
    """

    name = "cuda"

    def __init__(self, device: Device) -> None:
        self.device = device
        self._kept: dict[int, tuple[weakref.ref[Problem], Kind]] = {}

    def supports(self, loss: Loss) -> str | None:
        """None if there is a compiled struct for the loss, else why not."""
        if loss.builtin and loss.name in {*LOSSES.names(), *VECTOR_LOSSES.names()}:
            return None
        return f"csrc/formulas.h has no struct for loss {loss.name!r}; use backend='jit'"

    def segment_rows(self, n_features: int, batch_size: int) -> int:
        """Rows of a segment, a multiple of the batch size."""
        steps = SEGMENT_ELEMENTS // ((n_features + 16) * batch_size)
        return min(max(1, steps), SEGMENT_STEPS) * batch_size

    # ---- Over rows ----

    def descend(self, problem: Problem, state: State, segment: Segment) -> tuple[float, float]:
        """Run the segment's steps on ``state``."""
        run = Run(self.device, self._on_device(problem), state, segment)
        found = run.steps()
        run.give_back()
        return found

    def descend_classic(
        self, problem: Problem, step: ClassicStep, state: ClassicState, segment: Segment
    ) -> np.ndarray:
        """Not on a GPU."""
        raise BackendError(
            "backend='cuda' has no kernel for the classic step of schuss.sklearn; expected "
            "'native' or 'jit'."
        )

    def gradient(self, problem: Problem, theta: np.ndarray, rows: Rows) -> tuple[float, np.ndarray]:
        """Summed weighted loss and gradient of the rows."""
        loss, gradient, _ = self._sums(problem, theta, rows, norms=False)
        return loss, gradient

    def variance(
        self, problem: Problem, theta: np.ndarray, rows: Rows
    ) -> tuple[float, np.ndarray, float]:
        """Summed loss, gradient and squared norms of the samples' gradients."""
        return self._sums(problem, theta, rows, norms=True)

    def _sums(
        self, problem: Problem, theta: np.ndarray, rows: Rows, norms: bool
    ) -> tuple[float, np.ndarray, float]:
        data, device = self._on_device(problem), self.device
        weights, nothing = device.upload(data.spread(theta)), no_update(device)
        gradient, losses = np.zeros(theta.size), np.zeros(2)
        size = max(1, SLAB_ELEMENTS // work_per_row(problem))
        for first in range(0, length(rows), size):
            places = Places(device, take(rows, first, first + size))
            sums = data.room(places.count)
            data.add_up(places, weights, sums, norms)
            results = outcome(device, sums, data.columns)
            combine(device, data, sums, weights, results, nothing, places.count)
            gradient += data.gathered(device.download(sums.total))
            parts = device.download(sums.partials["losses"])
            losses += parts[: sums.partials["loss_parts"]].sum(axis=0)
        if not problem.fit_intercept:
            gradient.reshape(problem.n_outputs, -1)[:, -1] = 0
        return float(losses[0]), gradient, float(losses[1])

    def margin(self, X: Any, theta: np.ndarray, rows: Rows) -> np.ndarray:
        """Decision values of the rows."""
        k, count = theta.size // (X.shape[1] + 1), length(rows)
        if isinstance(X, np.ndarray):
            return self._dense_margin(X, theta, rows, k)
        out = self.device.empty(count, theta.dtype)
        self.device.launch(
            "sparse",
            f"sparse_margin<{STORED[theta.dtype.name]}>",
            blocks_for(count, WARPS),
            d=X.shape[1],
            rows=Places(self.device, rows).arguments,
            theta=self.device.upload(theta),
            out=out,
            **sparse_matrix(self.device, X),
        )
        return self.device.download(out)

    def _dense_margin(self, X: np.ndarray, theta: np.ndarray, rows: Rows, k: int) -> np.ndarray:
        stored, count, (packs, width) = STORED[X.dtype.name], length(rows), packs_of(X)
        out = self.device.empty((count, k) if k > 1 else count, theta.dtype)
        arguments = {
            "X": self.device.upload(packs),
            "width": width,
            "rows": Places(self.device, rows).arguments,
            "theta": self.device.upload(spread(theta, k, width)),
            "out": out,
        }
        if k > 1:
            blocks = max(1, -(-count // TILE_SIDE)) * -(-k // TILE_SIDE)
            self.device.launch("outputs", f"outputs_margin<{stored}>", blocks, k=k, **arguments)
        else:
            shape = held(width, X.itemsize, theta.itemsize)
            self.device.launch(
                "rows",
                f"margin<{stored}, {shape.lanes}, {shape.packs}>",
                blocks_for(count, shape.teams),
                **arguments,
            )
        return self.device.download(out)

    # ---- Over vectors ----

    def apply(
        self,
        rule: Rule,
        params: Sequence[np.ndarray],
        grads: Sequence[np.ndarray],
        slots: Sequence[Sequence[np.ndarray]],
        step: int,
        lr: float,
    ) -> None:
        """One rule step over a list of arrays, in place; all in one launch."""
        upload, sizes = self.device.upload, np.array([w.size for w in params], np.int64)
        first_chunk = np.concatenate([[0], np.cumsum(-(-sizes // CHUNK_NUMBERS))])
        if not first_chunk[-1]:
            return
        rows = [[w, g, *memory] for w, g, memory in zip(params, grads, slots, strict=True)]
        for place, (param, *others) in enumerate(rows):
            _check_alike(f"params[{place}]", params[0].dtype, param.size, [param])
            _check_alike(f"grads or slots of params[{place}]", param.dtype, param.size, others)
        there = [[upload(array) for array in row] for row in rows]
        addresses = np.zeros((len(rows), 4), np.int64)
        for own, arrays in zip(addresses, there, strict=True):
            own[: len(arrays)] = [self.device.address(a) for a in arrays]
        constants = rule.constants(np.array([step]), np.array([lr], dtype=np.float64))[0]
        self.device.launch(
            "vectors",
            f"apply<{STORED[params[0].dtype.name]}, {rule.formula}>",
            int(first_chunk[-1]),
            arrays={
                "addresses": upload(addresses),
                "sizes": upload(sizes),
                "first_chunk": upload(first_chunk),
                "arrays": len(rows),
            },
            constants=upload(constants),
            decay=rule.coupled_decay,
        )
        for host, arrays in zip(rows, there, strict=True):
            for k in (0, *range(2, len(host))):  # all but the gradient
                host[k][...] = self.device.download(arrays[k])

    def reduce(self, dst: np.ndarray, sources: Sequence[np.ndarray], scale: float) -> None:
        """``dst = scale * (dst + sum of sources)``, in place."""
        _check_alike("sources", dst.dtype, dst.size, sources)
        there, others = self.device.upload(dst), [self.device.upload(s) for s in sources]
        addresses = np.array([self.device.address(a) for a in others], np.int64)
        self.device.launch(
            "vectors",
            f"reduce<{STORED[dst.dtype.name]}>",
            blocks_for(dst.size),
            dst=there,
            sources=self.device.upload(addresses),
            count=len(others),
            size=dst.size,
            scale=scale,
        )
        dst[...] = self.device.download(there)

    def permute(self, n: int, keys: np.ndarray, start: int, stop: int) -> np.ndarray:
        """The index bijection at positions start <= i < stop."""
        out = self.device.empty(stop - start, bijection.index_dtype(n))
        self.device.launch(
            "vectors",
            f"permute<{INDEX[out.dtype]}>",
            blocks_for(stop - start),
            n=n,
            keys=self.device.upload(keys),
            start=start,
            count=stop - start,
            out=out,
        )
        return self.device.download(out)

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
        upload, out = self.device.upload, self.device.empty(stop - start, starts.dtype)
        self.device.launch(
            "vectors",
            f"mix<{INDEX[starts.dtype]}>",
            blocks_for(stop - start),
            pattern={
                "block": upload(block),
                "row": upload(row),
                "starts": upload(starts),
                "turned": upload(turned),
                "size": block.size // 2,
                "blocks": starts.shape[1],
            },
            start=start,
            count=stop - start,
            out=out,
        )
        return self.device.download(out)

    def _on_device(self, problem: Problem) -> Kind:
        """The problem's arrays on the device, copied at the first call."""
        key = id(problem)
        kept = self._kept.get(key)
        if kept is None or kept[0]() is not problem:
            gone = weakref.ref(problem, lambda _: self._kept.pop(key, None))
            kept = self._kept[key] = gone, on_device(self.device, problem)
        return kept[1]


def _check_alike(name: str, dtype: np.dtype[Any], size: int, arrays: Sequence[np.ndarray]) -> None:
    """Raise for arrays that a kernel, which knows only where they lie, would read wrongly."""
    for array in arrays:
        if array.dtype != dtype or array.size != size:
            raise InvalidArgument(
                f"{name}: expected {size} numbers of {dtype}, got {array.size} of {array.dtype}."
            )
