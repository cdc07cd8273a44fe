"""Tensors as kernels take them: side by side, as the addresses of their numbers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from schuss import _native
from schuss.errors import InvalidType, TensorError

__all__ = ["Table", "tables", "write_back"]

# Numbers that kernels know, by the order of their types in the extension module.
TYPES = (torch.float32, torch.float64, torch.bfloat16, torch.float16)
NAMES = tuple(str(dtype).partition(".")[2] for dtype in TYPES)
COMPLEX = {torch.complex64, torch.complex128}
CLASSES = (torch.Tensor, torch.nn.Parameter)
GRADIENTS = 1  # their column
EXCHANGE = getattr(torch.Tensor, "__dlpack_c_exchange_api__", None)

Column = list[torch.Tensor]


@dataclass
class Table:
    """Tensors of one dtype, each parameter with its gradient and slots.

    Attributes
    ----------
    dtype : str
    addresses : ndarray of int64, shape (n_tensors, 2 + n_slots)
        Of the parameters, gradients and slots.
    sizes : ndarray of int64, shape (n_tensors,)
        Numbers of each.
    places : ndarray of int64, shape (n_tensors,), or None
        Which of the tensors that the table was made of; None: all.
    copies : list of (tensor, tensor or None)
        Copies that kernels work on, and what they are to be written back to.
    """

    dtype: str
    addresses: np.ndarray
    sizes: np.ndarray
    places: np.ndarray | None = None
    copies: list[tuple[torch.Tensor, torch.Tensor | None]] = field(default_factory=list)


def tables(columns: Sequence[Column], names: Sequence[str]) -> list[Table]:
    """Tensors in tables, one for each dtype.

    Parameters
    ----------
    columns : parameters, gradients, and each slot: lists of as many tensors
    names : what those are called in errors

    Raises
    ------
    schuss.errors.TensorError, schuss.errors.InvalidType
        For tensors that no kernel can take.
    """
    addresses, sizes, kinds, kind = describe(columns)
    negated = list(map(torch.Tensor.is_neg, columns[GRADIENTS]))
    if any(negated):  # their numbers lie there negated
        kinds[negated], kind = -1, -1
    if kind >= 0:
        return [Table(NAMES[kind], addresses, sizes)]
    made = []
    for own in np.unique(kinds[kinds >= 0]):
        places = np.flatnonzero(kinds == own)
        made.append(Table(NAMES[own], addresses[places], sizes[places], places))
    return [*made, *_one_by_one(columns, np.flatnonzero(kinds < 0), names)]


def describe(columns: Sequence[Column]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """What tensors that stand side by side are.

    Returns
    -------
    addresses : ndarray of int64, shape (n_tensors, n_columns)
    sizes : ndarray of int64, shape (n_tensors,)
    kinds : ndarray of int32, shape (n_tensors,)
        Types, as numbers; -1 where kernels cannot take the tensors as they lie.
    kind : int
        That of all of them, or -1.
    """
    found = None if EXCHANGE is None else _native.describe(EXCHANGE, columns, CLASSES)
    return found or _describe(columns)


def _describe(columns: Sequence[Column]) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """The same where torch has no table of C functions to ask."""
    rows = np.zeros((len(columns), len(columns[0]), 3), np.int64)
    for column, own in zip(columns, rows, strict=True):
        for t, row in zip(column, own, strict=True):
            plain = type(t) in CLASSES and t.layout == torch.strided and t.device.type == "cpu"
            if plain and t.dtype in TYPES and t.is_contiguous():
                row[:] = t.data_ptr(), t.numel(), TYPES.index(t.dtype)
            else:
                row[2] = -1
    alike = (rows[:, :, 1:] == rows[0, :, 1:]).all(axis=(0, 2))
    kinds = np.where(alike, rows[0, :, 2], -1).astype(np.int32)
    same = kinds.size > 0 and (kinds == kinds[0]).all()
    return rows[:, :, 0].T.copy(), rows[0, :, 1].copy(), kinds, int(kinds[0]) if same else -1


def _one_by_one(
    columns: Sequence[Column], places: np.ndarray, names: Sequence[str]
) -> Iterator[Table]:
    """A table for each tensor that has gaps, another order of its numbers, or is complex."""
    for place in places:
        row = [column[place] for column in columns]
        for name, tensor in zip(names, row, strict=True):
            _check(f"{name} of params[{place}]", tensor, row[0])
        numbers = [torch.view_as_real(t.resolve_conj()) if t.dtype in COMPLEX else t for t in row]
        flat = _side_by_side([t.resolve_neg() for t in numbers])
        copies = [
            (new, None if column == GRADIENTS else old)
            for column, (new, old) in enumerate(zip(flat, numbers, strict=True))
            if new is not old
        ]
        addresses = np.array([[t.data_ptr() for t in flat]], np.int64)
        name = NAMES[TYPES.index(flat[0].dtype)]
        sizes = np.array([flat[0].numel()], np.int64)
        yield Table(name, addresses, sizes, np.array([place]), copies)


def _side_by_side(tensors: list[torch.Tensor]) -> list[torch.Tensor]:
    """Tensors whose numbers lie in one order without gaps: themselves if they do, else copies."""
    strides = tensors[0].stride()
    order = sorted(range(len(strides)), key=lambda k: (-strides[k], k))
    if all(t.permute(order).is_contiguous() for t in tensors):
        return tensors
    return [t if t.is_contiguous() else t.contiguous() for t in tensors]


def _check(name: str, tensor: torch.Tensor, param: torch.Tensor) -> None:
    if type(tensor) not in CLASSES:
        raise InvalidType(f"{name}: expected a plain tensor, got {type(tensor).__name__}.")
    if tensor.device.type != "cpu":
        raise TensorError(f"{name}: lies on {tensor.device}; expected tensors on the CPU.")
    if tensor.layout != torch.strided:
        raise TensorError(f"{name}: has layout {tensor.layout}; expected a dense tensor.")
    if tensor.dtype not in TYPES and tensor.dtype not in COMPLEX:
        accepted = ", ".join(NAMES)
        raise TensorError(f"{name}: has dtype {tensor.dtype}; expected {accepted} or complex.")
    if tensor.dtype != param.dtype or tensor.shape != param.shape:
        raise TensorError(
            f"{name}: has dtype {tensor.dtype} and shape {tuple(tensor.shape)}; expected the "
            f"parameter's, {param.dtype} and {tuple(param.shape)}."
        )


def write_back(table: Table) -> None:
    """Bring what a kernel made in copies to where it belongs."""
    for new, old in table.copies:
        if old is not None:
            old.copy_(new)
