"""A problem on the device, of dense rows, of several outputs, or sparse: what makes its sums.

Each kind knows how its parameters lie on the device, and which kernels add a batch's loss and
gradient up. What comes after the sums is the same for all (schuss.backends.cuda.steps).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

import numpy as np

from schuss.backends.cuda.device import Device
from schuss.backends.cuda.shapes import (
    BLOCK_THREADS,
    PACK_BYTES,
    TILE_SIDE,
    Cut,
    blocks_for,
    held,
    room,
)
from schuss.backends.protocol import TILE_ROWS, Problem, Rows
from schuss.errors import BackendError
from schuss.formulas.losses import VectorLoss

__all__ = [
    "DenseRows",
    "Kind",
    "Places",
    "Sums",
    "on_device",
    "packs_of",
    "sparse_matrix",
    "spread",
]

STORED = {"float32": "float", "float64": "double", "bfloat16": "bfloat16", "float16": "float16"}
# Rows of a slice whose gradient is summed in the data's dtype, of several outputs.
SLICE_ROWS = 16 * TILE_ROWS
WARPS = BLOCK_THREADS // 32


class Places:
    """Rows to visit, on the device."""

    def __init__(self, device: Device, rows: Rows) -> None:
        self.narrow = self.wide = None
        if isinstance(rows, tuple):
            self.start, self.count = rows
            return
        there = device.upload(np.ascontiguousarray(rows))
        self.start, self.count = 0, int(rows.size)
        if rows.dtype == np.int32:
            self.narrow = there
        else:
            self.wide = there

    def within(self, first: int, count: int) -> Places:
        """The ``count`` places from ``first`` on."""
        part = object.__new__(Places)
        part.narrow = None if self.narrow is None else self.narrow[first:]
        part.wide = None if self.wide is None else self.wide[first:]
        part.start, part.count = self.start + first, min(count, self.count - first)
        return part

    @property
    def arguments(self) -> dict[str, Any]:
        """As kernels take them."""
        return {"narrow": self.narrow, "wide": self.wide, "start": self.start, "count": self.count}


class Sums:
    """Room for the sums over the parts of a batch.

    Attributes
    ----------
    partials : dict
        As kernels take them; ``sums`` is None where a batch is added up in ``total`` at once.
    total : array of float64, shape (columns,)
    cut : Cut or None
        How dense rows are cut into parts.
    slopes, norms : arrays or None
        Of several outputs: each row's slopes, (rows, outputs), and squared norm.
    """

    slopes: Any = None
    norms: Any = None

    def __init__(
        self,
        device: Device,
        columns: int,
        parts: int,
        loss_parts: int,
        cut: Cut | None = None,
    ) -> None:
        self.partials = {
            "sums": device.empty((parts, columns), np.float64) if parts else None,
            "losses": device.zeros((loss_parts, 2), np.float64),
            "rows_of_tile": 0 if cut is None else cut.rows_of_tile,
            "tiles_of_part": 0 if cut is None else cut.tiles_of_part,
            "parts": parts,
            "loss_parts": loss_parts,
        }
        self.total = device.zeros(columns, np.float64)
        self.cut = cut


class Kind(Protocol):
    """What the verbs ask of a problem on the device."""

    problem: Problem
    columns: int
    computed: str

    @property
    def model(self) -> dict[str, int]:
        """Shape of the parameters, as kernels take it."""

    def spread(self, theta: np.ndarray) -> np.ndarray:
        """Parameters as they lie on the device."""

    def gathered(self, there: np.ndarray) -> np.ndarray:
        """The parameters of what was spread."""

    def room(self, count: int) -> Sums:
        """Room for the sums over batches of up to ``count`` rows."""

    def add_up(self, places: Places, theta: Any, sums: Sums, norms: bool) -> None:
        """Losses and gradient of the rows, to their sums; squared norms of samples if asked for."""


def on_device(device: Device, problem: Problem) -> Kind:
    """A copy of the problem there."""
    if problem.is_sparse:
        return SparseRows(device, problem)
    return DenseRows(device, problem) if problem.n_outputs == 1 else Outputs(device, problem)


def without_rows(problem: Problem) -> Problem:
    """What a problem is beside its rows; whoever keeps this does not keep those."""
    nothing = np.empty((0, problem.n_features), problem.X.dtype)
    return dataclasses.replace(problem, X=nothing, y=problem.y[:0].copy(), sample_weight=None)


def packs_of(X: np.ndarray) -> tuple[np.ndarray, int]:
    """Rows padded with zeros to whole packs, numbers of 16 bits as their bits; and their width."""
    per = PACK_BYTES // X.itemsize
    width = -(-X.shape[1] // per) * per
    X = X.view(np.uint16) if X.itemsize == 2 else X
    if X.shape[1] == width:
        return X, width
    wide = np.zeros((X.shape[0], width), X.dtype)
    wide[:, : X.shape[1]] = X
    return wide, width


def spread(theta: np.ndarray, n_outputs: int, width: int) -> np.ndarray:
    """Parameters (n_outputs, n_features + 1) with zeros before each intercept: flat."""
    rows = theta.reshape(n_outputs, -1)
    wide = np.zeros((n_outputs, width + 1), theta.dtype)
    wide[:, : rows.shape[1] - 1] = rows[:, :-1]
    wide[:, -1] = rows[:, -1]
    return wide.reshape(-1)


class _Padded:
    """Parameters (n_outputs, n_features + 1) that lie as (n_outputs, width + 1) on the device."""

    def __init__(self, device: Device, problem: Problem, width: int) -> None:
        self.device, self.width = device, width
        self.problem = without_rows(problem)
        self.columns = problem.n_outputs * (width + 1)
        self.y = device.upload(problem.y)
        weight = problem.sample_weight
        self.weight = None if weight is None else device.upload(weight)
        parameters = np.array(problem.loss.parameters or (0.0,), np.float64)
        self.loss_parameters = device.upload(parameters)
        self.computed = STORED[problem.dtype.name]

    @property
    def model(self) -> dict[str, int]:
        return {
            "width": self.width,
            "outputs": self.problem.n_outputs,
            "fit_intercept": int(self.problem.fit_intercept),
        }

    def spread(self, theta: np.ndarray) -> np.ndarray:
        return spread(theta, self.problem.n_outputs, self.width)

    def gathered(self, there: np.ndarray) -> np.ndarray:
        rows = there.reshape(self.problem.n_outputs, -1)
        d = self.problem.n_features
        return np.column_stack([rows[:, :d], rows[:, -1]]).reshape(-1)


class DenseRows(_Padded):
    """Dense rows of one output."""

    def __init__(self, device: Device, problem: Problem) -> None:
        X, width = packs_of(problem.X)
        super().__init__(device, problem, width)
        self.X = device.upload(X)
        self.shape = held(width, X.itemsize, problem.dtype.itemsize)
        self.bytes_shared = room(self.shape, width, problem.dtype.itemsize)
        self.stored = STORED[problem.X.dtype.name]

    @property
    def arguments(self) -> dict[str, Any]:
        """The data and the loss, as kernels take them."""
        return {
            "X": self.X,
            "y": self.y,
            "weight": self.weight,
            "loss_parameters": self.loss_parameters,
            "width": self.width,
            "fit_intercept": int(self.problem.fit_intercept),
        }

    def instance(self, *parts: str) -> str:
        """Arguments of a kernel's template."""
        return ", ".join([self.stored, *parts, str(self.shape.lanes), str(self.shape.packs)])

    def room(self, count: int) -> Sums:
        cut = Cut.of(count, self.shape.teams)
        parts = cut.parts(count)
        return Sums(self.device, self.columns, parts, parts, cut)

    def parts_of(self, sums: Sums, count: int) -> dict[str, Any]:
        """The sums of a batch that may be shorter than there is room for."""
        assert sums.cut is not None
        parts = sums.cut.parts(count)
        return sums.partials | {"parts": parts, "loss_parts": parts}

    def add_up(self, places: Places, theta: Any, sums: Sums, norms: bool) -> None:
        sums.partials = self.parts_of(sums, places.count)
        self.device.launch(
            "rows",
            f"gradient<{self.instance(self.problem.loss.name)}, {str(norms).lower()}>",
            sums.partials["parts"],
            shared=self.bytes_shared,
            problem=self.arguments,
            rows=places.arguments,
            theta=theta,
            partials=sums.partials,
        )


class Outputs(_Padded):
    """Dense rows of several outputs: products of matrices, tile by tile."""

    def __init__(self, device: Device, problem: Problem) -> None:
        X, width = packs_of(problem.X)
        super().__init__(device, problem, width)
        self.X = device.upload(X)
        self.stored = STORED[problem.X.dtype.name]
        self.k = problem.n_outputs

    def room(self, count: int) -> Sums:
        slices, blocks = -(-count // SLICE_ROWS), blocks_for(count * self.k)
        sums = Sums(self.device, self.columns, slices, blocks)
        sums.slopes = self.device.empty((count, self.k), self.problem.dtype)
        sums.norms = self.device.empty(count, np.float64)
        return sums

    def add_up(self, places: Places, theta: Any, sums: Sums, norms: bool) -> None:
        loss, count = self.problem.loss, places.count
        rows = {"X": self.X, "width": self.width, "rows": places.arguments}
        outputs, columns = -(-self.k // TILE_SIDE), -(-self.width // TILE_SIDE)
        slices, blocks = -(-count // SLICE_ROWS), blocks_for(count * self.k)
        sums.partials = sums.partials | {"parts": slices, "loss_parts": blocks}
        self.device.launch(
            "outputs",
            f"outputs_margin<{self.stored}>",
            -(-count // TILE_SIDE) * outputs,
            k=self.k,
            theta=theta,
            out=sums.slopes,
            **rows,
        )
        if norms:
            self.device.launch(
                "outputs",
                f"outputs_norms<{self.stored}>",
                blocks_for(count, WARPS),
                fit_intercept=int(self.problem.fit_intercept),
                out=sums.norms,
                **rows,
            )
        together = isinstance(loss, VectorLoss)
        self.device.launch(
            "outputs",
            f"outputs_weigh{'_together' * together}<{self.computed}, {loss.name}>",
            blocks,
            y=self.y,
            weight=self.weight,
            loss_parameters=self.loss_parameters,
            k=self.k,
            rows=places.arguments,
            norms=sums.norms if norms else None,
            margins=sums.slopes,
            losses=sums.partials["losses"],
        )
        self.device.launch(
            "outputs",
            f"outputs_gradient<{self.stored}>",
            slices * outputs * columns,
            k=self.k,
            slopes=sums.slopes,
            rows_of_slice=SLICE_ROWS,
            sums=sums.partials["sums"],
            **rows,
        )


class SparseRows(_Padded):
    """Sparse rows of one output, whose gradient is added up in float64 by atomic operations."""

    def __init__(self, device: Device, problem: Problem) -> None:
        super().__init__(device, problem, problem.n_features)
        self.matrix = sparse_matrix(device, problem.X)

    def room(self, count: int) -> Sums:
        return Sums(self.device, self.columns, 0, blocks_for(count, WARPS))

    def add_up(self, places: Places, theta: Any, sums: Sums, norms: bool) -> None:
        blocks = blocks_for(places.count, WARPS)
        sums.partials = sums.partials | {"loss_parts": blocks}
        name = f"{self.computed}, {self.problem.loss.name}, {str(norms).lower()}"
        self.device.launch(
            "sparse",
            f"sparse_gradient<{name}>",
            blocks,
            problem=self.matrix
            | {
                "y": self.y,
                "weight": self.weight,
                "loss_parameters": self.loss_parameters,
                "d": self.width,
                "fit_intercept": int(self.problem.fit_intercept),
            },
            rows=places.arguments,
            theta=theta,
            total=sums.total,
            losses=sums.partials["losses"],
        )


def sparse_matrix(device: Device, X: Any) -> dict[str, Any]:
    """The three arrays of CSR on the device: columns as 32-bit numbers, begins as 64-bit ones."""
    if X.shape[1] > np.iinfo(np.int32).max:
        raise BackendError(
            f"backend='cuda': X has {X.shape[1]} columns; expected fewer than 2^31 of sparse rows."
        )
    return {
        "data": device.upload(X.data),
        "indices": device.upload(X.indices.astype(np.int32, copy=False)),
        "indptr": device.upload(X.indptr.astype(np.int64, copy=False)),
    }
