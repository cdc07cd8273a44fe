"""The verbs on a GPU: data is kept on the device, steps are chosen by their shape, launched, read.

A problem's arrays are copied to the device when they are first needed and stay there as long as the
problem lives. Parameters and what the rule remembers go there for a segment and come back after it.
"""

from __future__ import annotations

import weakref
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from schuss.backends.classic import ClassicState, ClassicStep
from schuss.backends.compiled import slabs
from schuss.backends.cuda.device import Device, launch
from schuss.backends.protocol import TILE_ROWS, Problem, Rows, Segment, State, length
from schuss.errors import BackendError
from schuss.formulas import bijection
from schuss.formulas.losses import LOSSES, Loss
from schuss.formulas.rules import Rule

__all__ = ["CudaBackend", "Held", "held"]

# As in csrc/cuda: threads of a block, and numbers of an array that one of them works on.
BLOCK_THREADS = 256
CHUNK_NUMBERS = 1 << 14
PACK_BYTES = 16
# A step is cut into about as many tiles where it has the rows for it: twice the multiprocessors of
# a large GPU. A constant, so that results do not depend on the GPU.
TILES_WANTED = 264
# Up to so many sums (tiles times columns), the block that comes last finishes the step alone.
SUMS_OF_ONE_BLOCK = 1 << 15
# A segment reads about as many elements of X: some ten milliseconds of the memory's time.
SEGMENT_ELEMENTS = 10_000_000_000
SEGMENT_STEPS = 1 << 16

_STORED = {"float32": "float", "float64": "double", "bfloat16": "bfloat16", "float16": "float16"}
_WIDE = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
_INDEX = {np.dtype(np.int32): "int32_t", np.dtype(np.int64): "int64_t"}


@dataclass(frozen=True)
class Held:
    """How a row is held: so many lanes with so many packs each; 0 packs: a block, row by row."""

    lanes: int
    packs: int

    @property
    def teams(self) -> int:
        """Teams of a block."""
        return BLOCK_THREADS // self.lanes


# In the order in which they are tried: the first that holds a row is taken.
SHAPES = tuple(Held(lanes, packs) for lanes in (8, 32, 256) for packs in (1, 2, 4, 8))
LONG_ROWS = Held(BLOCK_THREADS, 0)
# Dynamic shared memory that every device gives a block without being asked.
SHARED_BYTES = 48 << 10


def held(packs: int, numbers: int, itemsize: int) -> Held:
    """The shape for rows of so many packs.

    Parameters
    ----------
    packs : int
        Packs of 16 bytes.
    numbers : int
        Numbers of a row.
    itemsize : int
        Bytes of the type that is computed with.
    """
    for shape in SHAPES:
        if shape.lanes * shape.packs >= packs and room(shape, numbers, itemsize) <= SHARED_BYTES:
            return shape
    return LONG_ROWS


def room(shape: Held, width: int, itemsize: int) -> int:
    """Bytes of shared memory in which a block's teams put their sums together."""
    return 0 if shape.teams == 1 else shape.teams * (width + 1) * itemsize


class _Resident:
    """A problem on the device: rows padded to whole packs."""

    def __init__(self, device: Device, problem: Problem) -> None:
        X = problem.X
        self.stored = _STORED[X.dtype.name]
        self.dtype = problem.dtype
        per = PACK_BYTES // X.itemsize
        self.n_features = X.shape[1]
        self.width = max(1, -(-X.shape[1] // per)) * per
        self.shape = held(self.width // per, self.width, self.dtype.itemsize)
        self.X = device.upload(padded(X, self.width))
        self.problem = {
            "X": self.X,
            "y": device.upload(problem.y),
            "weight": None
            if problem.sample_weight is None
            else device.upload(problem.sample_weight),
            "loss_parameters": device.upload(np.array(problem.loss.parameters or (0.0,), float)),
            "width": self.width,
            "fit_intercept": int(problem.fit_intercept),
        }

    @property
    def room(self) -> int:
        return room(self.shape, self.width, self.dtype.itemsize)


def padded(X: np.ndarray, width: int) -> np.ndarray:
    """Rows of `width` numbers, zeros behind their own; numbers of 16 bits as their bits."""
    X = X.view(np.uint16) if X.itemsize == 2 else X
    if X.shape[1] == width:
        return X
    wide = np.zeros((X.shape[0], width), X.dtype)
    wide[:, : X.shape[1]] = X
    return wide


class CudaBackend:
    """The verbs over a device.

    Parameters
    ----------
    device : Device
    """

    name = "cuda"
    threads = 1

    def __init__(self, device: Device) -> None:
        self.device = device
        self._residents: dict[int, tuple[weakref.ref[Problem], _Resident]] = {}

    def supports(self, loss: Loss) -> str | None:
        """None if there is a kernel for the loss, else why not."""
        if loss.builtin and any(loss.name == row.name for row in LOSSES):
            return None
        return f"there is no CUDA kernel for loss {loss.name!r}; use backend='jit'"

    def segment_rows(self, n_features: int, batch_size: int) -> int:
        """Rows of a segment, a multiple of the batch size."""
        steps = SEGMENT_ELEMENTS // ((n_features + 16) * batch_size)
        return min(max(1, steps), SEGMENT_STEPS) * batch_size

    # ---- Steps ----

    def descend(self, problem: Problem, state: State, segment: Segment) -> tuple[float, float]:
        """Run the segment's steps on ``state``."""
        data = self._resident(problem)
        run = _Run(self.device, data, problem, state, segment)
        loss, norm = run.steps()
        run.give_back()
        return loss, norm

    def descend_classic(
        self, problem: Problem, step: ClassicStep, state: ClassicState, segment: Segment
    ) -> np.ndarray:
        """Not on a GPU: every row's step waits for the one before it."""
        raise BackendError(
            "backend='cuda' has no classic per-sample step; expected backend='native' or 'jit'."
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
        data = self._resident(problem)
        loss, squares, gradient = 0.0, 0.0, np.zeros(theta.size)
        weights = self.device.upload(spread(theta, data.width))
        for slab in slabs(rows, data.width):
            part = partials(self.device, data, length(slab))
            instance = f"{data.stored}, {problem.loss.name}, {data.shape.lanes}, {data.shape.packs}"
            launch(
                self.device,
                "rows",
                f"gradient<{instance}, {str(norms).lower()}>",
                part["tiles"],
                BLOCK_THREADS,
                data.room,
                {
                    "problem": data.problem,
                    "rows": places(self.device, slab),
                    "theta": weights,
                    "partials": part,
                },
            )
            sums = self.device.download(part["sums"]).astype(np.float64)
            gradient += gathered(np.cumsum(sums, axis=0)[-1], theta.size - 1)
            losses = self.device.download(part["losses"])
            loss, squares = loss + float(losses[:, 0].sum()), squares + float(losses[:, 1].sum())
        if not problem.fit_intercept:
            gradient[-1] = 0
        return loss, gradient, squares

    def margin(self, X: Any, theta: np.ndarray, rows: Rows) -> np.ndarray:
        """Decision values of the rows."""
        stored, per = _STORED[X.dtype.name], PACK_BYTES // X.itemsize
        width = max(1, -(-X.shape[1] // per)) * per
        shape, count = held(width // per, width, theta.itemsize), length(rows)
        out = self.device.empty(count, theta.dtype)
        launch(
            self.device,
            "rows",
            f"margin<{stored}, {shape.lanes}, {shape.packs}>",
            max(1, min(-(-count // shape.teams), 4 * TILES_WANTED)),
            BLOCK_THREADS,
            0,
            {
                "X": self.device.upload(padded(X, width)),
                "width": width,
                "rows": places(self.device, rows),
                "theta": self.device.upload(spread(theta, width)),
                "with_intercept": 1,
                "out": out,
            },
        )
        return self.device.download(out)

    # ---- Vectors ----

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
        if not params:
            return
        columns = [[w, g, *memory] for w, g, memory in zip(params, grads, slots, strict=True)]
        held_there = [[self.device.upload(a) for a in row] for row in columns]
        addresses = np.zeros((len(params), 4), np.int64)
        for row, arrays in zip(addresses, held_there, strict=True):
            row[: len(arrays)] = [self.device.address(a) for a in arrays]
        sizes = np.array([w.size for w in params], np.int64)
        first = np.concatenate([[0], np.cumsum(-(-sizes // CHUNK_NUMBERS))])
        constants = rule.constants(np.array([step]), np.array([lr], dtype=np.float64))[0]
        if first[-1]:
            launch(
                self.device,
                "vectors",
                f"apply<{_WIDE[params[0].dtype]}, {rule.formula}>",
                int(first[-1]),
                BLOCK_THREADS,
                0,
                {
                    "arrays": {
                        "addresses": self.device.upload(addresses),
                        "sizes": self.device.upload(sizes),
                        "first_chunk": self.device.upload(first),
                        "arrays": len(params),
                    },
                    "constants": self.device.upload(constants),
                    "decay": rule.coupled_decay,
                },
            )
        for arrays, there in zip(columns, held_there, strict=True):
            for array, copy in zip([arrays[0], *arrays[2:]], [there[0], *there[2:]], strict=True):
                array[...] = self.device.download(copy)

    def reduce(self, dst: np.ndarray, sources: Sequence[np.ndarray], scale: float) -> None:
        """``dst = scale * (dst + sum of sources)``, in place."""
        there, others = self.device.upload(dst), [self.device.upload(s) for s in sources]
        addresses = np.array([self.device.address(a) for a in others], np.int64)
        launch(
            self.device,
            "vectors",
            f"reduce<{_WIDE[dst.dtype]}>",
            blocks_for(dst.size),
            BLOCK_THREADS,
            0,
            {
                "dst": there,
                "sources": self.device.upload(addresses),
                "count": len(others),
                "size": dst.size,
                "scale": scale,
            },
        )
        dst[...] = self.device.download(there)

    def permute(self, n: int, keys: np.ndarray, start: int, stop: int) -> np.ndarray:
        """The index bijection at positions start <= i < stop."""
        out = self.device.empty(stop - start, bijection.index_dtype(n))
        launch(
            self.device,
            "vectors",
            f"permute<{_INDEX[out.dtype]}>",
            blocks_for(stop - start),
            BLOCK_THREADS,
            0,
            {
                "n": n,
                "keys": self.device.upload(keys),
                "start": start,
                "count": stop - start,
                "out": out,
            },
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
        out = self.device.empty(stop - start, starts.dtype)
        launch(
            self.device,
            "vectors",
            f"mix<{_INDEX[starts.dtype]}>",
            blocks_for(stop - start),
            BLOCK_THREADS,
            0,
            {
                "pattern": {
                    "block": self.device.upload(block),
                    "row": self.device.upload(row),
                    "starts": self.device.upload(starts),
                    "turned": self.device.upload(turned),
                    "size": block.size // 2,
                    "blocks": starts.shape[1],
                },
                "start": start,
                "count": stop - start,
                "out": out,
            },
        )
        return self.device.download(out)

    # ---- What is on the device ----

    def _resident(self, problem: Problem) -> _Resident:
        """The problem's arrays on the device, copied at the first call."""
        if problem.is_sparse:
            raise BackendError(
                "backend='cuda' has no kernels for sparse rows; expected backend='native' or 'jit'."
            )
        if problem.n_outputs > 1:
            raise BackendError(
                "backend='cuda' has no kernels for several outputs; expected backend='native' or "
                "'jit'."
            )
        key = id(problem)
        found = self._residents.get(key)
        if found is None or found[0]() is not problem:
            reference = weakref.ref(problem, lambda _: self._residents.pop(key, None))
            found = self._residents[key] = reference, _Resident(self.device, problem)
        return found[1]


class _Run:
    """A segment's steps on the device."""

    def __init__(
        self, device: Device, data: _Resident, problem: Problem, state: State, segment: Segment
    ) -> None:
        self.device, self.data, self.state, self.segment = device, data, state, segment
        self.loss_name, width = problem.loss.name, data.width
        rule, n_steps = state.rule, segment.n_steps
        self.theta = device.upload(spread(state.theta, width))
        self.slots = [device.upload(spread(slot, width)) for slot in state.slots]
        self.average = None
        if state.average is not None:
            self.average = device.upload(spread(state.average, width))
        rates = np.asarray(segment.learning_rate, dtype=np.float64)
        constants = rates[:, None]
        if rule.formula != "sgd":
            numbers = np.arange(state.step, state.step + n_steps)
            constants = rule.constants(numbers, np.broadcast_to(rates, n_steps))
        self.update = {
            "constants": device.upload(np.ascontiguousarray(constants)),
            "stride": constants.shape[1] if len(constants) > 1 else 0,
            "l2": problem.penalty.l2 + rule.coupled_decay,
            "l1": problem.penalty.l1,
            "clip_norm": state.clip_norm,
        }
        self.there = {
            "theta": self.theta,
            "slot0": self.slots[0] if self.slots else None,
            "slot1": self.slots[1] if len(self.slots) > 1 else None,
            "average": self.average,
            "averaged": state.averaged,
        }
        self.results = device.zeros(2, np.float64)
        self.outcome = {
            "results": self.results,
            "squares": device.zeros(max(1, -(-(width + 1) // BLOCK_THREADS)), np.float64),
            "total": device.empty(width + 1, np.float64),
            "arrived": device.zeros(1, np.uint32),
        }

    def steps(self) -> tuple[float, float]:
        """Run them; returns their summed loss and the last one's norm."""
        segment = self.segment
        size = min(segment.batch_size, segment.n_rows)
        part = partials(self.device, self.data, size)
        alone = part["tiles"] * (self.data.width + 1) <= SUMS_OF_ONE_BLOCK
        advance = self._step if alone else self._large_step
        rows = places(self.device, segment.rows)
        for number in range(segment.n_steps):
            first = number * segment.batch_size
            count = min(segment.batch_size, segment.n_rows - first)
            batch = within(rows, first, count)
            tile = part["rows_of_tile"] * self.data.shape.teams
            last = number == segment.n_steps - 1
            advance(number, batch, part | {"tiles": -(-count // tile)}, last)
        loss, norm = self.device.download(self.results)
        return float(loss), float(norm)

    def _step(
        self, number: int, batch: dict[str, Any], part: dict[str, Any], last: bool
    ) -> None:
        """One kernel."""
        self._launch(
            f"step<{self._instance()}>",
            part["tiles"],
            self.data.room,
            problem=self.data.problem,
            rows=batch,
            partials=part,
            update=self.update,
            number=number,
            norm_wanted=int(last or self.state.clip_norm > 0),
            state=self.there,
            outcome=self.outcome,
        )

    def _large_step(
        self, number: int, batch: dict[str, Any], part: dict[str, Any], last: bool
    ) -> None:
        """Three kernels, each over as many blocks as there is work for."""
        data, wide = self.data, _WIDE[self.data.dtype]
        self._launch(
            f"gradient<{self._rows_instance()}, false>",
            part["tiles"],
            data.room,
            problem=data.problem,
            rows=batch,
            theta=self.theta,
            partials=part,
        )
        blocks = -(-(data.width + 1) // BLOCK_THREADS)
        shared = {
            "partials": part,
            "model": {
                "width": data.width,
                "outputs": 1,
                "fit_intercept": data.problem["fit_intercept"],
            },
            "update": self.update,
            "count": batch["count"],
            "outcome": self.outcome,
        }
        self._launch(f"combine<{wide}>", blocks, 0, "steps", theta=self.theta, **shared)
        finish = f"finish<{wide}, {self.state.rule.formula}>"
        self._launch(finish, blocks, 0, "steps", number=number, state=self.there, **shared)

    def give_back(self) -> None:
        """Bring what the steps made to the state."""
        state, d = self.state, self.data.n_features
        state.theta[:] = gathered(self.device.download(self.theta), d)
        for slot, there in zip(state.slots, self.slots, strict=True):
            slot[:] = gathered(self.device.download(there), d)
        if state.average is not None:
            state.average[:] = gathered(self.device.download(self.average), d)
            state.averaged += self.segment.n_steps
        state.step += self.segment.n_steps

    def _rows_instance(self) -> str:
        data = self.data
        return f"{data.stored}, {self.loss_name}, {data.shape.lanes}, {data.shape.packs}"

    def _instance(self) -> str:
        data, formula = self.data, self.state.rule.formula
        return f"{data.stored}, {self.loss_name}, {formula}, {data.shape.lanes}, {data.shape.packs}"

    def _launch(
        self, expression: str, blocks: int, shared: int, unit: str = "rows", **arguments: Any
    ) -> None:
        launch(self.device, unit, expression, blocks, BLOCK_THREADS, shared, arguments)


def partials(device: Device, data: _Resident, count: int) -> dict[str, Any]:
    """Room for the sums over the tiles of a step over ``count`` rows."""
    teams = data.shape.teams
    rows_of_tile = min(TILE_ROWS, max(1, -(-count // (TILES_WANTED * teams))))
    tiles = max(1, -(-count // (rows_of_tile * teams)))
    return {
        "sums": device.empty((tiles, data.width + 1), data.dtype),
        "losses": device.empty((tiles, 2), np.float64),
        "rows_of_tile": rows_of_tile,
        "tiles": tiles,
    }


def places(device: Device, rows: Rows) -> dict[str, Any]:
    """Rows as kernels take them."""
    if isinstance(rows, tuple):
        return {"narrow": None, "wide": None, "start": rows[0], "count": rows[1]}
    there = device.upload(np.ascontiguousarray(rows))
    narrow = there if rows.dtype == np.int32 else None
    wide = there if rows.dtype == np.int64 else None
    return {"narrow": narrow, "wide": wide, "start": 0, "count": int(rows.size)}


def within(rows: dict[str, Any], first: int, count: int) -> dict[str, Any]:
    """The ``count`` places from ``first`` on."""
    return {
        "narrow": None if rows["narrow"] is None else rows["narrow"][first:],
        "wide": None if rows["wide"] is None else rows["wide"][first:],
        "start": rows["start"] + first,
        "count": count,
    }


def spread(theta: np.ndarray, width: int) -> np.ndarray:
    """Coefficients and intercept with zeros between them, so that the former fill whole packs."""
    wide = np.zeros(width + 1, theta.dtype)
    wide[: theta.size - 1] = theta[:-1]
    wide[width] = theta[-1]
    return wide


def gathered(wide: np.ndarray, d: int) -> np.ndarray:
    """The coefficients and the intercept of what was spread."""
    return np.append(wide[:d], wide[-1])


def blocks_for(numbers: int) -> int:
    """Blocks for a loop over so many numbers, of which a block takes one for each thread."""
    return max(1, min(-(-numbers // BLOCK_THREADS), 4 * TILES_WANTED))
